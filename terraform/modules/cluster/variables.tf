variable "name" {
  description = "What everything is named after: godwit-REGION."
  type        = string
}

variable "region" {
  description = "The region this is in."
  type        = string
}

variable "account_id" {
  description = "The AWS account."
  type        = string
}

variable "kubernetes_version" {
  description = "Kubernetes' release, as 1.34."
  type        = string
}

variable "administrators" {
  description = "IAM roles that administer the cluster."
  type        = set(string)
}

variable "deployers" {
  description = "IAM roles that change what is in Godwit's namespace and nothing else."
  type        = set(string)
}

variable "endpoint_cidrs" {
  description = "Addresses that reach the API server from outside; with none it has its private endpoint alone."
  type        = set(string)

  validation {
    condition     = !anytrue([for cidr in var.endpoint_cidrs : endswith(cidr, "/0")])
    error_message = "Not the whole world."
  }
}

variable "nodes" {
  description = "The nodes: as many as this region needs once another one's users are here too."
  type = object({
    instance_types = list(string)
    ami_type       = string
    count          = number
    disk_gib       = number
  })
}

variable "namespace" {
  description = "Godwit's namespace."
  type        = string
}

variable "service_account" {
  description = "The service account that Godwit's pods run as."
  type        = string
}

variable "database_statements" {
  description = "What Godwit may do to its region's database: IAM statements."
  type        = any
}

variable "ports" {
  description = "What Godwit's pods listen on."
  type        = object({ public = number, internal = number })
}

variable "networks" {
  description = "The network of each region, by region: who reaches the internal listener."
  type        = map(string)
}

variable "canary" {
  description = "Whether to build a second way in, for a release that is tried out on a share of the requests."
  type        = bool
}

variable "certificate_arn" {
  description = "The certificate of the public names."
  type        = string
}

variable "key_arn" {
  description = "The KMS key for Kubernetes' secrets and the logs."
  type        = string
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "private_subnet_ids" {
  description = "Where nodes and the internal balancer are."
  type        = list(string)
}

variable "public_subnet_ids" {
  description = "Where the public balancer is."
  type        = list(string)
}

variable "log_days" {
  description = "How long the API server's logs are kept, in days."
  type        = number
}

variable "tags" {
  description = "What the provider tags all with; what a launch template starts it does not reach."
  type        = map(string)
}
