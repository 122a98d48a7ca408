-- The tenants' versioned documents. `epoch` is the one the version was written in: after a lost
-- write the same version can exist twice, and only the two together name one. `search` is kept by
-- the database so that no writer can forget it. No reference to `tenant`: checking it would make
-- every insert lock its tenant's one row, and the tenant comes from a key that does refer to it.
-- No fillfactor: every update changes an indexed column, so room on the page would save nothing.
CREATE TABLE item (
    tenant_id uuid NOT NULL,
    collection text NOT NULL,
    id uuid NOT NULL,
    epoch bigint NOT NULL,
    version bigint NOT NULL,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    search tsvector NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN octet_length(data::text) <= 131072
                THEN jsonb_to_tsvector('simple'::regconfig, data, '["string", "numeric"]'::jsonb)
            ELSE coalesce(item_search_long(data), ''::tsvector)
        END
    ) STORED,
    CONSTRAINT item_data_object CHECK (jsonb_typeof(data) = 'object'),
    CONSTRAINT item_version_positive CHECK (version > 0 AND epoch > 0)
);
GRANT SELECT ON item TO godwit_read, godwit_write;
GRANT INSERT, UPDATE, DELETE ON item TO godwit_write;
