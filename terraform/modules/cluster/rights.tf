# What a release is made of besides the kinds that AWS' policy knows. An administrator applies it, for it needs the API server: once, and
# when the list has changed.

locals {
  release_group = "godwit-release"
  all           = ["get", "list", "watch", "create", "update", "patch", "delete"]
  released = [
    { group = "argoproj.io", resources = ["analysistemplates", "rollouts"], verbs = local.all },
    { group = "cert-manager.io", resources = ["certificates"], verbs = local.all },
    { group = "elbv2.k8s.aws", resources = ["targetgroupbindings"], verbs = local.all },
    { group = "external-secrets.io", resources = ["externalsecrets"], verbs = local.all },
    { group = "gateway.networking.k8s.io", resources = ["httproutes"], verbs = local.all },
    { group = "monitoring.coreos.com", resources = ["prometheusrules", "servicemonitors"], verbs = local.all },
    { group = "postgresql.cnpg.io", resources = ["scheduledbackups"], verbs = local.all },
    # Who deletes a Cluster deletes its database: no release does.
    { group = "postgresql.cnpg.io", resources = ["clusters"], verbs = [for verb in local.all : verb if verb != "delete"] },
    # Kubernetes lets nobody give away a right that he has not himself.
    { group = "rbac.authorization.k8s.io", resources = ["rolebindings", "roles"], verbs = local.all },
  ]
  named = { name = local.release_group, namespace = var.namespace }
}

output "release_rights" {
  description = "For `kubectl apply` by an administrator: what the deployers may do in the namespace besides AWS' AmazonEKSEditPolicy."
  value = join("---\n", [
    yamlencode({
      apiVersion = "rbac.authorization.k8s.io/v1"
      kind       = "Role"
      metadata   = local.named
      rules      = [for rule in local.released : { apiGroups = [rule.group], resources = rule.resources, verbs = rule.verbs }]
    }),
    yamlencode({
      apiVersion = "rbac.authorization.k8s.io/v1"
      kind       = "RoleBinding"
      metadata   = local.named
      roleRef    = { apiGroup = "rbac.authorization.k8s.io", kind = "Role", name = local.release_group }
      subjects   = [{ apiGroup = "rbac.authorization.k8s.io", kind = "Group", name = local.release_group }]
    }),
  ])
}
