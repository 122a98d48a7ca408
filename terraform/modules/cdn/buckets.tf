resource "aws_s3_bucket" "static" {
  #checkov:skip=CKV_AWS_145:Files that everybody may read; CloudFront would need the right to a key and nobody would be kept out by it.
  #checkov:skip=CKV_AWS_18:CloudFront alone reads here, and who writes is in CloudTrail.
  #checkov:skip=CKV2_AWS_62:Nothing waits for a file.

  for_each = local.buckets
  region   = each.key
  bucket   = each.value
  tags     = merge(local.tags, { Name = each.value })
}

resource "aws_s3_bucket_public_access_block" "static" {
  for_each                = local.buckets
  region                  = each.key
  bucket                  = aws_s3_bucket.static[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "static" {
  for_each = local.buckets
  region   = each.key
  bucket   = aws_s3_bucket.static[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# A release that was bad is put back by its versions.
resource "aws_s3_bucket_versioning" "static" {
  for_each = local.buckets
  region   = each.key
  bucket   = aws_s3_bucket.static[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "static" {
  for_each = local.buckets
  region   = each.key
  bucket   = aws_s3_bucket.static[each.key].id

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 90
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.static]
}

resource "aws_s3_bucket_policy" "static" {
  for_each = local.buckets
  region   = each.key
  bucket   = aws_s3_bucket.static[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "CloudFrontReads"
        Effect    = "Allow"
        Action    = "s3:GetObject"
        Principal = { Service = "cloudfront.amazonaws.com" }
        Resource  = "arn:aws:s3:::${each.value}/*"
        Condition = { StringEquals = { "aws:SourceArn" = aws_cloudfront_distribution.this.arn } }
      },
      {
        Sid       = "OnlyByTls"
        Effect    = "Deny"
        Action    = "s3:*"
        Principal = "*"
        Resource  = ["arn:aws:s3:::${each.value}", "arn:aws:s3:::${each.value}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.static]
}

# Both ways: a release goes to whichever region is there.
resource "aws_s3_bucket_replication_configuration" "static" {
  for_each = local.buckets
  region   = each.key
  bucket   = aws_s3_bucket.static[each.key].id
  role     = aws_iam_role.replication.arn

  rule {
    id     = "all"
    status = "Enabled"
    filter {}

    delete_marker_replication {
      status = "Enabled"
    }

    destination {
      bucket = aws_s3_bucket.static[local.other[each.key]].arn
    }
  }

  depends_on = [aws_s3_bucket_versioning.static]
}

resource "aws_iam_role" "replication" {
  name = "godwit-static-replication"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "s3.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy" "replication" {
  name = "copy"
  role = aws_iam_role.replication.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
        Resource = [for bucket in values(local.buckets) : "arn:aws:s3:::${bucket}"]
      },
      {
        Effect   = "Allow"
        Action   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging", "s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
        Resource = [for bucket in values(local.buckets) : "arn:aws:s3:::${bucket}/*"]
      },
    ]
  })
}
