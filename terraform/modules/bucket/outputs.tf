output "versioned" {
  description = "For what needs the versions to be kept first, as replication does."
  value       = one([for versioning in aws_s3_bucket_versioning.this : versioning.bucket])
}
