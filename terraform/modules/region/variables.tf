variable "domain" {
  description = "The domain: REGION.DOMAIN is a region's public name."
  type        = string
}

variable "region" {
  description = "This region."
  type        = string
}

variable "primary_region" {
  description = "The region of the writer."
  type        = string
}

variable "regions" {
  description = "Every region: its network, and the generations of its instance of the global database."
  type        = map(object({ network = string, generations = set(string) }))
}

variable "elsewhere" {
  description = "The network of each region that is on another cloud. It reaches the internal listener, by a way that is not built here."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "What the provider tags all with."
  type        = map(string)
}

variable "owner_password" {
  description = "For the making of the first global database alone."
  type        = string
  sensitive   = true
  default     = null
}

# What a person decides, and nobody guesses: nothing has a default but what is safe for everybody.
variable "choices" {
  description = "The region's sizes, people and versions (terraform.tfvars)."
  type = object({
    account_id   = string
    alarm_emails = set(string)
    zones        = list(string)
    log_days     = optional(number, 365)
    cluster = object({
      version        = string
      administrators = set(string)
      deployers      = set(string)
      endpoint_cidrs = optional(set(string), [])
      canary         = optional(bool, false)
      nodes = object({
        instance_types = list(string)
        ami_type       = string
        count          = number
        disk_gib       = optional(number, 50)
      })
    })
    database = object({
      instance_class = string
      # Where copies of the backups go: another region, and for good. A vault does not move, and nothing that keeps data is destroyed.
      backup_region = string
      global = object({
        engine            = string
        engine_version    = string
        storage_gib       = number
        connections_max   = number
        slot_wal_keep_mib = number
        backup_days       = number
      })
      regional = object({
        engine_version = string
        instance_class = string
        storage_gib    = number
        backup_days    = number
      })
    })
    cache = object({
      engine_version = optional(string, "7.1")
      node_type      = string
    })
  })

  validation {
    condition     = can(regex("^[0-9]{12}$", var.choices.account_id))
    error_message = "An AWS account has twelve digits."
  }

  validation {
    condition     = var.choices.cluster.nodes.count >= length(var.choices.zones)
    error_message = "A node in each zone, at least."
  }
}
