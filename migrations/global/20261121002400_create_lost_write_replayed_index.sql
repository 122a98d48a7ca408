-- Whether an item stands in a version that a replay has made.
CREATE INDEX lost_write_replayed_idx ON lost_write (tenant_id, item, became_etag)
    WHERE became = 'replayed';
