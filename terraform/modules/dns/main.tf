# Who is sent to which region. Four layers, each with one question:
#
#   DOMAIN                   geolocation   whose users are these?              -> REGION.failover.DOMAIN
#   REGION.failover.DOMAIN   failover      is that region well and wanted?     -> REGION.DOMAIN, else
#   not-REGION.failover...   latency       which of the others, if not?        -> OTHER.DOMAIN
#   REGION.DOMAIN            weighted      the release, or the one on trial?   -> a balancer
#
# REGION.DOMAIN asks nobody's health: it is what the checks ask, and what a person asks about a drained region. Everything
# that decides is in Route 53's data plane. Nothing that an operator does in an emergency edits a record.

locals {
  tags  = { component = "dns" }
  order = sort(keys(var.regions))
  # The region that holds this one's flag: another one, so that the flag can be raised when this one is lost.
  keeper = { for index, region in local.order : region => local.order[(index + 1) % length(local.order)] }
  owners = merge([for name, region in var.regions : { for continent in region.continents : continent => name }]...)
  others = { for pair in setproduct(local.order, local.order) : "${pair[0]}/${pair[1]}" => { of = pair[0], to = pair[1] } if pair[0] != pair[1] }
  canary = { for name, region in var.regions : name => region.canary if region.canary != null }
}

# Every continent falls to the region that serves it ...
resource "aws_route53_record" "continent" {
  for_each       = var.api_elsewhere ? {} : local.owners
  zone_id        = var.zone_id
  name           = var.domain
  type           = "A"
  set_identifier = "continent-${each.key}"

  geolocation_routing_policy {
    continent = each.key
  }

  alias {
    name                   = aws_route53_record.home[each.value].name
    zone_id                = var.zone_id
    evaluate_target_health = true
  }
}

# ... and whom Route 53 cannot place, to the default: without it they would get no answer.
resource "aws_route53_record" "default" {
  count          = var.api_elsewhere ? 0 : 1
  zone_id        = var.zone_id
  name           = var.domain
  type           = "A"
  set_identifier = "default"

  geolocation_routing_policy {
    country = "*"
  }

  alias {
    name                   = aws_route53_record.home[one([for name, region in var.regions : name if region.default])].name
    zone_id                = var.zone_id
    evaluate_target_health = true
  }
}

resource "aws_route53_record" "home" {
  for_each        = var.regions
  zone_id         = var.zone_id
  name            = "${each.key}.failover.${var.domain}"
  type            = "A"
  set_identifier  = "home"
  health_check_id = aws_route53_health_check.region[each.key].id

  failover_routing_policy {
    type = "PRIMARY"
  }

  alias {
    name    = aws_route53_record.stable[each.key].name
    zone_id = var.zone_id
    # One judge: the health check. A balancer's own view knows nothing of lag or a drain.
    evaluate_target_health = false
  }
}

resource "aws_route53_record" "elsewhere" {
  for_each       = { for name, region in var.regions : name => region if length(var.regions) > 1 }
  zone_id        = var.zone_id
  name           = "${each.key}.failover.${var.domain}"
  type           = "A"
  set_identifier = "elsewhere"

  failover_routing_policy {
    type = "SECONDARY"
  }

  alias {
    name                   = "not-${each.key}.failover.${var.domain}"
    zone_id                = var.zone_id
    evaluate_target_health = true
  }

  depends_on = [aws_route53_record.other]
}

# All of the others and not a chosen one: the loss of two regions sends nobody to a third that is lost.
resource "aws_route53_record" "other" {
  for_each        = local.others
  zone_id         = var.zone_id
  name            = "not-${each.value.of}.failover.${var.domain}"
  type            = "A"
  set_identifier  = each.value.to
  health_check_id = aws_route53_health_check.region[each.value.to].id

  latency_routing_policy {
    region = each.value.to
  }

  alias {
    name                   = aws_route53_record.stable[each.value.to].name
    zone_id                = var.zone_id
    evaluate_target_health = false
  }
}

# Weighted even where nothing is on trial: a record's kind cannot change while it answers.
resource "aws_route53_record" "stable" {
  for_each       = var.regions
  zone_id        = var.zone_id
  name           = "${each.key}.${var.domain}"
  type           = "A"
  set_identifier = "stable"

  weighted_routing_policy {
    weight = 100 - try(local.canary[each.key].percent, 0)
  }

  alias {
    name                   = each.value.balancer.dns_name
    zone_id                = each.value.balancer.zone_id
    evaluate_target_health = false
  }
}

resource "aws_route53_record" "canary" {
  #checkov:skip=CKV2_AWS_23:The balancer is looked up in the region's own state by its name.

  for_each       = local.canary
  zone_id        = var.zone_id
  name           = "${each.key}.${var.domain}"
  type           = "A"
  set_identifier = "canary"
  # Its own: a canary that fails is left out, and the region stays in.
  health_check_id = aws_route53_health_check.canary[each.key].id

  weighted_routing_policy {
    weight = each.value.percent
  }

  alias {
    name                   = each.value.dns_name
    zone_id                = each.value.zone_id
    evaluate_target_health = false
  }
}

# The canary by itself, for its check and for a look.
resource "aws_route53_record" "canary_alone" {
  #checkov:skip=CKV2_AWS_23:The balancer is looked up in the region's own state by its name.

  for_each = local.canary
  zone_id  = var.zone_id
  name     = "canary.${each.key}.${var.domain}"
  type     = "A"

  alias {
    name                   = each.value.dns_name
    zone_id                = each.value.zone_id
    evaluate_target_health = false
  }
}
