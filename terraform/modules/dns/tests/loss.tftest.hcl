# The loss of every set of regions, over the records as they are made. Four regions: nothing here counts to three.

mock_provider "aws" {
  override_data {
    target = data.aws_ip_ranges.checkers
    values = { cidr_blocks = ["15.177.0.0/18"] }
  }
}

variables {
  domain     = "godwit.example"
  zone_id    = "Z1"
  account_id = "123456789012"
  regions = {
    us-east-1  = { continents = ["NA", "AN"], default = true, balancer = { dns_name = "us.elb", zone_id = "Z2" }, canary = { dns_name = "canary.elb", zone_id = "Z2", percent = 5 } }
    eu-west-1  = { continents = ["EU", "AF"], balancer = { dns_name = "eu.elb", zone_id = "Z3" } }
    ap-south-1 = { continents = ["AS", "OC"], balancer = { dns_name = "ap.elb", zone_id = "Z4" } }
    sa-east-1  = { continents = ["SA"], balancer = { dns_name = "sa.elb", zone_id = "Z5" } }
  }
}

run "records" {
  assert {
    condition = alltrue([
      for region, check in aws_route53_health_check.endpoint :
      check.type == "HTTPS" && check.fqdn == "${region}.godwit.example" && check.resource_path == "/health" && check.request_interval == 10 && check.failure_threshold == 3
    ])
    error_message = "A region's check asks /health on the region's own name, every 10 s, three times."
  }

  assert {
    condition     = alltrue([for check in aws_route53_health_check.endpoint : check.fqdn != "godwit.example"])
    error_message = "A check asks the name that it decides on."
  }

  assert {
    condition = alltrue([
      for region, check in aws_route53_health_check.region : check.type == "CALCULATED" && check.child_health_threshold == 2 &&
      check.child_healthchecks == toset([aws_route53_health_check.endpoint[region].id, aws_route53_health_check.drained[region].id])
    ])
    error_message = "A region is in while its endpoint is well and it is not drained: both."
  }

  assert {
    condition = alltrue([
      for region, check in aws_route53_health_check.drained : check.invert_healthcheck &&
      check.fqdn == "${aws_s3_bucket.drain[region].bucket}.s3.${aws_s3_bucket.drain[region].region}.amazonaws.com" && aws_s3_bucket.drain[region].region != region
    ])
    error_message = "A region's flag is an object in another region, and inverted."
  }

  assert {
    condition     = alltrue([for record in aws_route53_record.stable : record.health_check_id == null && !record.alias[0].evaluate_target_health])
    error_message = "A region's own name answers always: the checks ask it."
  }

  assert {
    condition     = aws_route53_record.stable["us-east-1"].weighted_routing_policy[0].weight == 95 && aws_route53_record.canary["us-east-1"].weighted_routing_policy[0].weight == 5
    error_message = "The canary's percentage is not what it gets."
  }

  assert {
    condition     = aws_route53_record.canary["us-east-1"].health_check_id == aws_route53_health_check.canary["us-east-1"].id
    error_message = "A canary that fails must fall away by its own check."
  }
}

run "answers" {
  module {
    source = "./tests/route53"
  }

  variables {
    records = run.records.records
    checks  = run.records.checks
  }

  assert {
    condition     = length(output.answers) == 16 && alltrue([for answers in values(output.answers) : length(answers) == 8])
    error_message = "Every set of four regions, and all continents with the default."
  }

  # Whoever has a region that is well is sent there ...
  assert {
    condition = alltrue(flatten([
      for key, answers in output.answers : [
        for continent, home in { NA = "us-east-1", AN = "us-east-1", EU = "eu-west-1", AF = "eu-west-1", AS = "ap-south-1", OC = "ap-south-1", SA = "sa-east-1", "*" = "us-east-1" } :
        join(",", answers[continent]) == "${home}.godwit.example" if !contains(output.lost[key], home)
      ]
    ]))
    error_message = "A region that is well does not get its own users."
  }

  # ... whose region is lost, to another that is well, whichever others are lost too ...
  assert {
    condition = alltrue(flatten([
      for key, answers in output.answers : [
        for continent, names in answers : length(names) > 0 && alltrue([for name in names : !contains([for region in output.lost[key] : "${region}.godwit.example"], name)])
      ] if length(output.lost[key]) < 4
    ]))
    error_message = "Somebody is sent to a lost region while another one is well."
  }

  # ... and nobody is left without an answer when all seem lost: it may be the checks that are.
  assert {
    condition     = alltrue([for names in values(output.answers["ap-south-1,eu-west-1,sa-east-1,us-east-1"]) : length(names) == 1])
    error_message = "No answer when every check fails."
  }
}
