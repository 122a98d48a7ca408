-- A primary is promoted first and its epoch written after. The timeline that an epoch began on
-- tells the two apart: an instance that writes on a later one than the newest epoch's has been
-- promoted since. Null for the epochs of which nobody knows any more.
ALTER TABLE cluster_epoch ADD COLUMN timeline integer;
UPDATE cluster_epoch
SET timeline = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer
WHERE epoch = (SELECT max(epoch) FROM cluster_epoch);
