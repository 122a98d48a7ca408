# Every region reaches every other, whichever there are: the regions are those of regions.yaml.

mock_provider "aws" {
  override_data {
    target = data.aws_route_tables.private
    values = { ids = ["rtb-a", "rtb-b", "rtb-c"] }
  }

  override_data {
    target = module.dns.data.aws_ip_ranges.checkers
    values = { cidr_blocks = ["15.177.0.0/18"] }
  }
}

variables {
  choices = {
    account_id   = "123456789012"
    environment  = "test"
    cost_center  = "test"
    state_region = "us-west-2"
    alarm_emails = ["on-call@godwit.example"]
    cdn          = { regions = ["us-east-1", "eu-west-1"] }
  }
}

run "links" {
  command = plan

  assert {
    condition     = length(aws_vpc_peering_connection.this) == length(var.regions) * (length(var.regions) - 1) / 2
    error_message = "A pair of regions is not joined, or twice."
  }

  # A way from each private table of each region to each other region, and to no own network.
  assert {
    condition = alltrue([
      for pair in setproduct(keys(var.regions), keys(var.regions)) : length([
        for route in aws_route.peer : route if route.region == pair[0] && route.destination_cidr_block == var.regions[pair[1]].network
      ]) == (pair[0] == pair[1] ? 0 : 3)
    ])
    error_message = "A region has no way to another."
  }

  assert {
    condition     = length(aws_route53_zone.internal.vpc) == length(var.regions) && output.internal_urls == { for region in keys(var.regions) : region => "https://${region}.internal.${var.domain}:9081" }
    error_message = "The internal names are not known in every region."
  }

  assert {
    condition     = toset(keys(output.names)) == toset(concat([for region in keys(var.regions) : "${region}.${var.domain}"], ["static.${var.domain}"])) && length(output.internal_names) == length(var.regions)
    error_message = "A name that another provider of the domain would not know of."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.region)) == toset(keys(var.regions)) && alltrue([for alarm in aws_cloudwatch_metric_alarm.region : alarm.region == "us-east-1"])
    error_message = "A region's loss alarms nobody, or where Route 53 tells nothing."
  }
}

run "a_region_on_another_cloud_has_its_internal_name" {
  command = plan

  variables {
    elsewhere = { elsewhere = "10.64.0.0/16" }
    choices = {
      account_id         = "123456789012"
      environment        = "test"
      cost_center        = "test"
      state_region       = "us-west-2"
      alarm_emails       = ["on-call@godwit.example"]
      internal_elsewhere = { elsewhere = ["10.64.0.10", "10.64.1.10"] }
    }
  }

  assert {
    condition     = aws_route53_record.internal_elsewhere["elsewhere"].name == "elsewhere.internal.${var.domain}" && length(aws_route53_record.internal_elsewhere["elsewhere"].records) == 2
    error_message = "The regions of AWS do not find it."
  }
}
