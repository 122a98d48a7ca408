output "name" {
  value = aws_eks_cluster.this.name
}

output "pods_security_group_id" {
  description = "What the pods are in: whom databases and caches let in."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

output "balancers" {
  description = "The balancers, for alarms: CloudWatch's name of each and of its target group, and whether it may have nobody behind it."
  value = {
    for name, balancer in aws_lb.this : name => {
      balancer  = balancer.arn_suffix
      targets   = aws_lb_target_group.this[name].arn_suffix
      may_empty = name == "canary"
    }
  }
}

output "internal_from" {
  description = "Whom the internal balancer lets in: networks by region."
  value       = { for key, rule in aws_vpc_security_group_ingress_rule.balancer : split("/", key)[1] => rule.cidr_ipv4 if startswith(key, "internal/") }
}

locals {
  # The chart's names, for releases named godwit and godwit-canary.
  services = {
    public   = { name = "godwit", port = "http" }
    internal = { name = "godwit-internal", port = "internal" }
    canary   = { name = "godwit-canary", port = "http" }
  }
}

output "target_group_bindings" {
  description = "For `kubectl apply`: puts the pods of the named Kubernetes services behind the balancers."
  value = join("---\n", [
    for name, balancer in local.built : yamlencode({
      apiVersion = "elbv2.k8s.aws/v1beta1"
      kind       = "TargetGroupBinding"
      metadata   = { name = "godwit-${name}", namespace = var.namespace }
      spec = {
        targetGroupARN = aws_lb_target_group.this[name].arn
        targetType     = "ip"
        serviceRef = {
          name = local.services[name].name
          port = local.services[name].port
        }
      }
    })
  ])
}
