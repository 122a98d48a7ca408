# The region's own database: what is written here whoever is the primary. Nobody replicates it, so RDS may keep its
# password (it may not where there are replicas).

resource "aws_db_instance" "regional" {
  identifier                 = "godwit-${var.region}-regional"
  engine                     = "postgres"
  engine_version             = var.regional.engine_version
  auto_minor_version_upgrade = true
  instance_class             = var.regional.instance_class
  db_name                    = local.database
  username                   = local.owner

  manage_master_user_password   = true
  master_user_secret_kms_key_id = aws_kms_key.database.key_id

  allocated_storage                   = var.regional.storage_gib
  max_allocated_storage               = var.regional.storage_gib * 4
  storage_type                        = "gp3"
  storage_encrypted                   = true
  kms_key_id                          = aws_kms_key.database.arn
  multi_az                            = true
  parameter_group_name                = aws_db_parameter_group.regional.name
  db_subnet_group_name                = aws_db_subnet_group.this.name
  vpc_security_group_ids              = [aws_security_group.database.id]
  publicly_accessible                 = false
  ca_cert_identifier                  = "rds-ca-rsa2048-g1"
  iam_database_authentication_enabled = true

  backup_retention_period   = var.regional.backup_days
  backup_window             = var.backup_window
  maintenance_window        = var.maintenance_window
  copy_tags_to_snapshot     = true
  delete_automated_backups  = false
  deletion_protection       = true
  skip_final_snapshot       = false
  final_snapshot_identifier = "godwit-${var.region}-regional-final"
  apply_immediately         = false

  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]
  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.monitoring.arn
  performance_insights_enabled          = true
  performance_insights_retention_period = 7
  performance_insights_kms_key_id       = aws_kms_key.database.arn

  tags = merge(local.tags, { Name = "godwit-${var.region}-regional", plane = "regional" })

  lifecycle {
    prevent_destroy = true
    ignore_changes  = [allocated_storage, identifier, db_name, username, kms_key_id, storage_encrypted, db_subnet_group_name]
  }
}
