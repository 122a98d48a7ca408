variable "name" {
  description = "What everything is named after: godwit-REGION."
  type        = string
}

variable "region" {
  description = "The region this is in."
  type        = string
}

variable "cidr" {
  description = "The region's own network, a /16 of IPv4 that no other region's overlaps."
  type        = string

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && endswith(var.cidr, "/16")
    error_message = "The network must be a /16: the subnets are cut for one."
  }
}

variable "zones" {
  description = "The zones. A place in the list is a piece of the network: add at the end, and change nothing."
  type        = list(string)

  validation {
    condition     = length(distinct(var.zones)) == length(var.zones) && length(var.zones) >= 2 && length(var.zones) <= 4
    error_message = "Two to four zones: a database needs two, and the network is cut for four."
  }

  validation {
    condition     = alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "A zone of another region."
  }
}

variable "key_arn" {
  description = "The KMS key that logs are encrypted with."
  type        = string
}

variable "log_days" {
  description = "How long flow logs are kept, in days."
  type        = number
}
