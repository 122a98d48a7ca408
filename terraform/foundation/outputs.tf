output "name_servers" {
  description = "What the domain's registrar is to be told."
  value       = aws_route53_zone.this.name_servers
}

output "backend" {
  description = "For `terraform init -backend-config`, in every root: backend.hcl."
  value       = <<-EOT
    region     = "${var.choices.state_region}"
    bucket     = "${local.buckets[var.choices.state_region]}"
    kms_key_id = "${aws_kms_key.state[var.choices.state_region].arn}"
  EOT
}
