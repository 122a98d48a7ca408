# The global database on Aurora: a cluster in each region, members of the global cluster that terraform/foundation makes.
# Switchover and failover are the global cluster's, and move the writer without replacing a cluster: there are no
# generations.

resource "aws_rds_cluster" "global" {
  #checkov:skip=CKV2_AWS_27:Slow statements are logged (parameters.tf). All of a kind are not: among those of definition are passwords.

  count              = local.aurora ? 1 : 0
  cluster_identifier = local.cluster[var.region]

  global_cluster_identifier = local.global_cluster
  engine                    = "aurora-postgresql"
  # A cluster that joins runs what the global cluster runs, to the minor version; from then on that upgrades its members.
  engine_version             = var.global.engine_version
  database_name              = local.primary ? local.database : null
  master_username            = local.primary ? local.owner : null
  master_password_wo         = local.primary ? var.owner_password : null
  master_password_wo_version = local.primary ? 1 : null

  storage_encrypted                   = true
  kms_key_id                          = aws_kms_key.database.arn
  db_cluster_parameter_group_name     = aws_rds_cluster_parameter_group.global[0].name
  db_subnet_group_name                = aws_db_subnet_group.this.name
  vpc_security_group_ids              = [aws_security_group.database.id]
  iam_database_authentication_enabled = true
  # Godwit forwards writes itself, with an epoch and a key; a second way would pass both by.
  enable_global_write_forwarding = false

  backup_retention_period      = var.global.backup_days
  preferred_backup_window      = var.backup_window
  preferred_maintenance_window = var.maintenance_window
  copy_tags_to_snapshot        = true
  delete_automated_backups     = false
  deletion_protection          = true
  skip_final_snapshot          = false
  final_snapshot_identifier    = "godwit-${var.region}-final"
  apply_immediately            = false

  enabled_cloudwatch_logs_exports = ["postgresql"]

  tags = merge(local.tags, { Name = "godwit-${var.region}", role = local.primary ? "primary" : "replica", plane = "global" })

  lifecycle {
    prevent_destroy = true
    ignore_changes = [
      # What a switchover or a failover changes.
      global_cluster_identifier, replication_source_identifier, source_region,
      database_name, master_username, master_password_wo, master_password_wo_version,
      engine_version,
      cluster_identifier, final_snapshot_identifier, kms_key_id, storage_encrypted, db_subnet_group_name,
      snapshot_identifier, availability_zones,
    ]
  }
}

# Two, in two zones: the second takes over within the region. Godwit's settings name the first by its own address, never
# the cluster's, which is a balancer.
resource "aws_rds_cluster_instance" "global" {
  for_each           = local.aurora ? toset(["a", "b"]) : []
  identifier         = "godwit-${var.region}-${each.key}"
  cluster_identifier = aws_rds_cluster.global[0].id
  engine             = "aurora-postgresql"
  instance_class     = var.instance_class

  db_subnet_group_name         = aws_db_subnet_group.this.name
  preferred_maintenance_window = var.maintenance_window
  publicly_accessible          = false
  ca_cert_identifier           = "rds-ca-rsa2048-g1"
  auto_minor_version_upgrade   = true
  copy_tags_to_snapshot        = true
  promotion_tier               = each.key == "a" ? 0 : 1

  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.monitoring.arn
  performance_insights_enabled          = true
  performance_insights_retention_period = 7
  performance_insights_kms_key_id       = aws_kms_key.database.arn

  tags = merge(local.tags, { Name = "godwit-${var.region}-${each.key}", plane = "global" })

  lifecycle {
    prevent_destroy = true
    ignore_changes  = [identifier, cluster_identifier, db_subnet_group_name, engine_version]
  }
}
