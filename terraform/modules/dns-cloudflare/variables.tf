variable "domain" {
  description = "The domain: DOMAIN is everybody's name."
  type        = string
}

variable "zone_id" {
  description = "The domain's zone at Cloudflare."
  type        = string
}

variable "account_id" {
  description = "The account at Cloudflare."
  type        = string
}

variable "check_seconds" {
  description = "How often each region is asked. How short it may be is the plan's: a loss is seen after three of them."
  type        = number
}

variable "regions" {
  description = "Every region, on whichever cloud: whose users it serves, whether it is the default, whether it stands by and is asked once all others are lost, its public name, and that of a release on trial with its percentage."
  type = map(object({
    continents = set(string)
    default    = optional(bool, false)
    standby    = optional(bool, false)
    address    = string
    canary     = optional(object({ address = string, percent = number }))
  }))

  validation {
    condition     = length([for region in values(var.regions) : region if region.default]) == 1
    error_message = "One region is the default, and no other."
  }

  validation {
    condition     = alltrue([for region in values(var.regions) : !region.standby || (length(region.continents) == 0 && !region.default)])
    error_message = "A region that stands by has no users of its own."
  }

  validation {
    condition     = alltrue([for region in values(var.regions) : try(region.canary.percent, 0) >= 0 && try(region.canary.percent, 0) <= 50])
    error_message = "A canary gets half of a region's requests at most."
  }
}
