mock_provider "aws" {}

variables {
  choices = {
    account_id        = "123456789012"
    environment       = "test"
    cost_center       = "test"
    state_region      = "us-west-2"
    state_copy_region = "eu-central-1"
    budget_usd        = 10000
    budget_emails     = ["platform@godwit.example"]
  }
}

run "states_are_outside" {
  command = plan

  assert {
    condition     = alltrue([for bucket in aws_s3_bucket.state : !contains(var.regions, bucket.region)]) && length(aws_s3_bucket.state) == 2
    error_message = "A state is in a region that serves users."
  }

  assert {
    condition     = toset(keys(aws_acm_certificate.region)) == var.regions && alltrue([for region, certificate in aws_acm_certificate.region : certificate.region == region && contains(certificate.subject_alternative_names, var.domain)])
    error_message = "A region has no certificate of its own for everybody's name."
  }

  assert {
    condition     = length(aws_rds_global_cluster.this) == 0
    error_message = "A global cluster that nobody asked for."
  }
}

run "a_state_where_users_are_is_refused" {
  command = plan

  variables {
    choices = {
      account_id        = "123456789012"
      environment       = "test"
      cost_center       = "test"
      state_region      = "us-east-1"
      state_copy_region = "eu-central-1"
      budget_usd        = 10000
      budget_emails     = ["platform@godwit.example"]
    }
  }

  expect_failures = [var.choices]
}

run "a_major_version_of_aurora_alone_is_refused" {
  command = plan

  variables {
    choices = {
      account_id        = "123456789012"
      environment       = "test"
      cost_center       = "test"
      state_region      = "us-west-2"
      state_copy_region = "eu-central-1"
      budget_usd        = 10000
      budget_emails     = ["platform@godwit.example"]
      aurora_version    = "16"
    }
  }

  expect_failures = [var.choices]
}

run "the_copy_is_known_beside_the_first" {
  command = plan

  override_resource {
    target          = aws_kms_key.state
    override_during = plan
    values          = { arn = "arn:aws:kms:a-region:123456789012:key/1" }
  }

  assert {
    condition     = strcontains(output.backend, "state-us-west-2\"") && strcontains(output.backend_copy, "state-eu-central-1\"") && strcontains(output.backend_copy, "region     = \"eu-central-1\"")
    error_message = "When the states' region is lost nobody tells where the copy is."
  }
}
