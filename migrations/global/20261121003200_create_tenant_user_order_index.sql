-- A tenant's users are listed in the order of their making, page by page.
CREATE INDEX tenant_user_order_idx ON tenant_user (tenant_id, id) WHERE deleted_at IS NULL;
