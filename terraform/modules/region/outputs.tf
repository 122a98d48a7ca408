output "cluster" {
  description = "For `aws eks update-kubeconfig --name`."
  value       = module.cluster.name
}

output "target_group_bindings" {
  description = "For `kubectl apply`, once the chart is installed."
  value       = module.cluster.target_group_bindings
}

output "release_rights" {
  description = "For `kubectl apply` by an administrator, before the first release."
  value       = module.cluster.release_rights
}

output "settings" {
  description = "What Godwit's settings of this region name: addresses; and where Godwit moves the primary by AWS' API, regions.NAME.database of each region, and with Aurora failover.global_database."
  value = {
    global_database   = module.database.address
    regional_database = module.database.regional_address
    redis             = module.cache.address
    databases         = module.database.databases
    global_cluster    = module.database.global_cluster
  }
}

output "backup_copy" {
  description = "Where the copies of this region's backups are, for the day it is lost: a vault of another region."
  value       = module.database.backup_copy
}

output "regional_secret_arn" {
  description = "Where RDS keeps the password of the regional database's owner."
  value       = module.database.regional_secret_arn
}

output "redis_user" {
  description = "The user of Redis whose password a person sets (README.md)."
  value       = module.cache.user_id
}

output "alarms" {
  description = "The topic that alarms go to."
  value       = module.observability.topic_arn
}
