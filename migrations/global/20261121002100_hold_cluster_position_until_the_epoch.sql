-- What a promoted instance writes before its epoch is there lies beyond that epoch's start. Told as
-- a position of the old epoch it would later be taken for a write that the failover lost. So until
-- the new epoch is written the instance is where it had replayed to when it was promoted. A null
-- timeline tells nothing, and what is flushed counts as before.
CREATE OR REPLACE VIEW cluster_position AS
SELECT
    last.epoch,
    CASE
        WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0'::pg_lsn)
        WHEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer
            > last.timeline
            THEN least(coalesce(pg_last_wal_replay_lsn(), '0/0'::pg_lsn), pg_current_wal_flush_lsn())
        ELSE pg_current_wal_flush_lsn()
    END AS lsn
FROM (SELECT epoch, timeline FROM cluster_epoch ORDER BY epoch DESC LIMIT 1) AS last;
