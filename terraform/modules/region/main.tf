# One region, whole. The roots in terraform/regions differ in nothing but which region they name.

locals {
  name  = "godwit-${var.region}"
  order = sort(keys(var.regions))
  # Counted, so that no two are restarted in one hour.
  index = index(local.order, var.region)
  day   = element(["mon", "tue", "wed", "thu", "sat", "sun"], local.index)

  # Two networks overlap if the shorter prefix of the two makes them one.
  all      = merge({ for name, region in var.regions : name => region.network }, var.elsewhere)
  networks = [for name, cidr in local.all : { name = name, cidr = cidr }]
  overlaps = flatten([
    for i, one in local.networks : [
      for j, other in local.networks : "${one.name} and ${other.name}" if i < j && (
        cidrsubnet("${split("/", one.cidr)[0]}/${min(split("/", one.cidr)[1], split("/", other.cidr)[1])}", 0, 0) ==
        cidrsubnet("${split("/", other.cidr)[0]}/${min(split("/", one.cidr)[1], split("/", other.cidr)[1])}", 0, 0)
      )
    ]
  ])
}

# For all but the databases: secrets of Kubernetes, logs, alarms, Redis.
resource "aws_kms_key" "region" {
  description             = "Godwit in ${var.region}: secrets, logs, alarms, Redis."
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = { Name = local.name, component = "region" }
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TheAccountsRolesSayWhoUsesIt"
        Effect    = "Allow"
        Action    = "kms:*"
        Resource  = "*"
        Principal = { AWS = "arn:aws:iam::${var.choices.account_id}:root" }
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:${var.region}:${var.choices.account_id}:log-group:*" } }
      },
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Condition = { StringEquals = { "aws:SourceAccount" = var.choices.account_id } }
      },
    ]
  })

  lifecycle {
    prevent_destroy = true

    precondition {
      condition     = length(local.overlaps) == 0
      error_message = "Networks overlap, and could not be joined: ${join(", ", local.overlaps)}."
    }
  }
}

resource "aws_kms_alias" "region" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.region.key_id
}

# Made by terraform/foundation, for the names of this region and those of all.
data "aws_acm_certificate" "this" {
  domain      = "${var.region}.${var.domain}"
  statuses    = ["ISSUED"]
  most_recent = true
}

module "network" {
  source   = "../network"
  name     = local.name
  region   = var.region
  cidr     = var.regions[var.region].network
  zones    = var.choices.zones
  key_arn  = aws_kms_key.region.arn
  log_days = var.choices.log_days
}

module "cluster" {
  source              = "../cluster"
  name                = local.name
  region              = var.region
  account_id          = var.choices.account_id
  kubernetes_version  = var.choices.cluster.version
  administrators      = var.choices.cluster.administrators
  deployers           = var.choices.cluster.deployers
  endpoint_cidrs      = var.choices.cluster.endpoint_cidrs
  nodes               = var.choices.cluster.nodes
  canary              = var.choices.cluster.canary
  namespace           = "godwit"
  service_account     = "godwit"
  ports               = { public = 8081, internal = 9081 }
  networks            = local.all
  database_statements = module.database.statements
  certificate_arn     = data.aws_acm_certificate.this.arn
  key_arn             = aws_kms_key.region.arn
  vpc_id              = module.network.vpc_id
  private_subnet_ids  = module.network.private_subnet_ids
  public_subnet_ids   = module.network.public_subnet_ids
  log_days            = var.choices.log_days
  tags                = var.tags
}

module "database" {
  source                 = "../database"
  region                 = var.region
  primary_region         = var.primary_region
  regions                = { for name, region in var.regions : name => { generations = region.generations } }
  account_id             = var.choices.account_id
  global                 = var.choices.database.global
  instance_class         = var.choices.database.instance_class
  regional               = var.choices.database.regional
  owner_password         = var.owner_password
  backup_region          = var.choices.database.backup_region
  backup_window          = "0${local.index % 5}:00-0${local.index % 5}:45"
  maintenance_window     = "${local.day}:06:00-${local.day}:07:00"
  vpc_id                 = module.network.vpc_id
  subnet_ids             = module.network.data_subnet_ids
  pods_security_group_id = module.cluster.pods_security_group_id
}

module "cache" {
  source                 = "../cache"
  name                   = local.name
  region                 = var.region
  engine_version         = var.choices.cache.engine_version
  node_type              = var.choices.cache.node_type
  maintenance_window     = "${local.day}:07:00-${local.day}:08:00"
  key_arn                = aws_kms_key.region.arn
  vpc_id                 = module.network.vpc_id
  subnet_ids             = module.network.data_subnet_ids
  pods_security_group_id = module.cluster.pods_security_group_id
}

module "observability" {
  source            = "../observability"
  name              = local.name
  account_id        = var.choices.account_id
  emails            = var.choices.alarm_emails
  databases         = concat(module.database.instances.global, module.database.instances.regional)
  replicating       = var.choices.database.global.engine == "rds" ? module.database.instances.global : []
  disks             = concat(var.choices.database.global.engine == "rds" ? module.database.instances.global : [], module.database.instances.regional)
  slot_wal_keep_mib = var.choices.database.global.slot_wal_keep_mib
  caches            = ["${local.name}-001"]
  balancers         = module.cluster.balancers
  key_arn           = aws_kms_key.region.arn
}
