# The region's two ways in. Made here and not by an Ingress, so that names and health checks know them before anything is
# installed, and a cluster can be replaced behind them. Pods come into the target groups by TargetGroupBinding.

locals {
  balancers = {
    # Network balancers: Godwit counts a client's requests by the address that connects, and believes a proxy's word
    # only from networks that nothing but proxies connects from (limits.trusted_proxies), which an application balancer's are not.
    public = {
      internal = false
      subnets  = var.public_subnet_ids
      listen   = 443
      port     = var.ports.public
      from     = { world = "0.0.0.0/0" }
    }
    # Passed through as it is: the two ends prove themselves to each other.
    internal = {
      internal = true
      subnets  = var.private_subnet_ids
      listen   = var.ports.internal
      port     = var.ports.internal
      # The own network too: a process may be sent its own region's address.
      from = var.networks
    }
  }
  built = merge(
    local.balancers,
    # A second release's pods, which DNS sends a share to: a way in of its own, like the public one in all.
    var.canary ? { canary = local.balancers.public } : {},
  )
}

resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_150:All have it but that of a release on trial, which is taken down again.
  #checkov:skip=CKV_AWS_91:Godwit logs each request itself, with its tenant, its route and its decision; the balancer knows less.

  for_each = local.built
  # terraform/global finds it by this name.
  name                             = "${var.name}-${each.key}"
  load_balancer_type               = "network"
  internal                         = each.value.internal
  subnets                          = each.value.subnets
  security_groups                  = [aws_security_group.balancer[each.key].id]
  enable_cross_zone_load_balancing = true
  # A release on trial is taken down again.
  enable_deletion_protection = each.key != "canary"
  tags                       = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_lb_target_group" "this" {
  for_each    = local.built
  name        = "${var.name}-${each.key}"
  vpc_id      = var.vpc_id
  target_type = "ip"
  protocol    = "TCP"
  port        = each.value.port
  # The client's own address, for Godwit's limits. Between regions a signed envelope says it.
  preserve_client_ip = each.value.internal ? "false" : "true"
  # Longer than server.drain_seconds_max: what is in flight ends first.
  deregistration_delay = 30
  tags                 = merge(local.tags, { Name = "${var.name}-${each.key}" })

  health_check {
    # Without a certificate of a peer nothing can be asked on the internal listener: that it takes connections must do. Its Service has
    # the pods that are not ready too.
    protocol            = each.value.internal ? "TCP" : "HTTP"
    path                = each.value.internal ? null : "/api/health/readiness"
    matcher             = each.value.internal ? null : "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "this" {
  #checkov:skip=CKV_AWS_2:A network balancer: TLS at the public one, and at the internal one mutual TLS that the processes end themselves.
  #checkov:skip=CKV_AWS_103:The public one has a policy of TLS 1.2 and 1.3; the internal one passes TLS through.

  for_each          = local.built
  load_balancer_arn = aws_lb.this[each.key].arn
  port              = each.value.listen
  protocol          = each.value.internal ? "TCP" : "TLS"
  certificate_arn   = each.value.internal ? null : var.certificate_arn
  ssl_policy        = each.value.internal ? null : "ELBSecurityPolicy-TLS13-1-2-2021-06"
  alpn_policy       = each.value.internal ? null : "HTTP1Only"
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this[each.key].arn
  }
}

resource "aws_security_group" "balancer" {
  for_each    = local.built
  name        = "${var.name}-${each.key}"
  description = "The ${each.key} balancer."
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each = {
    for rule in flatten([
      for name, balancer in local.built : [
        for who, cidr in balancer.from : { name = name, who = who, cidr = cidr, port = balancer.listen }
      ]
    ]) : "${rule.name}/${rule.who}" => rule
  }
  security_group_id = aws_security_group.balancer[each.value.name].id
  description       = "From ${each.value.who}."
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  for_each                     = local.built
  security_group_id            = aws_security_group.balancer[each.key].id
  description                  = "To the pods."
  referenced_security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "pods" {
  for_each                     = local.built
  security_group_id            = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  description                  = "From the ${each.key} balancer."
  referenced_security_group_id = aws_security_group.balancer[each.key].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = local.tags
}
