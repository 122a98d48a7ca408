-- Whether a tenant would be left without an administrator.
CREATE INDEX tenant_user_admin_idx ON tenant_user (tenant_id, id)
    WHERE role = 'admin' AND suspended_at IS NULL AND deleted_at IS NULL;
