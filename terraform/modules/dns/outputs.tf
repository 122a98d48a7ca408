output "drain" {
  description = "How a region is taken out of DNS: `aws s3api put-object` with these, and `delete-object` to put it back."
  value       = { for region in local.order : region => "--region ${local.keeper[region]} --bucket ${local.bucket[region]} --key drained" }
}

output "checks" {
  description = "The health check that decides on each region."
  value       = { for region, check in aws_route53_health_check.region : region => check.id }
}

output "records" {
  description = "What the zone answers by, layer by layer: for rehearsals of the loss of a region."
  value = {
    geolocation = concat(
      [for record in aws_route53_record.continent : { of = record.geolocation_routing_policy[0].continent, to = record.alias[0].name, follows = record.alias[0].evaluate_target_health }],
      [for record in aws_route53_record.default : { of = record.geolocation_routing_policy[0].country, to = record.alias[0].name, follows = record.alias[0].evaluate_target_health }],
    )
    failover = [
      for record in concat(values(aws_route53_record.home), values(aws_route53_record.elsewhere)) :
      { name = record.name, type = record.failover_routing_policy[0].type, to = record.alias[0].name, check = record.health_check_id, follows = record.alias[0].evaluate_target_health }
    ]
    latency = [
      for record in aws_route53_record.other :
      { name = record.name, to = record.alias[0].name, check = record.health_check_id }
    ]
  }
}
