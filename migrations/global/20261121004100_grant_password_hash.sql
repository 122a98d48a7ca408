-- Signing in compares a password with its hash, on the region's own replica; and a hash that was made at
-- another cost is replaced only while it is the one that was compared.
GRANT SELECT (password_hash) ON tenant_user TO godwit_read, godwit_write;
