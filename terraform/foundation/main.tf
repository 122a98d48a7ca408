# What must be there before a region is: where states are kept, the domain's zone, certificates, the budget, and with Aurora
# the global cluster that the regions' clusters join.

terraform {
  required_version = ">= 1.11"

  # First without: README.md, "From nothing".
  backend "s3" {
    key          = "foundation.tfstate"
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
  region              = var.choices.state_region
  allowed_account_ids = [var.choices.account_id]

  default_tags {
    tags = local.tags
  }
}

locals {
  tags  = { app = "godwit", environment = var.choices.environment, cost-center = var.choices.cost_center, state = "foundation" }
  names = merge({ for region in var.regions : region => "${region}.${var.domain}" })
}

resource "aws_route53_zone" "this" {
  #checkov:skip=CKV2_AWS_38:Signing needs a record at the registrar, set by hand; a chain that breaks takes every region down at once. It is a choice to be made with that in mind.
  #checkov:skip=CKV2_AWS_39:Queries of everybody's resolvers: much to pay and to keep, and nothing that an alert goes by.

  name    = var.domain
  comment = "Godwit's public names."

  lifecycle {
    # A new one has other servers: the domain would be gone until its registrar knows them.
    prevent_destroy = true
  }
}

# Only these may make certificates for the domain.
resource "aws_route53_record" "caa" {
  zone_id = aws_route53_zone.this.zone_id
  name    = var.domain
  type    = "CAA"
  ttl     = 3600
  records = [for issuer in ["amazon.com", "amazontrust.com", "awstrust.com", "amazonaws.com"] : "0 issue \"${issuer}\""]
}

# A certificate in each region, for that region's name and everybody's. Here and not in the regions' states: the proof of
# DOMAIN is one record for all of them, and must not go with a region.
resource "aws_acm_certificate" "region" {
  for_each                  = local.names
  region                    = each.key
  domain_name               = each.value
  subject_alternative_names = [var.domain, "canary.${each.value}"]
  validation_method         = "DNS"
  tags                      = { Name = each.value }

  lifecycle {
    create_before_destroy = true
  }
}

# CloudFront looks for its own in us-east-1, whatever regions there are.
resource "aws_acm_certificate" "static" {
  region            = "us-east-1"
  domain_name       = "static.${var.domain}"
  validation_method = "DNS"
  tags              = { Name = "static.${var.domain}" }

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  proven = toset(concat(
    [var.domain, "static.${var.domain}"],
    flatten([for name in values(local.names) : [name, "canary.${name}"]]),
  ))
  options = merge(
    { for option in flatten([for certificate in aws_acm_certificate.region : tolist(certificate.domain_validation_options)]) : option.domain_name => option... },
    { for option in aws_acm_certificate.static.domain_validation_options : option.domain_name => option... },
  )
}

# The proof is the same for a name in every region: one record for each name.
resource "aws_route53_record" "proof" {
  for_each = local.proven
  zone_id  = aws_route53_zone.this.zone_id
  name     = local.options[each.key][0].resource_record_name
  type     = local.options[each.key][0].resource_record_type
  records  = [local.options[each.key][0].resource_record_value]
  ttl      = 300
}

resource "aws_acm_certificate_validation" "region" {
  for_each                = local.names
  region                  = each.key
  certificate_arn         = aws_acm_certificate.region[each.key].arn
  validation_record_fqdns = [for name in [each.value, var.domain, "canary.${each.value}"] : aws_route53_record.proof[name].fqdn]
}

resource "aws_acm_certificate_validation" "static" {
  region                  = "us-east-1"
  certificate_arn         = aws_acm_certificate.static.arn
  validation_record_fqdns = [aws_route53_record.proof["static.${var.domain}"].fqdn]
}

# With Aurora: empty at first. The first cluster that joins it, that of the primary region, is its writer. It is asked for in
# the region of the states, which is lost with no region of users.
resource "aws_rds_global_cluster" "this" {
  count                     = var.choices.aurora_version == null ? 0 : 1
  global_cluster_identifier = "godwit"
  engine                    = "aurora-postgresql"
  engine_version            = var.choices.aurora_version
  storage_encrypted         = true
  deletion_protection       = true

  lifecycle {
    prevent_destroy = true
    # Who is in it, and who writes, is the regions' and the operators'.
    ignore_changes = [source_db_cluster_identifier, global_cluster_identifier, storage_encrypted, database_name]
  }
}

resource "aws_budgets_budget" "this" {
  name         = "godwit-${var.choices.environment}"
  budget_type  = "COST"
  limit_amount = tostring(var.choices.budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  cost_filter {
    name   = "TagKeyValue"
    values = ["user:app$godwit"]
  }

  dynamic "notification" {
    for_each = { ACTUAL = 80, FORECASTED = 100 }
    content {
      notification_type          = notification.key
      threshold                  = notification.value
      threshold_type             = "PERCENTAGE"
      comparison_operator        = "GREATER_THAN"
      subscriber_email_addresses = var.choices.budget_emails
    }
  }
}
