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
