output "address" {
  value = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "user_id" {
  description = "Whose password a person sets once."
  value       = aws_elasticache_user.godwit.user_id
}

output "nodes" {
  description = "The nodes, for alarms."
  value       = aws_elasticache_replication_group.this.member_clusters
}
