-- A tenant's keys are listed in the order of their making, page by page.
CREATE INDEX api_key_tenant_idx ON api_key (tenant_id, id);
