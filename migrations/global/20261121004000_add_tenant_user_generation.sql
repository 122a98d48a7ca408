-- How often all of a user's sessions have been ended. A session says in which generation it was begun: one
-- whose row comes late, from a region that was cut off, is ended already when it is of an earlier one.
-- No clock is asked.
ALTER TABLE tenant_user ADD COLUMN generation bigint NOT NULL DEFAULT 1;
GRANT SELECT (generation), UPDATE (generation) ON tenant_user TO godwit_write;
GRANT SELECT (generation) ON tenant_user TO godwit_read;
