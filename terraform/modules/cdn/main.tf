# Static files of a front end, near everybody: static.DOMAIN. Godwit's own pages are not among them, and its API is not
# behind this unless paths are named: Godwit would take CloudFront's addresses for its clients', and count all of them
# as a few.
#
# What is below /assets/ has its digest in its name and never changes: kept for a year. That it is missing does change, with the
# next release or once the other bucket's copy has come: an error is asked for anew. All else is asked for anew each time, so
# a release is seen at once. README.md tells when an invalidation is needed all the same.

locals {
  tags = { component = "cdn" }
  name = "static.${var.domain}"
  # A bucket in each of two regions, each other's copy: CloudFront asks the second when the first fails.
  buckets = { for region in var.regions : region => "godwit-${var.account_id}-static-${region}" }
  other   = { (var.regions[0]) = var.regions[1], (var.regions[1]) = var.regions[0] }
  api     = length(var.api_paths) > 0
}

data "aws_cloudfront_cache_policy" "optimized" {
  name = "Managed-CachingOptimized"
}

data "aws_cloudfront_cache_policy" "disabled" {
  name = "Managed-CachingDisabled"
}

# All that the client sent but the host: the credential and the bookmark too.
data "aws_cloudfront_origin_request_policy" "all" {
  name = "Managed-AllViewerExceptHostHeader"
}

resource "aws_cloudfront_distribution" "this" {
  #checkov:skip=CKV_AWS_68:Static files: there is no request to be filtered.
  #checkov:skip=CKV2_AWS_47:Static files: there is no request to be filtered.
  #checkov:skip=CKV_AWS_86:Who fetches public files is nobody's business here; switch it on where it is.
  #checkov:skip=CKV_AWS_374:Users are everywhere.
  #checkov:skip=CKV_AWS_259:The policies are made by for_each and set it; checkov does not see through that.

  comment             = "Godwit: static files."
  enabled             = true
  is_ipv6_enabled     = true
  http_version        = "http2and3"
  aliases             = [local.name]
  default_root_object = "index.html"
  price_class         = "PriceClass_All"
  tags                = merge(local.tags, { Name = local.name })

  viewer_certificate {
    acm_certificate_arn      = var.certificate_arn
    ssl_support_method       = "sni-only"
    minimum_protocol_version = "TLSv1.2_2021"
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  dynamic "origin" {
    for_each = local.buckets
    content {
      origin_id                = origin.key
      domain_name              = "${origin.value}.s3.${origin.key}.amazonaws.com"
      origin_access_control_id = aws_cloudfront_origin_access_control.this.id
    }
  }

  origin_group {
    origin_id = "static"

    failover_criteria {
      # 403 is what S3 says of an object that is not there: it may have reached the other bucket alone.
      status_codes = [403, 404, 500, 502, 503, 504]
    }

    member {
      origin_id = var.regions[0]
    }

    member {
      origin_id = var.regions[1]
    }
  }

  default_cache_behavior {
    target_origin_id           = "static"
    viewer_protocol_policy     = "redirect-to-https"
    allowed_methods            = ["GET", "HEAD"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = true
    cache_policy_id            = data.aws_cloudfront_cache_policy.disabled.id
    response_headers_policy_id = aws_cloudfront_response_headers_policy.this["fresh"].id
  }

  ordered_cache_behavior {
    path_pattern               = "/assets/*"
    target_origin_id           = "static"
    viewer_protocol_policy     = "redirect-to-https"
    allowed_methods            = ["GET", "HEAD"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = true
    cache_policy_id            = data.aws_cloudfront_cache_policy.optimized.id
    response_headers_policy_id = aws_cloudfront_response_headers_policy.this["assets"].id

    function_association {
      event_type   = "viewer-response"
      function_arn = aws_cloudfront_function.immutable.arn
    }
  }

  # What CloudFront keeps of an error itself: 403 is how S3 says that there is nothing.
  dynamic "custom_error_response" {
    for_each = toset([403, 404, 500, 502, 503, 504])
    content {
      error_code            = custom_error_response.value
      error_caching_min_ttl = 1
    }
  }

  dynamic "origin" {
    for_each = local.api ? ["api"] : []
    content {
      origin_id   = "api"
      domain_name = var.domain

      custom_origin_config {
        http_port              = 80
        https_port             = 443
        origin_protocol_policy = "https-only"
        origin_ssl_protocols   = ["TLSv1.2"]
        # Longer than Godwit's longest request.
        origin_read_timeout = 30
      }
    }
  }

  # One origin: failover between origins leaves writes out, and who is asked is decided in DNS.
  dynamic "ordered_cache_behavior" {
    for_each = var.api_paths
    content {
      path_pattern             = ordered_cache_behavior.value
      target_origin_id         = "api"
      viewer_protocol_policy   = "https-only"
      allowed_methods          = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"]
      cached_methods           = ["GET", "HEAD"]
      cache_policy_id          = data.aws_cloudfront_cache_policy.disabled.id
      origin_request_policy_id = data.aws_cloudfront_origin_request_policy.all.id
    }
  }
}

resource "aws_cloudfront_origin_access_control" "this" {
  name                              = "godwit-static"
  origin_access_control_origin_type = "s3"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

# A policy of headers would say the same of an error, and a browser that had asked too early would keep that for a year.
resource "aws_cloudfront_function" "immutable" {
  name    = "godwit-static-immutable"
  comment = "What is below /assets/ and is there is kept for a year."
  runtime = "cloudfront-js-2.0"
  publish = true
  code    = file("${path.module}/immutable.js")
}

resource "aws_cloudfront_response_headers_policy" "this" {
  #checkov:skip=CKV_AWS_259:A year, without preload: that is a list kept by browsers, from which a domain comes off slowly, and its owner's choice.

  for_each = { assets = [], fresh = ["no-cache"] }
  name     = "godwit-static-${each.key}"

  dynamic "custom_headers_config" {
    for_each = each.value
    content {
      items {
        header   = "Cache-Control"
        value    = custom_headers_config.value
        override = true
      }
    }
  }

  security_headers_config {
    content_type_options {
      override = true
    }
    frame_options {
      frame_option = "DENY"
      override     = true
    }
    referrer_policy {
      referrer_policy = "same-origin"
      override        = true
    }
    strict_transport_security {
      access_control_max_age_sec = 31536000
      include_subdomains         = false
      override                   = true
    }
  }
}

# An alias to CloudFront cannot follow its health: CloudFront has its own failover.
resource "aws_route53_record" "this" {
  for_each = toset(["A", "AAAA"])
  zone_id  = var.zone_id
  name     = local.name
  type     = each.key

  alias {
    name                   = aws_cloudfront_distribution.this.domain_name
    zone_id                = aws_cloudfront_distribution.this.hosted_zone_id
    evaluate_target_health = false
  }
}
