-- The mark of a deleted item. An id created again goes on from the deleted version, so that an old
-- If-Match cannot fit the new item. Purged by age.
CREATE TABLE item_tombstone (
    tenant_id uuid NOT NULL,
    collection text NOT NULL,
    id uuid NOT NULL,
    epoch bigint NOT NULL,
    version bigint NOT NULL,
    deleted_at timestamptz NOT NULL,
    CONSTRAINT item_tombstone_pkey PRIMARY KEY (tenant_id, collection, id)
);
GRANT SELECT ON item_tombstone TO godwit_read, godwit_write;
GRANT INSERT, UPDATE, DELETE ON item_tombstone TO godwit_write;
