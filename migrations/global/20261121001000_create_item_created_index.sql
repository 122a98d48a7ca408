-- Listing by creation time, page by page, without sorting a collection.
CREATE INDEX item_created_idx ON item (tenant_id, collection, created_at, id);
