-- An e-mail address is one person's within a tenant; a deleted one's is free again.
CREATE UNIQUE INDEX tenant_user_email_key ON tenant_user (tenant_id, email_folded)
    WHERE deleted_at IS NULL;
