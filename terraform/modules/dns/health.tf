# A region gets users while it is well AND not drained.
#
# Well: /health on the region's own name. Never DOMAIN, which is what the answer decides. Three failures ten seconds
# apart, by most of the checkers; resolvers then keep the old answer for the 60 s of an alias to a balancer.
# The interval cannot be changed later: ten seconds from the start.

resource "aws_route53_health_check" "endpoint" {
  for_each          = var.regions
  type              = "HTTPS"
  fqdn              = "${each.key}.${var.domain}"
  port              = 443
  resource_path     = "/health"
  enable_sni        = true
  request_interval  = 10
  failure_threshold = 3
  tags              = merge(local.tags, { Name = "godwit-${each.key}-health" })
}

# Drained: an object is there, in another region's bucket. Inverted: where it is not, and where that other region is
# itself lost, nobody is drained. Raised and lowered by one S3 request, which needs neither Route 53's control plane
# nor the region that is to be drained.
resource "aws_route53_health_check" "drained" {
  for_each           = var.regions
  type               = "HTTPS"
  fqdn               = "${local.bucket[each.key]}.s3.${local.keeper[each.key]}.amazonaws.com"
  port               = 443
  resource_path      = "/drained"
  enable_sni         = true
  invert_healthcheck = true
  request_interval   = 10
  failure_threshold  = 3
  tags               = merge(local.tags, { Name = "godwit-${each.key}-not-drained" })
}

resource "aws_route53_health_check" "region" {
  for_each               = var.regions
  type                   = "CALCULATED"
  child_healthchecks     = [aws_route53_health_check.endpoint[each.key].id, aws_route53_health_check.drained[each.key].id]
  child_health_threshold = 2
  tags                   = merge(local.tags, { Name = "godwit-${each.key}" })
}

resource "aws_route53_health_check" "canary" {
  for_each          = local.canary
  type              = "HTTPS"
  fqdn              = "canary.${each.key}.${var.domain}"
  port              = 443
  resource_path     = "/health"
  enable_sni        = true
  request_interval  = 10
  failure_threshold = 3
  tags              = merge(local.tags, { Name = "godwit-${each.key}-canary" })
}

locals {
  # Another keeper is another bucket: a name that was given up can be anybody's next.
  bucket = { for region, keeper in local.keeper : region => "godwit-${var.account_id}-drain-${region}-in-${keeper}" }
}

resource "aws_s3_bucket" "drain" {
  #checkov:skip=CKV_AWS_145:The checkers come without credentials, and could not read what a KMS key encrypts. There is nothing to hide in an empty object.
  #checkov:skip=CKV_AWS_18:Who raised a flag is in CloudTrail; who read it are the checkers, every few seconds.
  #checkov:skip=CKV_AWS_21:An object without content, there or not.
  #checkov:skip=CKV_AWS_144:A flag is in one place, or two could disagree.
  #checkov:skip=CKV2_AWS_61:One object without content, which nothing but a person may remove.
  #checkov:skip=CKV2_AWS_62:The health check is what notices.

  for_each = local.keeper
  region   = each.value
  bucket   = local.bucket[each.key]
  # A flag that is up goes with a region that is taken out, and does not keep its bucket.
  force_destroy = true
  tags          = merge(local.tags, { Name = local.bucket[each.key], of = each.key })

  lifecycle {
    create_before_destroy = true
  }
}

data "aws_ip_ranges" "checkers" {
  services = ["route53_healthchecks"]
}

# Route 53's checkers cannot sign: they are let in by where they come from, and see one object. A policy that names source
# addresses is not public in S3's sense.
module "drain" {
  source   = "../bucket"
  for_each = local.keeper
  region   = each.value
  bucket   = aws_s3_bucket.drain[each.key].id
  statements = [{
    Sid       = "CheckersLook"
    Effect    = "Allow"
    Action    = "s3:GetObject"
    Principal = "*"
    Resource  = "arn:aws:s3:::${local.bucket[each.key]}/drained"
    Condition = { IpAddress = { "aws:SourceIp" = data.aws_ip_ranges.checkers.cidr_blocks } }
  }]
}

# For the people on call: raise and lower a flag, and nothing else.
resource "aws_iam_policy" "drain" {
  name        = "godwit-drain"
  description = "Take a region out of DNS and put it back."
  tags        = local.tags
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["s3:PutObject", "s3:DeleteObject", "s3:GetObject"]
      Resource = [for bucket in values(local.bucket) : "arn:aws:s3:::${bucket}/drained"]
    }]
  })
}
