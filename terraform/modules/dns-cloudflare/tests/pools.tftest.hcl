mock_provider "cloudflare" {}

variables {
  domain        = "godwit.example"
  zone_id       = "zone"
  account_id    = "account"
  check_seconds = 10
  regions = {
    us-east-1  = { continents = ["NA", "SA", "AN"], default = true, address = "us-east-1.godwit.example", canary = { address = "canary.us-east-1.godwit.example", percent = 5 } }
    eu-west-1  = { continents = ["EU", "AF"], address = "eu-west-1.godwit.example" }
    another    = { continents = [], standby = true, address = "another.godwit.example" }
    ap-south-1 = { continents = ["AS", "OC"], address = "ap-south-1.godwit.example" }
  }
}

run "pools" {
  assert {
    condition     = toset(keys(cloudflare_load_balancer.api.region_pools)) == toset(["NAF", "SAF", "ME", "SAS", "SEAS", "NEAS", "WEU", "EEU", "WNAM", "ENAM", "OC", "NSAM", "SSAM"])
    error_message = "A part of the world has no region."
  }

  assert {
    condition     = alltrue([for pools in values(cloudflare_load_balancer.api.region_pools) : length(pools) == 4 && length(distinct(pools)) == 4 && pools[3] == cloudflare_load_balancer_pool.region["another"].id])
    error_message = "Not every region stands in for every other, or the one that stands by comes before its time."
  }

  assert {
    condition     = cloudflare_load_balancer.api.region_pools["WEU"][0] == cloudflare_load_balancer_pool.region["eu-west-1"].id && cloudflare_load_balancer.api.fallback_pool == cloudflare_load_balancer_pool.region["us-east-1"].id
    error_message = "A region's users are not its own first, or the default is not the last resort."
  }

  assert {
    condition     = cloudflare_load_balancer_pool.region["us-east-1"].origins[0].weight == 0.95 && cloudflare_load_balancer_pool.region["us-east-1"].origins[1].weight == 0.05
    error_message = "The canary's percentage is not what it gets."
  }
}
