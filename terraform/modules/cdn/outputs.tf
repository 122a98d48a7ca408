output "distribution_id" {
  description = "For `aws cloudfront create-invalidation`."
  value       = aws_cloudfront_distribution.this.id
}

output "buckets" {
  description = "Where a release's files are put: one of them, the other follows."
  value       = local.buckets
}

output "domain_name" {
  description = "What static.DOMAIN is an alias of."
  value       = aws_cloudfront_distribution.this.domain_name
}
