# What pods may do in AWS, by Pod Identity: a role each, and no more than its one purpose needs.

locals {
  managed = {
    vpc-cni = "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"
    ebs-csi = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
  }

  own = {
    # It puts pods into the target groups of balancers.tf and takes them out. It makes no balancer, so the
    # long policy that its project publishes is not needed.
    load-balancer-controller = [
      {
        Effect   = "Allow"
        Action   = ["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"]
        Resource = [for group in aws_lb_target_group.this : group.arn]
      },
      {
        # Looking has no resource to be narrowed to.
        Effect = "Allow"
        Action = [
          "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetGroupAttributes",
          "elasticloadbalancing:DescribeTargetHealth", "elasticloadbalancing:DescribeTags",
          "elasticloadbalancing:DescribeLoadBalancers", "elasticloadbalancing:DescribeListeners",
          "ec2:DescribeAvailabilityZones", "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs",
        ]
        Resource = ["*"]
      },
    ]
    # This region's secrets, of which there is one tree: godwit/REGION/...
    external-secrets = [
      {
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
        Resource = ["arn:aws:secretsmanager:${var.region}:${var.account_id}:secret:godwit/${var.region}/*"]
      },
      {
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = [var.key_arn]
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.region}.amazonaws.com" } }
      },
    ]
    # Godwit itself: what it moves its own region's database with, and no more (modules/database, outputs).
    godwit = var.database_statements
  }

  # Which account of which namespace has which role. The add-ons name their own.
  bound = {
    load-balancer-controller = { namespace = "kube-system", account = "aws-load-balancer-controller" }
    external-secrets         = { namespace = "external-secrets", account = "external-secrets" }
    godwit                   = { namespace = var.namespace, account = var.service_account }
  }
}

resource "aws_iam_role" "pod" {
  for_each           = toset(concat(keys(local.managed), keys(local.own)))
  name               = "${var.name}-${each.key}"
  assume_role_policy = local.assume.pods
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "pod" {
  for_each   = local.managed
  role       = aws_iam_role.pod[each.key].name
  policy_arn = each.value
}

resource "aws_iam_role_policy" "pod" {
  # Godwit has none where it moves its database without AWS.
  for_each = { for name, statements in local.own : name => statements if length(statements) > 0 }
  name     = "own"
  role     = aws_iam_role.pod[each.key].id
  policy   = jsonencode({ Version = "2012-10-17", Statement = each.value })
}

resource "aws_eks_pod_identity_association" "this" {
  for_each        = local.bound
  cluster_name    = aws_eks_cluster.this.name
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.pod[each.key].arn
  tags            = local.tags
}
