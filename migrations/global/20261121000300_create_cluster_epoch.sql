-- One row for each primary's reign. A bookmark of an older epoch whose position lies beyond the
-- next epoch's start names a write that a failover lost. The first row is inserted by `godwit
-- migrate`, each later one by a promotion, which connects as the owner: no serving role writes
-- here. Integers, not a sequence: a standby's sequences run ahead, and lost numbers come twice.
CREATE TABLE cluster_epoch (
    epoch bigint CONSTRAINT cluster_epoch_pkey PRIMARY KEY,
    start_lsn pg_lsn NOT NULL,
    region text NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT cluster_epoch_positive CHECK (epoch > 0 AND epoch <= 4294967295)
);
GRANT SELECT ON cluster_epoch TO godwit_read, godwit_write;
