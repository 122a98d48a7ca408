output "name_servers" {
  description = "What the domain's registrar is to be told."
  value       = aws_route53_zone.this.name_servers
}

output "backend" {
  description = "For `terraform init -backend-config`, in every root: backend.hcl."
  value       = local.backends[var.choices.state_region]
}

output "backend_copy" {
  description = "The same for the copy of the states: backend-copy.hcl. Kept beside the first, for when this is needed nobody can be asked for it."
  value       = local.backends[var.choices.state_copy_region]
}

locals {
  backends = {
    for region, bucket in local.buckets : region => <<-EOT
      region     = "${region}"
      bucket     = "${bucket}"
      kms_key_id = "${aws_kms_key.state[region].arn}"
    EOT
  }
}

output "proofs" {
  description = "What proves the certificates, for another provider of the domain (docs/MULTI-CLOUD.md): a CNAME each."
  value       = { for name in local.proven : local.options[name][0].resource_record_name => local.options[name][0].resource_record_value }
}
