# One region, as everybody begins: no secondary, and no record that points nowhere. DOMAIN at another provider; and a
# second region before users are sent to it.

mock_provider "aws" {
  override_data {
    target = data.aws_ip_ranges.checkers
    values = { cidr_blocks = ["15.177.0.0/18"] }
  }
}

run "one" {
  command = plan

  variables {
    domain        = "godwit.example"
    zone_id       = "Z1"
    account_id    = "123456789012"
    api_elsewhere = true
    regions       = { us-east-1 = { continents = ["NA"], default = true, balancer = { dns_name = "us.elb", zone_id = "Z2" } } }
  }

  assert {
    condition     = length(aws_route53_record.elsewhere) == 0 && length(aws_route53_record.other) == 0
    error_message = "There is nobody else to send to."
  }

  assert {
    condition     = length(aws_route53_record.continent) == 0 && length(aws_route53_record.default) == 0 && length(aws_route53_record.stable) == 1
    error_message = "DOMAIN is somebody else's, and the region's own name is not."
  }
}

run "without_continents" {
  command = plan

  variables {
    domain     = "godwit.example"
    zone_id    = "Z1"
    account_id = "123456789012"
    regions = {
      us-east-1 = { continents = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"], default = true, balancer = { dns_name = "us.elb", zone_id = "Z2" } }
      eu-west-1 = { continents = [], balancer = { dns_name = "eu.elb", zone_id = "Z3" } }
    }
  }

  assert {
    condition     = length(output.records.geolocation) == 8 && alltrue([for one in output.records.geolocation : one.to == "us-east-1.failover.godwit.example"])
    error_message = "A region that serves nobody's continent yet is sent users."
  }

  assert {
    condition     = aws_route53_record.stable["eu-west-1"].name == "eu-west-1.godwit.example"
    error_message = "It cannot be tried by its own name."
  }
}
