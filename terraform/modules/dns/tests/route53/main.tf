# Route 53 as its documentation describes it, over the records that the module makes: whom each continent is sent to, for
# each set of regions that are lost.
#
#   - a record is healthy if its check is, and, where it follows its target, if that has a healthy record;
#   - failover answers with the primary if it is healthy or nothing is, else with the secondary;
#   - latency answers with a healthy record, whichever is near; with any if none is;
#   - geolocation answers with the continent's record if it is healthy, else with the default's, and if that is not
#     healthy either with the continent's again.

variable "records" {
  type = object({
    geolocation = list(object({ of = string, to = string, follows = bool }))
    failover    = list(object({ name = string, type = string, to = string, check = string, follows = bool }))
    latency     = list(object({ name = string, to = string, check = string }))
  })
}

variable "checks" {
  type = map(string)
}

locals {
  regions = sort(keys(var.checks))
  # Every set of them, counted in binary.
  losses = [for n in range(pow(2, length(local.regions))) : [for i, region in local.regions : region if floor(n / pow(2, i)) % 2 == 1]]

  names = distinct(var.records.failover[*].name)
  pools = distinct(var.records.latency[*].name)

  answers = {
    for lost in local.losses : join(",", lost) => {
      lost = lost
      ok   = { for region, check in var.checks : check => !contains(lost, region) }
    }
  }

  pool = {
    for key, case in local.answers : key => {
      for name in local.pools : name => {
        healthy = [for record in var.records.latency : record.to if record.name == name && case.ok[record.check]]
        all     = [for record in var.records.latency : record.to if record.name == name]
      }
    }
  }

  pair = {
    for key, case in local.answers : key => {
      for name in local.names : name => {
        primary   = one([for record in var.records.failover : { to = [record.to], ok = case.ok[record.check] } if record.name == name && record.type == "PRIMARY"])
        secondary = one([for record in var.records.failover : { to = local.pool[key][record.to].healthy, ok = !record.follows || length(local.pool[key][record.to].healthy) > 0 } if record.name == name && record.type == "SECONDARY"])
      }
    }
  }

  name = {
    for key, pairs in local.pair : key => {
      for name, pair in pairs : name => {
        ok = pair.primary.ok || try(pair.secondary.ok, false)
        to = !pair.primary.ok && try(pair.secondary.ok, false) ? pair.secondary.to : pair.primary.to
      }
    }
  }

  fallback = one([for record in var.records.geolocation : record.to if record.of == "*"])
}

output "answers" {
  description = "By the regions that are lost, joined by commas, and by continent: the names that may be answered."
  value = {
    for key, names in local.name : key => {
      for record in var.records.geolocation : record.of => (
        !record.follows || names[record.to].ok ? names[record.to].to :
        names[local.fallback].ok ? names[local.fallback].to : names[record.to].to
      )
    }
  }
}

output "lost" {
  value = { for key, case in local.answers : key => case.lost }
}
