# What every bucket of ours has: nothing in it is public, whoever writes owns nothing, nobody comes without TLS. The bucket
# itself is its owner's, who knows whether it may go.

resource "aws_s3_bucket_public_access_block" "this" {
  region                  = var.region
  bucket                  = var.bucket
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  region = var.region
  bucket = var.bucket

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_policy" "this" {
  #checkov:skip=CKV_AWS_70:Whom else a bucket lets in is its owner's to say, beside the reason (modules/dns).

  region = var.region
  bucket = var.bucket
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(var.statements, [{
      Sid       = "OnlyByTls"
      Effect    = "Deny"
      Action    = "s3:*"
      Principal = "*"
      Resource  = ["arn:aws:s3:::${var.bucket}", "arn:aws:s3:::${var.bucket}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }])
  })

  # S3 judges a policy by the block that is there.
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_versioning" "this" {
  count  = var.versions == null ? 0 : 1
  region = var.region
  bucket = var.bucket

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  count  = var.versions == null ? 0 : 1
  region = var.region
  bucket = var.bucket

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days           = var.versions.days
      newer_noncurrent_versions = var.versions.keep
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}
