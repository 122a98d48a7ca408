# The global database on RDS: streaming replication from the primary's region.
#
# A generation is one life of the region's instance. RDS cannot turn an old primary into a replica, nor rewind one: after a
# promotion it is replaced, by adding a generation (README.md, "After a promotion"). Both are there until a
# person has removed the old one.

# What is there, whether or not a state knows of it.
data "aws_db_instances" "here" {
  count = local.rds ? 1 : 0
}

resource "aws_db_instance" "global" {
  for_each   = local.rds ? local.identifier[var.region] : {}
  identifier = each.value

  # Looked at only where nothing is yet; a replica has these from its source.
  replicate_source_db         = local.primary ? null : local.source
  engine                      = local.primary ? "postgres" : null
  db_name                     = local.primary ? local.database : null
  username                    = local.primary ? local.owner : null
  password_wo                 = local.primary ? var.owner_password : null
  password_wo_version         = local.primary ? 1 : null
  allocated_storage           = local.primary ? var.global.storage_gib : null
  engine_version              = var.global.engine_version
  auto_minor_version_upgrade  = true
  allow_major_version_upgrade = false

  instance_class        = var.instance_class
  max_allocated_storage = var.global.storage_gib * 4
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.database.arn
  # A replica too: the day after a promotion the loss of one zone must not stop writes.
  multi_az                            = true
  parameter_group_name                = aws_db_parameter_group.global[0].name
  db_subnet_group_name                = aws_db_subnet_group.this.name
  vpc_security_group_ids              = [aws_security_group.database.id]
  publicly_accessible                 = false
  ca_cert_identifier                  = "rds-ca-rsa2048-g1"
  iam_database_authentication_enabled = true

  # A replica too. RDS refuses to promote one while its first backup is being made, and what has just become
  # the primary must be able to go back in time.
  backup_retention_period   = var.global.backup_days
  backup_window             = var.backup_window
  maintenance_window        = var.maintenance_window
  copy_tags_to_snapshot     = true
  delete_automated_backups  = false
  deletion_protection       = true
  skip_final_snapshot       = false
  final_snapshot_identifier = "${each.value}-final"
  apply_immediately         = false

  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]
  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.monitoring.arn
  performance_insights_enabled          = true
  performance_insights_retention_period = 7
  performance_insights_kms_key_id       = aws_kms_key.database.arn

  tags = merge(local.tags, { Name = each.value, role = local.primary ? "primary" : "replica", plane = "global" })

  lifecycle {
    prevent_destroy = true

    # In the primary's region what is made follows nobody and is empty. That is wanted once, for the first; later an empty
    # database beside the primary, or in its place, would be taken for it.
    precondition {
      condition = (
        !local.primary || contains(data.aws_db_instances.here[0].instance_identifiers, each.value) ||
        (each.key == "1" && length(local.identifier[var.region]) == 1 && var.owner_password != null)
      )
      error_message = "${each.value} is not there, and in the primary's region it would be made empty. A generation is added where a replica is to be (terraform/README.md, \"After a promotion\"); the first database of all is made with TF_VAR_owner_password."
    }

    ignore_changes = [
      # What a promotion changes, and what follows from it here. Removing the source would promote, changing it or
      # the rest would replace.
      replicate_source_db, engine, db_name, username, password_wo, password_wo_version,
      # A rename moves the address that Godwit's settings name.
      identifier, final_snapshot_identifier,
      # Grows by itself.
      allocated_storage,
      # RDS replaces an instance whose key or subnets change: that is a move, and a person's.
      kms_key_id, storage_encrypted, db_subnet_group_name, snapshot_identifier,
    ]
  }
}
