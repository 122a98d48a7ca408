resource "aws_s3_bucket" "static" {
  #checkov:skip=CKV_AWS_145:Files that everybody may read; CloudFront would need the right to a key and nobody would be kept out by it.
  #checkov:skip=CKV_AWS_18:CloudFront alone reads here, and who writes is in CloudTrail.
  #checkov:skip=CKV2_AWS_62:Nothing waits for a file.
  #checkov:skip=CKV_AWS_144:Replicated by aws_s3_bucket_replication_configuration.static, which checkov does not see through the module.

  for_each = local.buckets
  region   = each.key
  bucket   = each.value
  tags     = merge(local.tags, { Name = each.value })
}

module "static" {
  source   = "../bucket"
  for_each = local.buckets
  region   = each.key
  bucket   = aws_s3_bucket.static[each.key].id
  # A release that was bad is put back by its versions.
  versions = { days = 90 }
  statements = [{
    Sid       = "CloudFrontReads"
    Effect    = "Allow"
    Action    = "s3:GetObject"
    Principal = { Service = "cloudfront.amazonaws.com" }
    Resource  = "arn:aws:s3:::${each.value}/*"
    Condition = { StringEquals = { "aws:SourceArn" = aws_cloudfront_distribution.this.arn } }
  }]
}

# Both ways: a release goes to whichever region is there.
resource "aws_s3_bucket_replication_configuration" "static" {
  for_each = local.buckets
  region   = each.key
  bucket   = module.static[each.key].versioned
  role     = aws_iam_role.replication.arn

  rule {
    id     = "all"
    status = "Enabled"
    filter {}

    delete_marker_replication {
      status = "Enabled"
    }

    destination {
      bucket = "arn:aws:s3:::${module.static[local.other[each.key]].versioned}"
    }
  }
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
