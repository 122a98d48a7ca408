variable "domain" {
  description = "The domain (regions.yaml)."
  type        = string
}

variable "regions" {
  description = "Every region (regions.yaml)."
  type        = map(object({ network = string, continents = set(string), default = bool }))
}

variable "elsewhere" {
  description = "The networks of regions on other clouds (regions.yaml)."
  type        = map(string)
}

variable "choices" {
  description = "What a person decides (terraform.tfvars)."
  type = object({
    account_id   = string
    environment  = string
    cost_center  = string
    state_region = string
    alarm_emails = set(string)
    # By region, the percentage of its requests that a release on trial gets. 0: built, and sent nobody.
    canaries = optional(map(number), {})
    # DOMAIN is answered by another provider (docs/MULTI-CLOUD.md).
    api_elsewhere = optional(bool, false)
    # By region on another cloud, the addresses of its internal listener.
    internal_elsewhere = optional(map(set(string)), {})
    # Where a front end's files are kept: two regions, the one that is asked first at the front.
    cdn = optional(object({ regions = list(string), api_paths = optional(list(string), []) }))
  })

  validation {
    condition     = alltrue([for region in keys(var.choices.canaries) : contains(keys(var.regions), region)])
    error_message = "A canary in a region that there is not."
  }

  validation {
    condition     = alltrue([for region in keys(var.choices.internal_elsewhere) : contains(keys(var.elsewhere), region)])
    error_message = "An internal listener of a region that is on no other cloud."
  }
}
