variable "domain" {
  description = "The domain: DOMAIN is everybody's name, REGION.DOMAIN a region's."
  type        = string
}

variable "zone_id" {
  description = "The domain's public zone."
  type        = string
}

variable "account_id" {
  description = "The AWS account: buckets' names are everybody's."
  type        = string
}

variable "api_elsewhere" {
  description = "Whether DOMAIN is somebody else's, as modules/dns-cloudflare's. The regions' own names and checks stay."
  type        = bool
  default     = false
}

variable "regions" {
  description = "Every region: whose users it serves, whether it is the default, its balancer, and the one of a release on trial with its percentage."
  type = map(object({
    continents = set(string)
    default    = optional(bool, false)
    balancer   = object({ dns_name = string, zone_id = string })
    canary     = optional(object({ dns_name = string, zone_id = string, percent = number }))
  }))

  validation {
    condition     = length([for region in values(var.regions) : region if region.default]) == 1
    error_message = "One region is the default, and no other."
  }

  validation {
    condition     = length(distinct(flatten([for region in values(var.regions) : tolist(region.continents)]))) == length(flatten([for region in values(var.regions) : tolist(region.continents)]))
    error_message = "A continent has one region."
  }

  validation {
    condition     = alltrue([for region in values(var.regions) : try(region.canary.percent, 0) >= 0 && try(region.canary.percent, 0) <= 50])
    error_message = "A canary gets half of a region's requests at most."
  }
}
