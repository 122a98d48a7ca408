# A region put together, and what its parts must agree on.

mock_provider "aws" {}

variables {
  domain         = "godwit.example"
  region         = "eu-west-1"
  primary_region = "us-east-1"
  tags           = { app = "godwit" }
  regions = {
    us-east-1 = { network = "10.16.0.0/16", generations = ["1"] }
    eu-west-1 = { network = "10.32.0.0/16", generations = ["1"] }
  }
  choices = {
    account_id   = "123456789012"
    alarm_emails = ["on-call@godwit.example"]
    zones        = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
    cluster = {
      version        = "1.34"
      administrators = ["arn:aws:iam::123456789012:role/platform"]
      deployers      = ["arn:aws:iam::123456789012:role/release"]
      nodes          = { instance_types = ["m7g.xlarge"], ami_type = "AL2023_ARM_64_STANDARD", count = 6 }
    }
    database = {
      instance_class = "db.r7g.large"
      backup_region  = "eu-central-1"
      global         = { engine = "rds", engine_version = "17", storage_gib = 500, connections_max = 800, slot_wal_keep_mib = 102400, backup_days = 14 }
      regional       = { engine_version = "17", instance_class = "db.t4g.medium", storage_gib = 50, backup_days = 14 }
    }
    cache = { node_type = "cache.m7g.large" }
  }
}

run "built" {
  command = plan

  assert {
    condition     = length(module.network.private_cidrs) == 3 && alltrue([for cidr in module.network.private_cidrs : startswith(cidr, "10.32.")])
    error_message = "A subnet in each of three zones, in the region's own network."
  }

  assert {
    condition     = output.cluster == "godwit-eu-west-1"
    error_message = "The cluster is not named after its region."
  }
}

run "a_region_on_another_cloud_is_let_in" {
  command = plan

  variables {
    elsewhere = { elsewhere = "10.64.0.0/16" }
  }

  assert {
    condition     = toset(keys(module.cluster.internal_from)) == toset(["us-east-1", "eu-west-1", "elsewhere"])
    error_message = "A region does not reach the internal listener."
  }
}

run "its_network_may_not_overlap_either" {
  command = plan

  variables {
    elsewhere = { elsewhere = "10.32.128.0/17" }
  }

  expect_failures = [aws_kms_key.region]
}

run "networks_that_overlap_are_refused" {
  command = plan

  variables {
    regions = {
      us-east-1  = { network = "10.16.0.0/16", generations = ["1"] }
      eu-west-1  = { network = "10.32.0.0/16", generations = ["1"] }
      ap-south-1 = { network = "10.0.0.0/8", generations = ["1"] }
    }
  }

  expect_failures = [aws_kms_key.region]
}
