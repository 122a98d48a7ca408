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

# A second in the primary's own region would follow nobody.
run "an_empty_second_generation_is_refused" {
  command = plan

  override_data {
    target = data.aws_db_instances.here
    values = { instance_identifiers = ["godwit-us-east-1-1", "godwit-us-east-1-regional"] }
  }

  variables {
    regions = { us-east-1 = { generations = ["1", "2"] }, eu-west-1 = { generations = ["1"] } }
  }

  expect_failures = [aws_db_instance.global]
}

# The first was removed by a person, and is in the list still.
run "an_earlier_generation_is_not_made_again" {
  command = plan

  override_data {
    target = data.aws_db_instances.here
    values = { instance_identifiers = ["godwit-us-east-1-2", "godwit-us-east-1-regional"] }
  }

  variables {
    regions = { us-east-1 = { generations = ["1", "2"] }, eu-west-1 = { generations = ["1"] } }
  }

  expect_failures = [aws_db_instance.global]
}

# Deleted by somebody, and Terraform runs: what it would make has nothing in it.
run "a_lost_primary_is_not_made_anew" {
  command = plan

  variables {
    owner_password = null
  }

  expect_failures = [aws_db_instance.global]
}

# Promoted, and promoted back: both are there, and whichever was made first.
run "two_generations_that_are_there_stay" {
  command = plan

  override_data {
    target = data.aws_db_instances.here
    values = { instance_identifiers = ["godwit-us-east-1-1", "godwit-us-east-1-2", "godwit-us-east-1-regional"] }
  }

  variables {
    regions        = { us-east-1 = { generations = ["1", "2"] }, eu-west-1 = { generations = ["1", "2"] } }
    owner_password = null
  }

  assert {
    condition     = keys(aws_db_instance.global) == ["1", "2"] && output.databases["us-east-1"] == "arn:aws:rds:us-east-1:123456789012:db:godwit-us-east-1-2"
    error_message = "An instance that is there is refused, or the newest is not the one in use."
  }

  # The first may be looked at by whose settings still name it, and not be promoted.
  assert {
    condition     = { for statement in output.statements : statement.Sid => statement.Resource }["Move"] == [output.databases["us-east-1"]]
    error_message = "An earlier generation can be promoted."
  }
}

run "postgres_in_the_cluster" {
  command = plan

  variables {
    global = {
      engine            = "kubernetes"
      engine_version    = "17"
      storage_gib       = 500
      connections_max   = 800
      slot_wal_keep_mib = 102400
      backup_days       = 14
    }
  }

  assert {
    condition     = length(aws_db_instance.global) == 0 && length(aws_rds_cluster.global) == 0 && length(output.statements) == 0 && length(output.databases) == 0
    error_message = "Something of RDS for a database that is not RDS'."
  }
}

run "aurora" {
  command = plan

  variables {
    global = {
      engine            = "aurora"
      engine_version    = "16.6"
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
    condition     = aws_rds_cluster.global[0].engine_version == "16.6" && aws_rds_cluster_parameter_group.global[0].family == "aurora-postgresql16"
    error_message = "The family of parameters is that of the major version; the cluster's is the global one's in full."
  }

  assert {
    condition = { for statement in output.statements : statement.Sid => toset(statement.Action) } == {
      Look = toset(["rds:DescribeGlobalClusters", "rds:DescribeDBClusters"])
      Move = toset(["rds:SwitchoverGlobalCluster", "rds:FailoverGlobalCluster"])
      Note = toset(["rds:AddTagsToResource"])
    }
    error_message = "Not what it takes to move the global cluster's writer, or more."
  }

  assert {
    condition = { for statement in output.statements : statement.Sid => toset(statement.Resource) } == {
      Look = toset(["arn:aws:rds::123456789012:global-cluster:godwit", output.databases["us-east-1"]])
      Move = toset(concat(["arn:aws:rds::123456789012:global-cluster:godwit"], values(output.databases)))
      Note = toset([output.databases["us-east-1"]])
    }
    error_message = "A note on another's cluster, or rights on what is no member."
  }

  assert {
    condition     = output.global_cluster == "godwit" && output.databases["eu-west-1"] == "arn:aws:rds:eu-west-1:123456789012:cluster:godwit-eu-west-1"
    error_message = "What Godwit's settings are told are not the clusters."
  }
}

run "a_major_version_alone_is_refused_for_aurora" {
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

  expect_failures = [var.global]
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
