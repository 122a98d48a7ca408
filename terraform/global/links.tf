# Every region's network reaches every other's: the internal listeners, and Postgres where it runs in the clusters
# (CloudNativePG). RDS and Aurora replicate by ways of their own. Peering and not a transit gateway: no price by the hour, and no
# third party between two regions; pairs grow with the square, and are made here from the list.

data "aws_route_tables" "private" {
  for_each = var.regions
  region   = each.key
  vpc_id   = data.aws_vpc.this[each.key].id
  tags     = { tier = "private" }
}

resource "aws_vpc_peering_connection" "this" {
  for_each    = local.pairs
  region      = each.value.from
  vpc_id      = data.aws_vpc.this[each.value.from].id
  peer_region = each.value.to
  peer_vpc_id = data.aws_vpc.this[each.value.to].id
  tags        = { Name = "godwit-${each.value.from}-${each.value.to}", component = "links" }
}

resource "aws_vpc_peering_connection_accepter" "this" {
  for_each                  = local.pairs
  region                    = each.value.to
  vpc_peering_connection_id = aws_vpc_peering_connection.this[each.key].id
  auto_accept               = true
  tags                      = { Name = "godwit-${each.value.from}-${each.value.to}", component = "links" }
}

locals {
  # Both ways of each pair, in each of the private tables at that end.
  ways = merge(flatten([
    for key, pair in local.pairs : [
      for way in [{ at = pair.from, to = pair.to }, { at = pair.to, to = pair.from }] : {
        for table in data.aws_route_tables.private[way.at].ids : "${way.at}/${table}/${way.to}" => { pair = key, at = way.at, to = way.to, table = table }
      }
    ]
  ])...)
}

resource "aws_route" "peer" {
  for_each                  = local.ways
  region                    = each.value.at
  route_table_id            = each.value.table
  destination_cidr_block    = var.regions[each.value.to].network
  vpc_peering_connection_id = aws_vpc_peering_connection_accepter.this[each.value.pair].id
}

# REGION.internal.DOMAIN: known in the regions' networks and nowhere else.
resource "aws_route53_zone" "internal" {
  name    = "internal.${var.domain}"
  comment = "Godwit between regions."
  tags    = { component = "links" }

  dynamic "vpc" {
    for_each = var.regions
    content {
      vpc_id     = data.aws_vpc.this[vpc.key].id
      vpc_region = vpc.key
    }
  }
}

resource "aws_route53_record" "internal" {
  for_each = var.regions
  zone_id  = aws_route53_zone.internal.zone_id
  name     = "${each.key}.internal.${var.domain}"
  type     = "A"

  alias {
    name    = data.aws_lb.internal[each.key].dns_name
    zone_id = data.aws_lb.internal[each.key].zone_id
    # A region that is asked and does not answer must be seen not to.
    evaluate_target_health = false
  }
}

# Reached by a way that is not built here.
resource "aws_route53_record" "internal_elsewhere" {
  #checkov:skip=CKV2_AWS_23:What it names is on another cloud.

  for_each = var.choices.internal_elsewhere
  zone_id  = aws_route53_zone.internal.zone_id
  name     = "${each.key}.internal.${var.domain}"
  type     = "A"
  ttl      = 60
  records  = each.value
}
