-- Moving the primary is a part of the program of its own: it fences, promotes and re-points
-- instances, which no serving role may, and writes no data but the epoch that it begins. It reads
-- what a failover could lose. What it may do to the server itself (promote, set parameters, keep
-- slots) is the operator's to grant to the login role: the schema's owner has not got it to give.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'godwit_failover') THEN
        BEGIN
            CREATE ROLE godwit_failover NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            -- Roles belong to the whole server: another database's migration made it just now.
            NULL;
        END;
    END IF;
END
$$;
GRANT SELECT ON cluster_epoch, cluster_position, tenant, write_journal, _sqlx_migrations
    TO godwit_failover;
GRANT INSERT ON cluster_epoch TO godwit_failover;
