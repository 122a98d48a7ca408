-- The purge looks for the oldest marks.
CREATE INDEX item_tombstone_deleted_idx ON item_tombstone (deleted_at);
