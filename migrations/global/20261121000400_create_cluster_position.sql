-- How far this database has come, as one row (epoch, lsn), for every statement that reads to
-- return beside its rows. Evaluated after the statement's snapshot was taken, so it never names
-- less than what the statement saw. A replica has come as far as it has replayed. A primary has
-- come as far as it has flushed: the insert position can point past a page header that no replica
-- replays until more is written.
CREATE VIEW cluster_position AS
SELECT
    last.epoch,
    CASE
        WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0'::pg_lsn)
        ELSE pg_current_wal_flush_lsn()
    END AS lsn
FROM (SELECT epoch FROM cluster_epoch ORDER BY epoch DESC LIMIT 1) AS last;
GRANT SELECT ON cluster_position TO godwit_read, godwit_write;
