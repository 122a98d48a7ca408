locals {
  rds_arn     = "arn:aws:rds:${var.region}:${var.account_id}"
  global_arns = [for name in values(local.identifier[var.region]) : "${local.rds_arn}:db:${name}"]
}

output "address" {
  description = "Where Godwit's settings find this region's instance of the global database: one instance, never a balancer. None where Postgres is in the cluster."
  value       = one(concat([for generation, instance in aws_db_instance.global : instance.address if tonumber(generation) == local.current], [for place, instance in aws_rds_cluster_instance.global : instance.endpoint if place == "a"]))
}

output "regional_address" {
  value = aws_db_instance.regional.address
}

output "regional_secret_arn" {
  description = "The secret that RDS keeps the regional owner's password in."
  value       = try(aws_db_instance.regional.master_user_secret[0].secret_arn, null)
}

output "instances" {
  description = "The instances, for alarms."
  value = {
    global   = local.rds ? [for instance in aws_db_instance.global : instance.identifier] : [for instance in aws_rds_cluster_instance.global : instance.identifier]
    regional = [aws_db_instance.regional.identifier]
  }
}

output "statements" {
  description = "What moving this region's database takes, as IAM statements, and no more: no deletion, no restore, no other region's."
  value = concat(
    [{
      Sid      = "Look"
      Effect   = "Allow"
      Action   = ["rds:DescribeDBInstances", "rds:DescribeDBClusters", "rds:DescribeGlobalClusters", "rds:DescribeEvents"]
      Resource = ["*"]
    }],
    local.rds ? [{
      Sid    = "MoveInstance"
      Effect = "Allow"
      # ModifyDBInstance cannot be narrowed to an attribute: it could end backups and protection too.
      Action   = ["rds:PromoteReadReplica"]
      Resource = local.global_arns
    }] : [],
    local.aurora ? [{
      Sid    = "MoveGlobalCluster"
      Effect = "Allow"
      Action = ["rds:SwitchoverGlobalCluster", "rds:FailoverGlobalCluster"]
      # The global cluster and every cluster that may become the writer or stops being it.
      Resource = concat(["arn:aws:rds::${var.account_id}:global-cluster:godwit"], [for region in keys(var.regions) : "arn:aws:rds:${region}:${var.account_id}:cluster:godwit-${region}"])
    }] : [],
  )
}
