-- What a failover lost: writes that an old primary had committed and no other region had got, found
-- in its journal when it came back. Kept where the new primary is, because rejoining erases them
-- there. A key can be lost once in each epoch. `item` is `<collection>/<id>` of a write of one item.
-- `became` is null until something was made of it: carried out again by an operator (`replayed`,
-- with the tag it then made), sent again by its client (`repeated`), or not to be carried out as
-- things are (`conflict`, and why).
CREATE TABLE lost_write (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    epoch bigint NOT NULL,
    actor text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    request_digest bytea NOT NULL,
    status smallint NOT NULL,
    etag text,
    location text,
    body text,
    version bigint,
    item text,
    committed_at timestamptz NOT NULL,
    found_at timestamptz NOT NULL,
    found_in bigint NOT NULL,
    became text,
    became_at timestamptz,
    became_etag text,
    reason text,
    CONSTRAINT lost_write_pkey PRIMARY KEY (tenant_id, key, epoch),
    CONSTRAINT lost_write_digest_length CHECK (octet_length(request_digest) = 32),
    CONSTRAINT lost_write_became_known CHECK (became IN ('replayed', 'repeated', 'conflict')),
    CONSTRAINT lost_write_became_when CHECK ((became IS NULL) = (became_at IS NULL)),
    CONSTRAINT lost_write_conflict_why CHECK ((became = 'conflict') = (reason IS NOT NULL))
);
GRANT SELECT ON lost_write TO godwit_read, godwit_write, godwit_failover;
GRANT INSERT, DELETE, UPDATE (became, became_at, became_etag, reason) ON lost_write TO godwit_write;
