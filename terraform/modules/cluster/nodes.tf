# Enough nodes for what another region's loss brings, before it is lost: nothing has to be started in that hour, when
# everybody else starts something too.

resource "aws_eks_node_group" "this" {
  cluster_name           = aws_eks_cluster.this.name
  node_group_name_prefix = "${var.name}-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = var.private_subnet_ids
  instance_types         = var.nodes.instance_types
  ami_type               = var.nodes.ami_type
  capacity_type          = "ON_DEMAND"
  version                = var.kubernetes_version
  tags                   = local.tags

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  scaling_config {
    min_size     = var.nodes.count
    desired_size = var.nodes.count
    max_size     = var.nodes.count * 2
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true
  }

  lifecycle {
    create_before_destroy = true
    # An autoscaler, where one is installed, has the last word.
    ignore_changes = [scaling_config[0].desired_size]
  }

  # Without the network's add-on no node becomes ready.
  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.before]
}

resource "aws_launch_template" "node" {
  name_prefix            = "${var.name}-"
  update_default_version = true
  tags                   = local.tags

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type = "gp3"
      volume_size = var.nodes.disk_gib
      encrypted   = true
    }
  }

  metadata_options {
    http_tokens = "required"
    # No hop to a pod: nothing but the node has the node's rights.
    http_put_response_hop_limit = 1
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(var.tags, local.tags, { Name = "${var.name}-node" })
  }

  tag_specifications {
    resource_type = "volume"
    tags          = merge(var.tags, local.tags, { Name = "${var.name}-node" })
  }
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = local.assume.ec2
  tags               = local.tags
}

# The network's add-on has a role of its own.
resource "aws_iam_role_policy_attachment" "node" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])
  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}

locals {
  addons = {
    vpc-cni = {
      before = true
      # The chart's NetworkPolicies hold only with this.
      settings = { enableNetworkPolicy = "true" }
    }
    kube-proxy             = { before = true }
    eks-pod-identity-agent = { before = true }
    coredns                = {}
    # What a HorizontalPodAutoscaler asks.
    metrics-server = {}
    # Volumes, for Postgres in the cluster (CloudNativePG).
    aws-ebs-csi-driver = {}
  }
}

data "aws_eks_addon_version" "this" {
  for_each           = local.addons
  addon_name         = each.key
  kubernetes_version = var.kubernetes_version
}

resource "aws_eks_addon" "before" {
  for_each                    = { for name, addon in local.addons : name => addon if try(addon.before, false) }
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = data.aws_eks_addon_version.this[each.key].version
  configuration_values        = can(each.value.settings) ? jsonencode(each.value.settings) : null
  resolve_conflicts_on_update = "OVERWRITE"
  tags                        = local.tags

  dynamic "pod_identity_association" {
    for_each = each.key == "vpc-cni" ? ["aws-node"] : []
    content {
      service_account = pod_identity_association.value
      role_arn        = aws_iam_role.pod["vpc-cni"].arn
    }
  }
}

resource "aws_eks_addon" "after" {
  for_each                    = { for name, addon in local.addons : name => addon if !try(addon.before, false) }
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = data.aws_eks_addon_version.this[each.key].version
  resolve_conflicts_on_update = "OVERWRITE"
  tags                        = local.tags

  dynamic "pod_identity_association" {
    for_each = each.key == "aws-ebs-csi-driver" ? ["ebs-csi-controller-sa"] : []
    content {
      service_account = pod_identity_association.value
      role_arn        = aws_iam_role.pod["ebs-csi"].arn
    }
  }

  depends_on = [aws_eks_node_group.this]
}
