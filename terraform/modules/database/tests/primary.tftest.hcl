# The first primary, and what is refused.

mock_provider "aws" {}

variables {
  region                 = "us-east-1"
  primary_region         = "us-east-1"
  regions                = { us-east-1 = { generations = ["1"] }, eu-west-1 = { generations = ["1"] } }
  account_id             = "123456789012"
  owner_password         = "of this test"
  instance_class         = "db.r7g.large"
  backup_region          = "eu-west-1"
  backup_window          = "01:00-01:45"
  maintenance_window     = "mon:06:00-mon:07:00"
  vpc_id                 = "vpc-1"
  subnet_ids             = ["subnet-1", "subnet-2"]
  pods_security_group_id = "sg-1"
  global = {
    engine            = "rds"
    engine_version    = "17"
    storage_gib       = 500
    connections_max   = 800
    slot_wal_keep_mib = 102400
    backup_days       = 14
  }
  regional = { engine_version = "17", instance_class = "db.t4g.medium", storage_gib = 50, backup_days = 14 }
}

run "primary" {
  command = plan

  assert {
    condition     = aws_db_instance.global["1"].replicate_source_db == null && aws_db_instance.global["1"].db_name == "godwit" && aws_db_instance.global["1"].username == "godwit_owner"
    error_message = "The primary is no database of its own."
  }

  assert {
    condition     = aws_db_instance.global["1"].manage_master_user_password == null && aws_db_instance.regional.manage_master_user_password
    error_message = "RDS keeps the password of what has no replicas, and refuses replicas of what it keeps the password of."
  }

  assert {
    condition     = aws_backup_vault.copies.region == "eu-west-1"
    error_message = "Copies of backups belong into another region."
  }
}

run "aurora" {
  command = plan

  variables {
    global = {
      engine            = "aurora"
      engine_version    = "16"
      storage_gib       = 500
      connections_max   = 800
      slot_wal_keep_mib = 0
      backup_days       = 14
    }
  }

  assert {
    condition     = length(aws_db_instance.global) == 0 && aws_rds_cluster.global[0].global_cluster_identifier == "godwit" && aws_rds_cluster.global[0].deletion_protection && aws_rds_cluster.global[0].backup_retention_period >= 7
    error_message = "No protected member of the global cluster."
  }

  assert {
    condition     = toset(flatten([for statement in output.statements : statement.Action if statement.Sid != "Look"])) == toset(["rds:SwitchoverGlobalCluster", "rds:FailoverGlobalCluster"])
    error_message = "More than it takes to move the global cluster's writer."
  }
}

run "backups_of_a_day_are_refused" {
  command = plan

  variables {
    global = {
      engine            = "rds"
      engine_version    = "17"
      storage_gib       = 500
      connections_max   = 800
      slot_wal_keep_mib = 102400
      backup_days       = 1
    }
  }

  expect_failures = [var.global]
}

run "copies_in_the_same_region_are_refused" {
  command = plan

  variables {
    backup_region = "us-east-1"
  }

  expect_failures = [var.backup_region]
}
