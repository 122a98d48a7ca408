# Forgets what the runs before have made and may not destroy, as `terraform state rm` does: a test ends by destroying all that its
# state still has.

terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

removed {
  from = aws_db_instance.global
  lifecycle {
    destroy = false
  }
}

removed {
  from = aws_db_instance.regional
  lifecycle {
    destroy = false
  }
}

removed {
  from = aws_rds_cluster.global
  lifecycle {
    destroy = false
  }
}

removed {
  from = aws_rds_cluster_instance.global
  lifecycle {
    destroy = false
  }
}

removed {
  from = aws_kms_key.database
  lifecycle {
    destroy = false
  }
}

removed {
  from = aws_kms_key.copies
  lifecycle {
    destroy = false
  }
}

removed {
  from = aws_backup_vault.here
  lifecycle {
    destroy = false
  }
}

removed {
  from = aws_backup_vault.copies
  lifecycle {
    destroy = false
  }
}
