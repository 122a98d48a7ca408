variable "name" {
  description = "What everything is named after: godwit-REGION."
  type        = string
}

variable "account_id" {
  description = "The AWS account."
  type        = string
}

variable "emails" {
  description = "Who is told. A pager's address, as a rule."
  type        = set(string)

  validation {
    condition     = length(var.emails) > 0
    error_message = "An alarm that nobody is told of is none."
  }
}

variable "databases" {
  description = "The region's database instances."
  type        = set(string)
}

variable "replicating" {
  description = "Those of them that replicate by streaming: global ones on RDS."
  type        = set(string)
}

variable "disks" {
  description = "Those of them with a disk of their own: all but Aurora's, which tell of none."
  type        = set(string)
}

variable "slot_wal_keep_mib" {
  description = "What the primary keeps for a replica that is away."
  type        = number
}

variable "caches" {
  description = "The region's Redis nodes."
  type        = set(string)
}

variable "balancers" {
  description = "The region's balancers, as CloudWatch names them, and whether it is well that nobody is behind one."
  type        = map(object({ balancer = string, targets = string, may_empty = bool }))
}

variable "key_arn" {
  description = "The KMS key."
  type        = string
}
