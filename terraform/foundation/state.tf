# Where every state is kept: outside of all regions that serve users, so that what is needed to mend the loss of one is not lost
# with it; and once more in a second such region. Locked by S3 itself.

locals {
  buckets = {
    (var.choices.state_region)      = "godwit-${var.choices.account_id}-state-${var.choices.state_region}"
    (var.choices.state_copy_region) = "godwit-${var.choices.account_id}-state-${var.choices.state_copy_region}"
  }
}

resource "aws_kms_key" "state" {
  for_each                = local.buckets
  region                  = each.key
  description             = "Godwit's Terraform states."
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "kms:*"
      Resource  = "*"
      Principal = { AWS = "arn:aws:iam::${var.choices.account_id}:root" }
    }]
  })

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket" "state" {
  #checkov:skip=CKV_AWS_18:Who reads and writes a state is in CloudTrail.
  #checkov:skip=CKV2_AWS_62:Nothing waits for a state.
  #checkov:skip=CKV_AWS_144:Replicated by aws_s3_bucket_replication_configuration.state, one way: checkov asks it of the copy too.

  for_each = local.buckets
  region   = each.key
  bucket   = each.value

  lifecycle {
    prevent_destroy = true
  }
}

module "state" {
  source   = "../modules/bucket"
  for_each = local.buckets
  region   = each.key
  bucket   = aws_s3_bucket.state[each.key].id
  # A state says little that a newer one does not.
  versions = { days = 365, keep = 20 }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  for_each = local.buckets
  region   = each.key
  bucket   = aws_s3_bucket.state[each.key].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.state[each.key].arn
    }
  }
}

resource "aws_s3_bucket_replication_configuration" "state" {
  region = var.choices.state_region
  bucket = module.state[var.choices.state_region].versioned
  role   = aws_iam_role.state.arn

  rule {
    id     = "all"
    status = "Enabled"
    filter {}

    # A lock is an object that comes and goes, and holds for the first bucket alone.
    delete_marker_replication {
      status = "Enabled"
    }

    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }

    destination {
      bucket = "arn:aws:s3:::${module.state[var.choices.state_copy_region].versioned}"

      encryption_configuration {
        replica_kms_key_id = aws_kms_key.state[var.choices.state_copy_region].arn
      }
    }
  }
}

resource "aws_iam_role" "state" {
  name = "godwit-state-replication"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "s3.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = var.choices.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "state" {
  name = "copy"
  role = aws_iam_role.state.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
        Resource = aws_s3_bucket.state[var.choices.state_region].arn
      },
      {
        Effect   = "Allow"
        Action   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
        Resource = "${aws_s3_bucket.state[var.choices.state_region].arn}/*"
      },
      {
        Effect   = "Allow"
        Action   = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
        Resource = "${aws_s3_bucket.state[var.choices.state_copy_region].arn}/*"
      },
      {
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = aws_kms_key.state[var.choices.state_region].arn
      },
      {
        Effect   = "Allow"
        Action   = "kms:Encrypt"
        Resource = aws_kms_key.state[var.choices.state_copy_region].arn
      },
    ]
  })
}
