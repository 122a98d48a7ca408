# Route 53 tells of its checks in us-east-1 alone. When that region is in trouble these may be silent: the chart's alerts, of
# each region on the others, do not depend on it.

resource "aws_sns_topic" "dns" {
  region            = "us-east-1"
  name              = "godwit-dns"
  kms_master_key_id = aws_kms_key.dns.arn
  tags              = { component = "dns" }
}

# Of messages under way: nothing is kept that could not be read without it.
resource "aws_kms_key" "dns" {
  region                  = "us-east-1"
  description             = "Godwit's alarms of DNS."
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = { component = "dns" }
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Action    = "kms:*"
        Resource  = "*"
        Principal = { AWS = "arn:aws:iam::${var.choices.account_id}:root" }
      },
      {
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Condition = { StringEquals = { "aws:SourceAccount" = var.choices.account_id } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "dns" {
  for_each  = var.choices.alarm_emails
  region    = "us-east-1"
  topic_arn = aws_sns_topic.dns.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "region" {
  for_each            = module.dns.checks
  region              = "us-east-1"
  alarm_name          = "godwit-${each.key}-out-of-dns"
  alarm_description   = "DNS sends nobody to ${each.key} any more: it is down, or drained."
  namespace           = "AWS/Route53"
  metric_name         = "HealthCheckStatus"
  dimensions          = { HealthCheckId = each.value }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 1
  # No word of a check is no good sign.
  treat_missing_data = "breaching"
  alarm_actions      = [aws_sns_topic.dns.arn]
  ok_actions         = [aws_sns_topic.dns.arn]
  tags               = { component = "dns" }
}
