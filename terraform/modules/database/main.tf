# A region's two databases: its instance of the global one, which is the writer or a replica of it, and a small one of its own.
#
# Which region's instance writes is not Terraform's to say. `primary_region` tells what to make where nothing is yet; for what is
# there, whoever promotes decides (`godwit promote`), and everything that a promotion changes is in `ignore_changes`.
# Nothing here destroys a database: what is to go is forgotten by `terraform state rm` and removed by a person.

locals {
  tags     = { component = "database" }
  primary  = var.region == var.primary_region
  rds      = var.global.engine == "rds"
  aurora   = var.global.engine == "aurora"
  database = "godwit"
  owner    = "godwit_owner"
  # From a region's name alone, so that no state has to read another one's.
  identifier = { for region in keys(var.regions) : region => {
    for generation in var.regions[region].generations : generation => "godwit-${region}-${generation}"
  } }
  current = { for region, one in var.regions : region => max([for generation in one.generations : tonumber(generation)]...) }
  # What is moved: an instance of its newest generation, or a member of the global cluster.
  instance_arns = { for region, generation in local.current : region => "arn:aws:rds:${region}:${var.account_id}:db:godwit-${region}-${generation}" }
  cluster_arns  = { for region in keys(var.regions) : region => "arn:aws:rds:${region}:${var.account_id}:cluster:${local.cluster[region]}" }
  cluster       = { for region in keys(var.regions) : region => "godwit-${region}" }
  # terraform/foundation makes it.
  global_cluster = "godwit"
  # The instance that a new replica is made of.
  source = local.instance_arns[var.primary_region]
}

# Encrypts everything the databases keep, backups too: without it they are noise.
resource "aws_kms_key" "database" {
  description             = "Godwit's databases in ${var.region}."
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = local.key_policy
  tags                    = merge(local.tags, { Name = "godwit-${var.region}-database" })

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "database" {
  name          = "alias/godwit-${var.region}-database"
  target_key_id = aws_kms_key.database.key_id
}

locals {
  # The account's IAM says who may use it.
  key_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "kms:*"
      Resource  = "*"
      Principal = { AWS = "arn:aws:iam::${var.account_id}:root" }
    }]
  })
}

resource "aws_db_subnet_group" "this" {
  name        = "godwit-${var.region}"
  description = "Subnets without a way out."
  subnet_ids  = var.subnet_ids
  tags        = local.tags
}

resource "aws_security_group" "database" {
  name        = "godwit-${var.region}-database"
  description = "Godwit's databases: in from its pods, out to nobody."
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "godwit-${var.region}-database" })
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  description                  = "From Godwit's pods."
  referenced_security_group_id = var.pods_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  tags                         = local.tags
}

# Enhanced monitoring writes its own log.
resource "aws_iam_role" "monitoring" {
  name = "godwit-${var.region}-database-monitoring"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  role       = aws_iam_role.monitoring.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}
