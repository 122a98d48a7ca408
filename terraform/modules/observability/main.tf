# What AWS alone can see: that a database, a cache or a balancer is in trouble even if nothing in the cluster runs that could
# say so. What Godwit itself measures has its alerts in the chart.

locals {
  tags = { component = "observability" }

  alarms = merge(
    { for name in var.databases : "${name}-cpu" => {
      about      = "The processor is busy: a replica would fall behind.", namespace = "AWS/RDS", metric = "CPUUtilization"
      dimensions = { DBInstanceIdentifier = name }, statistic = "Average", threshold = 80, over = true, minutes = 15
    } },
    { for name in var.disks : "${name}-storage" => {
      about      = "The disk fills: a slot may be kept for a replica that is away.", namespace = "AWS/RDS", metric = "FreeStorageSpace"
      dimensions = { DBInstanceIdentifier = name }, statistic = "Minimum", threshold = 10 * 1024 * 1024 * 1024, over = false, minutes = 5
    } },
    { for name in var.databases : "${name}-memory" => {
      about      = "Little memory is left.", namespace = "AWS/RDS", metric = "FreeableMemory"
      dimensions = { DBInstanceIdentifier = name }, statistic = "Minimum", threshold = 256 * 1024 * 1024, over = false, minutes = 15
    } },
    # These two are the exception: a primary has no lag to tell of, and a replica no slot. Which of them an instance is, is
    # not known here. That a replica streams at all is the chart's to watch (GodwitLagUnknown).
    { for name in var.replicating : "${name}-lag" => {
      about      = "The replica is a minute behind: what it lacks would be lost with the primary.", namespace = "AWS/RDS", metric = "ReplicaLag"
      dimensions = { DBInstanceIdentifier = name }, statistic = "Maximum", threshold = 60, over = true, minutes = 5, missing = "notBreaching"
    } },
    { for name in var.replicating : "${name}-slot" => {
      about      = "The primary keeps log for a replica that does not fetch it.", namespace = "AWS/RDS", metric = "OldestReplicationSlotLag"
      dimensions = { DBInstanceIdentifier = name }, statistic = "Maximum", threshold = var.slot_wal_keep_mib * 1024 * 1024 / 2, over = true, minutes = 5, missing = "notBreaching"
    } },
    { for name in var.caches : "${name}-memory" => {
      about      = "Redis is nearly full, and evicts nothing: sign-ins would be refused.", namespace = "AWS/ElastiCache", metric = "DatabaseMemoryUsagePercentage"
      dimensions = { CacheClusterId = name }, statistic = "Maximum", threshold = 75, over = true, minutes = 5
    } },
    { for name, balancer in var.balancers : "${var.name}-${name}-unhealthy" => {
      about      = "Pods behind the ${name} balancer do not answer.", namespace = "AWS/NetworkELB", metric = "UnHealthyHostCount"
      dimensions = { LoadBalancer = balancer.balancer, TargetGroup = balancer.targets }, statistic = "Maximum", threshold = 0, over = true, minutes = 10
      missing    = "notBreaching"
    } },
    # Nobody behind it is nobody unhealthy: that is this one's to tell.
    { for name, balancer in var.balancers : "${var.name}-${name}-nobody" => {
      about      = "Nobody behind the ${name} balancer answers.", namespace = "AWS/NetworkELB", metric = "HealthyHostCount"
      dimensions = { LoadBalancer = balancer.balancer, TargetGroup = balancer.targets }, statistic = "Maximum", threshold = 1, over = false, minutes = 3
    } if !balancer.may_empty },
  )
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.key_arn
  tags              = local.tags
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.alarms.arn
      Principal = { Service = "cloudwatch.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
}

# Each address has to confirm that it wants them.
resource "aws_sns_topic_subscription" "alarms" {
  for_each  = var.emails
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = each.key
  alarm_description   = each.value.about
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.over ? "GreaterThanThreshold" : "LessThanThreshold"
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  datapoints_to_alarm = each.value.minutes
  # What says nothing any more is in trouble, unless it is said above why it may be silent.
  treat_missing_data = lookup(each.value, "missing", "breaching")
  alarm_actions      = [aws_sns_topic.alarms.arn]
  ok_actions         = [aws_sns_topic.alarms.arn]
  tags               = local.tags
}
