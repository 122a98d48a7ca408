# The primary moves from us-east-1 to eu-west-1, as eu-west-1's state sees it, and then as the old primary's does. Each plan
# that would destroy or replace a database fails by itself: prevent_destroy holds in tests too.

mock_provider "aws" {}

variables {
  region         = "eu-west-1"
  primary_region = "us-east-1"
  regions = {
    us-east-1 = { generations = ["1"] }
    eu-west-1 = { generations = ["1"] }
  }
  account_id             = "123456789012"
  instance_class         = "db.r7g.large"
  backup_region          = "us-east-1"
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

run "a_replica_is_made" {
  state_key = "replica"

  assert {
    condition     = aws_db_instance.global["1"].replicate_source_db == "arn:aws:rds:us-east-1:123456789012:db:godwit-us-east-1-1"
    error_message = "It is no replica of the primary's instance."
  }

  assert {
    condition     = aws_db_instance.global["1"].username == null && aws_db_instance.global["1"].password_wo == null
    error_message = "A replica has its source's owner."
  }

  # What makes it fit to be the primary, before it is.
  assert {
    condition     = aws_db_instance.global["1"].backup_retention_period >= 7 && aws_db_instance.regional.backup_retention_period >= 7
    error_message = "A replica without backups cannot be promoted at once."
  }

  assert {
    condition     = aws_db_instance.global["1"].deletion_protection && aws_db_instance.regional.deletion_protection && !aws_db_instance.global["1"].skip_final_snapshot
    error_message = "A replica can be deleted by a slip."
  }

  assert {
    condition     = aws_db_instance.global["1"].multi_az && aws_db_instance.global["1"].storage_encrypted && aws_db_instance.global["1"].kms_key_id == aws_kms_key.database.arn
    error_message = "A replica is in two zones, and encrypted by its own region's key."
  }

  assert {
    condition = (
      { for one in aws_db_parameter_group.global[0].parameter : one.name => one.value }["hot_standby_feedback"] == "1" &&
      { for one in aws_db_parameter_group.global[0].parameter : one.name => one.value }["max_connections"] == "800" &&
      tonumber({ for one in aws_db_parameter_group.global[0].parameter : one.name => one.value }["max_standby_streaming_delay"]) < 500
    )
    error_message = "Postgres is not as docs/RUNBOOK.md demands."
  }

  # And who may move it may do no more.
  assert {
    condition     = toset(flatten([for statement in output.statements : statement.Action if statement.Sid != "Look"])) == toset(["rds:PromoteReadReplica"])
    error_message = "More than it takes to promote."
  }

  assert {
    condition     = alltrue(flatten([for statement in output.statements : [for arn in statement.Resource : arn == "arn:aws:rds:eu-west-1:123456789012:db:godwit-eu-west-1-1"] if statement.Sid != "Look"]))
    error_message = "More than its own region's instance."
  }
}

run "it_was_promoted_and_the_list_says_so" {
  command   = plan
  state_key = "replica"

  variables {
    primary_region = "eu-west-1"
  }

  assert {
    condition     = aws_db_instance.global["1"].replicate_source_db == "arn:aws:rds:us-east-1:123456789012:db:godwit-us-east-1-1" && aws_db_instance.global["1"].username == null
    error_message = "The plan changes what the promotion is: whom the instance follows, or its owner."
  }

  assert {
    condition     = aws_db_instance.global["1"].identifier == "godwit-eu-west-1-1" && aws_db_instance.global["1"].tags.role == "primary"
    error_message = "It is the same instance, and now called the primary."
  }
}

# The old primary's region: its first instance stays until a person has removed it, a second is made.
run "a_second_generation_follows_the_new_primary" {
  state_key = "replica"

  variables {
    regions = {
      us-east-1 = { generations = ["1"] }
      eu-west-1 = { generations = ["1", "2"] }
    }
  }

  assert {
    condition     = aws_db_instance.global["2"].identifier == "godwit-eu-west-1-2" && aws_db_instance.global["2"].replicate_source_db == "arn:aws:rds:us-east-1:123456789012:db:godwit-us-east-1-1"
    error_message = "The second generation is no replica of the primary."
  }

  assert {
    condition     = aws_db_instance.global["1"].identifier == "godwit-eu-west-1-1" && output.address == aws_db_instance.global["2"].address
    error_message = "The first is gone, or still the one in use."
  }
}

run "forget" {
  state_key = "replica"

  module {
    source = "./tests/forget"
  }
}
