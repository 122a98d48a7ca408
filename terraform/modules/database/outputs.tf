locals {
  # The earlier ones too: whose settings still name one may look at it.
  own_instances = [for name in values(local.identifier[var.region]) : "arn:aws:rds:${var.region}:${var.account_id}:db:${name}"]
  global_arn    = "arn:aws:rds::${var.account_id}:global-cluster:${local.global_cluster}"
  # What Godwit notes on what it is about to promote: from which position it was. With it nothing else can be tagged, and
  # Terraform leaves it alone (ignore_tags of the roots).
  notes = {
    "ForAllValues:StringEquals" = { "aws:TagKeys" = ["godwit:promoted-from"] }
    # Of no key at all the line above holds too.
    Null = { "aws:TagKeys" = "false" }
  }
}

output "address" {
  description = "Where Godwit's settings find this region's instance of the global database: one instance, never a balancer. None where Postgres is in the cluster."
  value       = one(concat([for generation, instance in aws_db_instance.global : instance.address if tonumber(generation) == local.current[var.region]], [for place, instance in aws_rds_cluster_instance.global : instance.endpoint if place == "a"]))
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

output "backup_copy" {
  description = "The vault of the copies: its region and its name."
  value       = { region = aws_backup_vault.copies.region, vault = aws_backup_vault.copies.name }
}

output "databases" {
  description = "regions.NAME.database of Godwit's settings, where Godwit moves the primary by the API: what each region's database is called there. From names alone, so every region's root tells all."
  value       = local.rds ? local.instance_arns : local.aurora ? local.cluster_arns : {}
}

output "global_cluster" {
  description = "failover.global_database of Godwit's settings: the identifier of Aurora's global cluster."
  value       = local.aurora ? local.global_cluster : null
}

output "statements" {
  description = "What Godwit does to move this region's database, as IAM statements: no deletion, no restore, no change of settings, nothing of another application's. None where Postgres is in the cluster."
  value       = [for statement in local.statements : { for key, value in statement : key => value if key != "engine" } if statement.engine == var.global.engine]
}

locals {
  statements = [
    {
      engine   = "rds"
      Sid      = "Look"
      Effect   = "Allow"
      Action   = ["rds:DescribeDBInstances"]
      Resource = local.own_instances
    },
    {
      engine   = "rds"
      Sid      = "Move"
      Effect   = "Allow"
      Action   = ["rds:PromoteReadReplica"]
      Resource = [local.instance_arns[var.region]]
    },
    {
      engine    = "rds"
      Sid       = "Note"
      Effect    = "Allow"
      Action    = ["rds:AddTagsToResource"]
      Resource  = [local.instance_arns[var.region]]
      Condition = local.notes
    },
    {
      engine   = "aurora"
      Sid      = "Look"
      Effect   = "Allow"
      Action   = ["rds:DescribeGlobalClusters", "rds:DescribeDBClusters"]
      Resource = [local.global_arn, local.cluster_arns[var.region]]
    },
    {
      engine = "aurora"
      Sid    = "Move"
      Effect = "Allow"
      Action = ["rds:SwitchoverGlobalCluster", "rds:FailoverGlobalCluster"]
      # AWS asks for all: the global cluster, who becomes its writer and who stops being it.
      Resource = concat([local.global_arn], values(local.cluster_arns))
    },
    {
      engine    = "aurora"
      Sid       = "Note"
      Effect    = "Allow"
      Action    = ["rds:AddTagsToResource"]
      Resource  = [local.cluster_arns[var.region]]
      Condition = local.notes
    },
  ]
}
