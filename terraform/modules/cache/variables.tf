variable "name" {
  description = "What everything is named after: godwit-REGION."
  type        = string
}

variable "region" {
  description = "The region this is in."
  type        = string
}

variable "engine_version" {
  description = "Redis' release, as 7.1."
  type        = string
}

variable "node_type" {
  description = "The node. Its memory bounds how many sessions the region knows."
  type        = string
}

variable "maintenance_window" {
  description = "When it may be restarted, UTC."
  type        = string
}

variable "key_arn" {
  description = "The KMS key."
  type        = string
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets without a way out."
  type        = list(string)
}

variable "pods_security_group_id" {
  description = "What Godwit's pods are in."
  type        = string
}
