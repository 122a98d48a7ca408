-- The purge looks for the oldest rows; the list of what a failover lost looks for the newest.
CREATE INDEX write_journal_committed_idx ON write_journal (committed_at);
