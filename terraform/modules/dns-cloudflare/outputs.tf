output "pools" {
  description = "The pool of each region: `enabled = false` there drains it."
  value       = { for region, pool in cloudflare_load_balancer_pool.region : region => pool.id }
}
