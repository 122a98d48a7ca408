# A region's Redis: one node. Godwit keeps the region's note of the lease there and wants one instance behind one address,
# never a failover pair: a second node that lacks the last note would grant the lease twice. A node that is lost is made anew,
# empty, and the region grants nothing for lease.term_ms.

locals {
  tags = { component = "cache" }
}

resource "aws_elasticache_replication_group" "this" {
  #checkov:skip=CKV2_AWS_50:One node is what Godwit asks for: a second that lacks the last note would grant the lease twice.

  replication_group_id       = var.name
  description                = "Godwit in ${var.region}: sessions, limits, the note of the lease."
  engine                     = "redis"
  engine_version             = var.engine_version
  node_type                  = var.node_type
  num_cache_clusters         = 1
  automatic_failover_enabled = false
  multi_az_enabled           = false
  port                       = 6379
  parameter_group_name       = aws_elasticache_parameter_group.this.name
  subnet_group_name          = aws_elasticache_subnet_group.this.name
  security_group_ids         = [aws_security_group.this.id]
  user_group_ids             = [aws_elasticache_user_group.this.user_group_id]
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = var.key_arn
  maintenance_window         = var.maintenance_window
  auto_minor_version_upgrade = false
  apply_immediately          = false
  # Restored, the note of the lease would be an old one.
  snapshot_retention_limit = 0
  tags                     = merge(local.tags, { Name = var.name })

  lifecycle {
    # Who signed in while there was no primary is owed from here.
    prevent_destroy = true
  }
}

resource "aws_elasticache_parameter_group" "this" {
  name        = var.name
  family      = "redis${split(".", var.engine_version)[0]}"
  description = "Nothing is evicted: the note of the lease has no expiry."
  tags        = local.tags

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

# Off until a person has set its password (README.md): a password given here would be in the state.
resource "aws_elasticache_user" "godwit" {
  user_id       = "${var.name}-godwit"
  user_name     = "godwit"
  engine        = "redis"
  access_string = "off ~* &* -@all"
  tags          = local.tags

  authentication_mode {
    type = "no-password-required"
  }

  lifecycle {
    ignore_changes = [access_string, authentication_mode, passwords, no_password_required]
  }
}

# A group must have one of this name. Nobody comes in by it.
resource "aws_elasticache_user" "default" {
  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "redis"
  access_string = "off ~keys* -@all"
  tags          = local.tags

  authentication_mode {
    type = "no-password-required"
  }
}

resource "aws_elasticache_user_group" "this" {
  user_group_id = var.name
  engine        = "redis"
  user_ids      = [aws_elasticache_user.default.user_id, aws_elasticache_user.godwit.user_id]
  tags          = local.tags
}

resource "aws_elasticache_subnet_group" "this" {
  name        = var.name
  description = "Subnets without a way out."
  subnet_ids  = var.subnet_ids
  tags        = local.tags
}

resource "aws_security_group" "this" {
  name        = "${var.name}-cache"
  description = "Godwit's Redis: in from its pods, out to nobody."
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-cache" })
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  security_group_id            = aws_security_group.this.id
  description                  = "From Godwit's pods."
  referenced_security_group_id = var.pods_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  tags                         = local.tags
}
