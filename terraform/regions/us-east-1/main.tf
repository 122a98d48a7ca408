# Made by `make regions` from regions.yaml: change it there.

terraform {
  required_version = ">= 1.11"

  backend "s3" {
    key          = "regions/us-east-1.tfstate"
    encrypt      = true
    use_lockfile = true
  }

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

provider "aws" {
  region              = "us-east-1"
  allowed_account_ids = [var.choices.account_id]

  default_tags {
    tags = local.tags
  }

  # Godwit's own notes on the database that it promotes.
  ignore_tags {
    key_prefixes = ["godwit:"]
  }
}

locals {
  tags = {
    app         = "godwit"
    environment = var.environment
    cost-center = var.cost_center
    region      = "us-east-1"
    state       = "regions/us-east-1"
  }
}

module "region" {
  source         = "../../modules/region"
  region         = "us-east-1"
  domain         = var.domain
  primary_region = var.primary_region
  regions        = var.regions
  elsewhere      = var.elsewhere
  choices        = var.choices
  owner_password = var.owner_password
  tags           = local.tags
}

# regions.auto.tfvars.json

variable "domain" {
  description = "The domain."
  type        = string
}

variable "primary_region" {
  description = "The region of the writer."
  type        = string
}

variable "regions" {
  description = "Every region."
  type        = any
}

variable "elsewhere" {
  description = "The networks of regions on other clouds."
  type        = map(string)
}

# terraform.tfvars

variable "environment" {
  description = "As production."
  type        = string
}

variable "cost_center" {
  description = "Who pays."
  type        = string
}

variable "choices" {
  description = "The region's sizes, people and versions: modules/region says which."
  type        = any
}

# TF_VAR_owner_password

variable "owner_password" {
  description = "For the making of the first global database alone."
  type        = string
  sensitive   = true
  default     = null
}

output "region" {
  description = "What has to be known of it."
  value       = module.region
}
