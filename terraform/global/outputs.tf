output "drain" {
  description = "How a region is taken out of DNS: `aws s3api put-object` with these, and `delete-object` to put it back."
  value       = module.dns.drain
}

output "internal_urls" {
  description = "regions.NAME.internal_url of Godwit's settings."
  value       = { for region in local.order : region => "https://${aws_route53_record.internal[region].name}:9081" }
}

output "static" {
  description = "Where a front end's files go, and the distribution to invalidate."
  value       = one([for cdn in module.cdn : { buckets = cdn.buckets, distribution = cdn.distribution_id }])
}

output "names" {
  description = "What another provider of the domain has to answer besides DOMAIN itself: a CNAME each (docs/MULTI-CLOUD.md)."
  value = merge(
    { for region in local.order : "${region}.${var.domain}" => data.aws_lb.public[region].dns_name },
    { for region in keys(local.canaries) : "canary.${region}.${var.domain}" => data.aws_lb.canary[region].dns_name },
    merge([for cdn in module.cdn : { "static.${var.domain}" = cdn.domain_name }]...),
  )
}

output "internal_names" {
  description = "What a region on another cloud has to resolve these names to: a CNAME each, to private addresses."
  value       = { for region in local.order : aws_route53_record.internal[region].name => data.aws_lb.internal[region].dns_name }
}
