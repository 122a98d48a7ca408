-- The transaction that began the epoch. Whoever follows changes by their transactions has to go back to it
-- when an epoch begins: on a database that was rewound the numbers of later transactions come again. Null:
-- begun before there was this column, and before there was anything to follow by it. The default also
-- fills it for a version that does not know the column.
SET lock_timeout = '2s';
ALTER TABLE cluster_epoch ADD COLUMN first_xid xid8;
ALTER TABLE cluster_epoch ALTER COLUMN first_xid SET DEFAULT pg_current_xact_id();
