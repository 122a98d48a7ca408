-- Listing by time of change, page by page, without sorting a collection.
CREATE INDEX item_updated_idx ON item (tenant_id, collection, updated_at, id);
