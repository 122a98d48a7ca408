# What joins the regions: ways between their networks, the names, the files of a front end. No region's state knows of this
# one, and a region goes on without it.

terraform {
  required_version = ">= 1.11"

  backend "s3" {
    key          = "global.tfstate"
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

# Where nothing says otherwise: what has a region names it.
provider "aws" {
  region              = var.choices.state_region
  allowed_account_ids = [var.choices.account_id]

  default_tags {
    tags = { app = "godwit", environment = var.choices.environment, cost-center = var.choices.cost_center, state = "global" }
  }
}

locals {
  # In this order the first of a pair asks and the second accepts.
  order = sort(keys(var.regions))
  pairs = merge([
    for i, one in local.order : { for j, other in local.order : "${one}/${other}" => { from = one, to = other } if i < j }
  ]...)
  canaries = { for region, percent in var.choices.canaries : region => percent if percent != null }
}

data "aws_route53_zone" "this" {
  name = var.domain
}

# What a region's state has made, found by its name.
data "aws_vpc" "this" {
  for_each = var.regions
  region   = each.key
  tags     = { Name = "godwit-${each.key}" }
}

data "aws_lb" "public" {
  for_each = var.regions
  region   = each.key
  name     = "godwit-${each.key}-public"
}

data "aws_lb" "internal" {
  for_each = var.regions
  region   = each.key
  name     = "godwit-${each.key}-internal"
}

data "aws_lb" "canary" {
  for_each = local.canaries
  region   = each.key
  name     = "godwit-${each.key}-canary"
}

data "aws_acm_certificate" "static" {
  region      = "us-east-1"
  domain      = "static.${var.domain}"
  statuses    = ["ISSUED"]
  most_recent = true
}

module "dns" {
  source     = "../modules/dns"
  domain     = var.domain
  zone_id    = data.aws_route53_zone.this.zone_id
  account_id = var.choices.account_id

  api_elsewhere = var.choices.api_elsewhere
  regions = {
    for name, region in var.regions : name => {
      continents = region.continents
      default    = region.default
      balancer   = { dns_name = data.aws_lb.public[name].dns_name, zone_id = data.aws_lb.public[name].zone_id }
      canary     = contains(keys(local.canaries), name) ? { dns_name = data.aws_lb.canary[name].dns_name, zone_id = data.aws_lb.canary[name].zone_id, percent = local.canaries[name] } : null
    }
  }
}

module "cdn" {
  count           = var.choices.cdn == null ? 0 : 1
  source          = "../modules/cdn"
  domain          = var.domain
  zone_id         = data.aws_route53_zone.this.zone_id
  account_id      = var.choices.account_id
  certificate_arn = data.aws_acm_certificate.static.arn
  regions         = var.choices.cdn.regions
  api_paths       = var.choices.cdn.api_paths
}
