# What modules/dns does, by Cloudflare's load balancing, for regions on more than one cloud: a pool for each region, geo steering
# over the pools, weights within one. Use one of the two, never both for one name.
#
# DNS alone, not proxied: Godwit counts a client's requests by the address that connects.

terraform {
  required_version = ">= 1.11"

  required_providers {
    cloudflare = {
      source  = "cloudflare/cloudflare"
      version = "~> 5.14"
    }
  }
}

locals {
  order   = sort(keys(var.regions))
  default = one([for name, region in var.regions : name if region.default])

  # What Cloudflare calls the parts of a continent. It has no Antarctica: that is the default's.
  parts = {
    AF = ["NAF", "SAF"]
    AN = []
    AS = ["ME", "SAS", "SEAS", "NEAS"]
    EU = ["WEU", "EEU"]
    NA = ["WNAM", "ENAM"]
    OC = ["OC"]
    SA = ["NSAM", "SSAM"]
  }

  # The own region first, then all others, those that stand by last: whichever are lost, one that is well is asked.
  others     = concat([for region in local.order : region if !var.regions[region].standby], [for region in local.order : region if var.regions[region].standby])
  preference = { for region in local.order : region => concat([region], [for other in local.others : other if other != region]) }
}

# /health on each origin's own name, as Route 53's checks ask it.
resource "cloudflare_load_balancer_monitor" "this" {
  account_id       = var.account_id
  description      = "Godwit: a region that should get users."
  type             = "https"
  method           = "GET"
  path             = "/health"
  port             = 443
  expected_codes   = "200"
  interval         = var.check_seconds
  timeout          = 5
  retries          = 0
  consecutive_down = 3
  consecutive_up   = 2
  follow_redirects = false
  allow_insecure   = false
}

resource "cloudflare_load_balancer_pool" "region" {
  for_each        = var.regions
  account_id      = var.account_id
  name            = "godwit-${each.key}"
  description     = "Godwit in ${each.key}."
  monitor         = cloudflare_load_balancer_monitor.this.id
  minimum_origins = 1
  enabled         = true

  origins = concat(
    [{
      name    = "stable"
      address = each.value.address
      enabled = true
      weight  = (100 - try(each.value.canary.percent, 0)) / 100
      header  = { host = [each.value.address] }
    }],
    each.value.canary == null ? [] : [{
      name    = "canary"
      address = each.value.canary.address
      enabled = true
      weight  = each.value.canary.percent / 100
      header  = { host = [each.value.canary.address] }
    }],
  )

  origin_steering = { policy = "random" }

  lifecycle {
    # Drained by a person, through the API or the dashboard: an apply must not put it back.
    ignore_changes = [enabled]
  }
}

resource "cloudflare_load_balancer" "api" {
  zone_id         = var.zone_id
  name            = var.domain
  description     = "Godwit."
  enabled         = true
  proxied         = false
  ttl             = 60
  steering_policy = "geo"

  region_pools = merge([
    for name, region in var.regions : {
      for part in flatten([for continent in region.continents : local.parts[continent]]) :
      part => [for one in local.preference[name] : cloudflare_load_balancer_pool.region[one].id]
    }
  ]...)

  default_pools = [for one in local.preference[local.default] : cloudflare_load_balancer_pool.region[one].id]
  # When every check fails it may be the checks.
  fallback_pool = cloudflare_load_balancer_pool.region[local.default].id

  # Where the resolver tells the client's network, that counts.
  location_strategy = { mode = "resolver_ip", prefer_ecs = "always" }
}
