variable "region" {
  description = "The region of the bucket."
  type        = string
}

variable "bucket" {
  description = "Its name."
  type        = string
}

variable "statements" {
  description = "Whom its policy lets in: statements of IAM."
  type        = any
  default     = []
}

variable "versions" {
  description = "How many days what was overwritten or deleted is kept, and how many versions of it stay for longer. None: nothing is."
  type        = object({ days = number, keep = optional(number) })
  default     = null
}
