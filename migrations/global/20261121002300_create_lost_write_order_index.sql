-- Lost writes are carried out again in the order in which they had been committed.
CREATE INDEX lost_write_order_idx ON lost_write (epoch, committed_at, tenant_id, key);
