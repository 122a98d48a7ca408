-- The regions whose majority grants an epoch its lease are part of the epoch: taking a region out that
-- is gone for good, or in that is new, is a new epoch, so that no two of them count differently. Null
-- for epochs that were begun before this: every region of the settings.
ALTER TABLE cluster_epoch ADD COLUMN members text[]
    CONSTRAINT cluster_epoch_members_some CHECK (cardinality(members) > 0);
