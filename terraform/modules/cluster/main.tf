# A region's Kubernetes. Only through its private endpoint, unless addresses are named; people come in by access
# entries, pods get their rights by Pod Identity.

locals {
  tags = { component = "cluster" }

  trust = {
    eks  = { service = "eks.amazonaws.com", actions = ["sts:AssumeRole"] }
    ec2  = { service = "ec2.amazonaws.com", actions = ["sts:AssumeRole"] }
    pods = { service = "pods.eks.amazonaws.com", actions = ["sts:AssumeRole", "sts:TagSession"] }
  }
  assume = {
    for name, who in local.trust : name => jsonencode({
      Version   = "2012-10-17"
      Statement = [{ Effect = "Allow", Action = who.actions, Principal = { Service = who.service } }]
    })
  }
}

resource "aws_eks_cluster" "this" {
  name                          = var.name
  version                       = var.kubernetes_version
  role_arn                      = aws_iam_role.cluster.arn
  bootstrap_self_managed_addons = false
  deletion_protection           = true
  enabled_cluster_log_types     = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  tags                          = merge(local.tags, { Name = var.name })

  access_config {
    authentication_mode = "API"
    # Who applies this has no right that an entry below does not name.
    bootstrap_cluster_creator_admin_permissions = false
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = var.key_arn
    }
  }

  vpc_config {
    subnet_ids              = var.private_subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = length(var.endpoint_cidrs) > 0
    public_access_cidrs     = length(var.endpoint_cidrs) > 0 ? var.endpoint_cidrs : null
  }

  upgrade_policy {
    # The next release when we say so, not when this one's support ends and costs more.
    support_type = "STANDARD"
  }

  depends_on = [aws_cloudwatch_log_group.cluster, aws_iam_role_policy_attachment.cluster]
}

# EKS would make it without a key and keep it for ever.
resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/aws/eks/${var.name}/cluster"
  kms_key_id        = var.key_arn
  retention_in_days = var.log_days
  tags              = local.tags
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = local.assume.eks
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_eks_access_entry" "administrators" {
  for_each      = var.administrators
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value
  tags          = local.tags
}

resource "aws_eks_access_policy_association" "administrators" {
  for_each      = var.administrators
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value
  policy_arn    = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }

  depends_on = [aws_eks_access_entry.administrators]
}

# What ships releases changes nothing outside the namespace. AWS' policy knows Kubernetes' own kinds; to the others that a release is
# made of, the group has the role of rights.tf.
resource "aws_eks_access_entry" "deployers" {
  for_each          = var.deployers
  cluster_name      = aws_eks_cluster.this.name
  principal_arn     = each.value
  kubernetes_groups = [local.release_group]
  tags              = local.tags
}

resource "aws_eks_access_policy_association" "deployers" {
  for_each      = var.deployers
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value
  policy_arn    = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSEditPolicy"

  access_scope {
    type       = "namespace"
    namespaces = [var.namespace]
  }

  depends_on = [aws_eks_access_entry.deployers]
}
