variable "region" {
  description = "The region this is in."
  type        = string
}

variable "primary_region" {
  description = "Where the writer is: what is made in that region is a primary, elsewhere a replica of it. Nothing that is there already changes with it."
  type        = string

  validation {
    condition     = contains(keys(var.regions), var.primary_region)
    error_message = "The primary is none of the regions."
  }
}

variable "regions" {
  description = "Every region, and the generations of its instance of the global database: as a rule one. The highest is the one in use."
  type        = map(object({ generations = set(string) }))

  validation {
    condition     = alltrue([for region in values(var.regions) : length(region.generations) > 0 && alltrue([for one in region.generations : can(regex("^[1-9][0-9]*$", one))])])
    error_message = "Generations are counted from 1, and every region has one."
  }
}

variable "account_id" {
  description = "The AWS account."
  type        = string
}

variable "global" {
  description = "The global database. All of it is the same in every region: any may become the primary."
  type = object({
    engine            = string
    engine_version    = string
    storage_gib       = number
    connections_max   = number
    slot_wal_keep_mib = number
    backup_days       = number
  })

  validation {
    condition     = contains(["rds", "aurora", "kubernetes"], var.global.engine)
    error_message = "The engine is rds, aurora, or kubernetes: Postgres in the cluster, which the chart builds and nothing here."
  }

  validation {
    condition     = can(regex(var.global.engine == "aurora" ? "^[0-9]+[.][0-9]+$" : "^[0-9]+$", var.global.engine_version))
    error_message = "On RDS name the major version alone: minor ones come by themselves. On Aurora name the version that the global cluster runs, as 16.6."
  }

  validation {
    condition     = var.global.backup_days >= 7 && var.global.backup_days <= 35
    error_message = "Backups are kept for 7 to 35 days."
  }

  validation {
    condition     = var.global.engine == "aurora" || var.global.slot_wal_keep_mib * 2 <= var.global.storage_gib * 1024
    error_message = "What is kept for replicas that are away may fill half of the disk at most."
  }
}

variable "instance_class" {
  description = "This region's instance of the global database. A replica may be a size smaller; it replays every write, and must carry them all once it is promoted."
  type        = string
}

variable "regional" {
  description = "The region's own database."
  type = object({
    engine_version = string
    instance_class = string
    storage_gib    = number
    backup_days    = number
  })

  validation {
    condition     = var.regional.backup_days >= 7 && var.regional.backup_days <= 35
    error_message = "Backups are kept for 7 to 35 days."
  }
}

variable "owner_password" {
  description = "The password that the first global database is made with. Written to no state, looked at when there is none yet, and set anew afterwards (README.md)."
  type        = string
  sensitive   = true
  default     = null
}

variable "backup_region" {
  description = "Where copies of the backups go: another region."
  type        = string

  validation {
    condition     = var.backup_region != var.region
    error_message = "Copies in the same region are lost with it."
  }
}

variable "backup_window" {
  description = "When RDS makes its backup, UTC."
  type        = string
}

variable "maintenance_window" {
  description = "When RDS may restart it, UTC: no two regions at one time."
  type        = string
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets without a way out, in two zones at least."
  type        = list(string)
}

variable "pods_security_group_id" {
  description = "What Godwit's pods are in."
  type        = string
}
