# Who is silent alarms.

mock_provider "aws" {}

variables {
  name              = "godwit-eu-west-1"
  account_id        = "123456789012"
  emails            = ["on-call@godwit.example"]
  databases         = ["godwit-eu-west-1-1", "godwit-eu-west-1-regional"]
  replicating       = ["godwit-eu-west-1-1"]
  disks             = ["godwit-eu-west-1-1", "godwit-eu-west-1-regional"]
  slot_wal_keep_mib = 1024
  caches            = ["godwit-eu-west-1-001"]
  key_arn           = "arn:aws:kms:eu-west-1:123456789012:key/1"
  balancers = {
    public = { balancer = "net/public/1", targets = "targetgroup/public/1", may_empty = false }
    canary = { balancer = "net/canary/1", targets = "targetgroup/canary/1", may_empty = true }
  }
}

run "silence" {
  command = plan

  # A primary has no lag and a replica no slot; and nobody behind a balancer is told by another alarm.
  assert {
    condition = toset([for name, alarm in aws_cloudwatch_metric_alarm.this : name if alarm.treat_missing_data != "breaching"]) == toset([
      "godwit-eu-west-1-1-lag", "godwit-eu-west-1-1-slot", "godwit-eu-west-1-public-unhealthy", "godwit-eu-west-1-canary-unhealthy",
    ])
    error_message = "Something that has stopped to tell anything is taken to be well."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.this["godwit-eu-west-1-public-nobody"].metric_name == "HealthyHostCount" &&
      aws_cloudwatch_metric_alarm.this["godwit-eu-west-1-public-nobody"].comparison_operator == "LessThanThreshold" &&
      aws_cloudwatch_metric_alarm.this["godwit-eu-west-1-public-nobody"].threshold == 1 &&
      !contains(keys(aws_cloudwatch_metric_alarm.this), "godwit-eu-west-1-canary-nobody")
    )
    error_message = "A balancer without anybody behind it alarms nobody, or one that may be empty does."
  }
}

run "aurora_has_no_disk" {
  command = plan

  variables {
    replicating = []
    disks       = ["godwit-eu-west-1-regional"]
  }

  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.this), "godwit-eu-west-1-1-storage") && contains(keys(aws_cloudwatch_metric_alarm.this), "godwit-eu-west-1-regional-storage")
    error_message = "An alarm on what Aurora does not tell, which would never end."
  }
}
