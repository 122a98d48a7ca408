-- What each committed write did, written in the write's own transaction: it makes a retry
-- exactly-once across failovers, answers "what became of my write?", and after an asynchronous
-- failover it is the list of what was lost. A refused write leaves no row, so its key is free.
-- `body` is the JSON that was answered, as text: what is replayed is what was said.
CREATE TABLE write_journal (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    actor text NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    request_digest bytea NOT NULL,
    status smallint NOT NULL,
    etag text,
    location text,
    body text,
    version bigint,
    epoch bigint NOT NULL,
    committed_at timestamptz NOT NULL,
    CONSTRAINT write_journal_pkey PRIMARY KEY (tenant_id, key),
    CONSTRAINT write_journal_digest_length CHECK (octet_length(request_digest) = 32)
);
GRANT SELECT ON write_journal TO godwit_read, godwit_write;
GRANT INSERT, DELETE ON write_journal TO godwit_write;
