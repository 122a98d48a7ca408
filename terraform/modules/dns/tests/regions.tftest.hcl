# The regions of regions.yaml, held to the very file that the laboratory's rehearsal is held to (src/lab/dns/places.rs,
# docs/DNS.md): what is rehearsed there is what these records answer.

mock_provider "aws" {
  override_data {
    target = data.aws_ip_ranges.checkers
    values = { cidr_blocks = ["15.177.0.0/18"] }
  }
}

run "records" {
  variables {
    domain     = "godwit.example"
    zone_id    = "Z1"
    account_id = "123456789012"
    regions = {
      for name, region in jsondecode(file("../../global/regions.auto.tfvars.json")).regions :
      name => { continents = region.continents, default = region.default, balancer = { dns_name = "${name}.elb", zone_id = "Z2" } }
    }
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
    condition = {
      for key, answers in output.answers : key => { for place, names in answers : place => join(" ", sort([for name in names : trimsuffix(name, ".godwit.example")])) }
    } == jsondecode(file("tests/answers.json")).answers
    error_message = "Other answers than tests/answers.json tells."
  }
}
