# Two kinds of backup. RDS' own goes back to any second of the last days, within the region (backup_retention_period).
# These are whole copies, a second one in another region, which neither the loss of the region nor a deleted instance
# takes along. AWS Backup's own going back in time is left off: it would take RDS' retention and window over.

resource "aws_backup_vault" "here" {
  name        = "godwit-${var.region}"
  kms_key_arn = aws_kms_key.database.arn
  tags        = local.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_backup_vault" "copies" {
  region      = var.backup_region
  name        = "godwit-${var.region}-copies"
  kms_key_arn = aws_kms_key.copies.arn
  tags        = local.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_key" "copies" {
  region                  = var.backup_region
  description             = "Backups of Godwit's databases in ${var.region}."
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = local.key_policy
  tags                    = merge(local.tags, { Name = "godwit-${var.region}-copies" })

  lifecycle {
    prevent_destroy = true
  }
}

# Governance: who administers the account can still take a copy away, and nobody else before its time.
resource "aws_backup_vault_lock_configuration" "copies" {
  region             = var.backup_region
  backup_vault_name  = aws_backup_vault.copies.name
  min_retention_days = 7
  max_retention_days = 400
}

resource "aws_backup_plan" "this" {
  name = "godwit-${var.region}"
  tags = local.tags

  rule {
    rule_name         = "daily"
    target_vault_name = aws_backup_vault.here.name
    # Outside of every backup_window: RDS makes one at a time.
    schedule          = "cron(0 12 * * ? *)"
    start_window      = 60
    completion_window = 480

    lifecycle {
      delete_after = 35
    }

    copy_action {
      destination_vault_arn = aws_backup_vault.copies.arn
      lifecycle {
        delete_after = 35
      }
    }
  }

  rule {
    rule_name         = "monthly"
    target_vault_name = aws_backup_vault.here.name
    schedule          = "cron(0 14 1 * ? *)"
    start_window      = 60
    completion_window = 480

    lifecycle {
      delete_after = 35
    }

    copy_action {
      destination_vault_arn = aws_backup_vault.copies.arn
      lifecycle {
        delete_after = 365
      }
    }
  }
}

resource "aws_backup_selection" "this" {
  name         = "databases"
  plan_id      = aws_backup_plan.this.id
  iam_role_arn = aws_iam_role.backup.arn
  resources = concat(
    [for instance in aws_db_instance.global : instance.arn],
    [for cluster in aws_rds_cluster.global : cluster.arn],
    [aws_db_instance.regional.arn],
  )
}

resource "aws_iam_role" "backup" {
  name = "godwit-${var.region}-backup"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "backup.amazonaws.com" }
    }]
  })
  tags = local.tags
}

# Makes backups. Restoring is a person's, with a person's rights.
resource "aws_iam_role_policy_attachment" "backup" {
  role       = aws_iam_role.backup.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSBackupServiceRolePolicyForBackup"
}
