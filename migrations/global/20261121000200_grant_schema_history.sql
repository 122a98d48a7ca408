-- `serve` compares the migrations it was built with to those applied here, and refuses an old
-- schema, so it must be able to read which were.
GRANT SELECT ON _sqlx_migrations TO godwit_read, godwit_write;
