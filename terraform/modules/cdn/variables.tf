variable "domain" {
  description = "The domain: static.DOMAIN is where files are."
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

variable "certificate_arn" {
  description = "The certificate of static.DOMAIN, in us-east-1, where CloudFront looks."
  type        = string
}

variable "regions" {
  description = "The two regions that files are kept in, the one that is asked first at the front."
  type        = list(string)

  validation {
    condition     = length(distinct(var.regions)) == 2
    error_message = "Two regions."
  }
}

variable "api_paths" {
  description = "Paths that go on to the API, uncached. None unless Godwit's limits by address are no longer needed."
  type        = list(string)
  default     = []
}
