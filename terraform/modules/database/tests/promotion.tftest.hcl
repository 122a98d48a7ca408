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

  # And who may move it may do no more, and to no other.
  assert {
    condition = { for statement in output.statements : statement.Sid => statement.Action } == {
      Look = ["rds:DescribeDBInstances"]
      Move = ["rds:PromoteReadReplica"]
      Note = ["rds:AddTagsToResource"]
    }
    error_message = "Not what it takes to promote, or more."
  }

  assert {
    condition     = alltrue([for statement in output.statements : statement.Resource == [output.databases["eu-west-1"]]]) && output.databases["eu-west-1"] == "arn:aws:rds:eu-west-1:123456789012:db:godwit-eu-west-1-1"
    error_message = "More than its own region's instance."
  }

  # Any tag would do for whose rights go by tags.
  assert {
    condition = { for statement in output.statements : statement.Sid => jsonencode(statement.Condition) if statement.Sid == "Note" } == {
      Note = jsonencode({ "ForAllValues:StringEquals" = { "aws:TagKeys" = ["godwit:promoted-from"] }, Null = { "aws:TagKeys" = "false" } })
    }
    error_message = "Another tag can be put on it."
  }
}

run "it_was_promoted_and_the_list_says_so" {
  command   = plan
  state_key = "replica"

  override_data {
    target = data.aws_db_instances.here
    values = { instance_identifiers = ["godwit-eu-west-1-1", "godwit-eu-west-1-regional"] }
  }

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

# The primary moved from us-east-1 to eu-west-1. The old primary's region, as its own state has it: the first instance was made as the
# primary, and stays until a person has removed it; a second is made, which follows the new one.
run "the_first_primary_is_made" {
  state_key = "primary"

  variables {
    region         = "us-east-1"
    backup_region  = "eu-west-1"
    owner_password = "of this test"
  }
}

run "a_second_generation_follows_the_new_primary" {
  state_key = "primary"

  override_data {
    target = data.aws_db_instances.here
    values = { instance_identifiers = ["godwit-us-east-1-1", "godwit-us-east-1-regional"] }
  }

  variables {
    region         = "us-east-1"
    backup_region  = "eu-west-1"
    primary_region = "eu-west-1"
    regions = {
      us-east-1 = { generations = ["1", "2"] }
      eu-west-1 = { generations = ["1"] }
    }
  }

  assert {
    condition     = aws_db_instance.global["2"].identifier == "godwit-us-east-1-2" && aws_db_instance.global["2"].replicate_source_db == "arn:aws:rds:eu-west-1:123456789012:db:godwit-eu-west-1-1" && aws_db_instance.global["2"].username == null
    error_message = "The second generation is no replica of the new primary."
  }

  assert {
    condition     = aws_db_instance.global["2"].backup_retention_period >= 7 && aws_db_instance.global["2"].deletion_protection && aws_db_instance.global["2"].multi_az
    error_message = "The second generation is not as fit to be the primary as the first was."
  }

  assert {
    condition     = aws_db_instance.global["1"].identifier == "godwit-us-east-1-1" && output.address == aws_db_instance.global["2"].address && output.databases["us-east-1"] == "arn:aws:rds:us-east-1:123456789012:db:godwit-us-east-1-2"
    error_message = "The first is gone, or still the one in use."
  }

  assert {
    condition     = contains(aws_backup_selection.this.resources, aws_db_instance.global["1"].arn) && contains(aws_backup_selection.this.resources, aws_db_instance.global["2"].arn)
    error_message = "What is there is not backed up."
  }
}

# A third region's replica followed the old primary: it is made anew the same way, in that region's state.
run "a_replica_of_the_old_primary_is_made_anew" {
  state_key = "replica"

  override_data {
    target = data.aws_db_instances.here
    values = { instance_identifiers = ["godwit-eu-west-1-1", "godwit-eu-west-1-regional"] }
  }

  variables {
    primary_region = "ap-south-1"
    regions = {
      us-east-1  = { generations = ["1"] }
      eu-west-1  = { generations = ["1", "2"] }
      ap-south-1 = { generations = ["1"] }
    }
  }

  assert {
    condition     = aws_db_instance.global["2"].replicate_source_db == "arn:aws:rds:ap-south-1:123456789012:db:godwit-ap-south-1-1" && aws_db_instance.global["1"].replicate_source_db == "arn:aws:rds:us-east-1:123456789012:db:godwit-us-east-1-1"
    error_message = "The second generation follows the old primary, or the first was made to follow another."
  }
}

# And back: the second generation was promoted. Nothing is made, and nothing else changes.
run "the_second_generation_is_promoted" {
  command   = plan
  state_key = "primary"

  override_data {
    target = data.aws_db_instances.here
    values = { instance_identifiers = ["godwit-us-east-1-1", "godwit-us-east-1-2", "godwit-us-east-1-regional"] }
  }

  variables {
    region        = "us-east-1"
    backup_region = "eu-west-1"
    regions = {
      us-east-1 = { generations = ["1", "2"] }
      eu-west-1 = { generations = ["1", "2"] }
    }
  }

  assert {
    condition     = aws_db_instance.global["2"].replicate_source_db == "arn:aws:rds:eu-west-1:123456789012:db:godwit-eu-west-1-1" && aws_db_instance.global["2"].tags.role == "primary"
    error_message = "The plan changes what the promotion is."
  }
}

run "forget" {
  state_key = "replica"

  module {
    source = "./tests/forget"
  }
}

run "forget_the_first_primary" {
  state_key = "primary"

  module {
    source = "./tests/forget"
  }
}
