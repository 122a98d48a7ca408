variable "domain" {
  description = "The domain (regions.yaml)."
  type        = string
}

variable "regions" {
  description = "Every region (regions.yaml)."
  type        = set(string)
}

variable "choices" {
  description = "What a person decides (terraform.tfvars)."
  type = object({
    account_id        = string
    environment       = string
    cost_center       = string
    state_region      = string
    state_copy_region = string
    budget_usd        = number
    budget_emails     = set(string)
    # The engine's version where the global database is on Aurora, in full, as 16.6: the regions' clusters must have the same.
    aurora_version = optional(string)
  })

  validation {
    condition     = !contains(var.regions, var.choices.state_region) && !contains(var.regions, var.choices.state_copy_region) && var.choices.state_region != var.choices.state_copy_region
    error_message = "States are kept in two regions that serve no users: whichever is lost, and wherever the primary has gone, they are there."
  }
  validation {
    condition     = var.choices.aurora_version == null || can(regex("^[0-9]+[.][0-9]+$", var.choices.aurora_version))
    error_message = "Aurora's version is named in full, as 16.6: whatever joins the global cluster must have the same."
  }
}
