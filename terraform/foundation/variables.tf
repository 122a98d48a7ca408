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
    # The engine's version where the global database is on Aurora.
    aurora_version = optional(string)
  })

  validation {
    condition     = !contains(var.regions, var.choices.state_region) && !contains(var.regions, var.choices.state_copy_region) && var.choices.state_region != var.choices.state_copy_region
    error_message = "States are kept in two regions that serve no users: whichever is lost, and wherever the primary has gone, they are there."
  }
}
