-- A tenant's credentials. Only a hash of the secret is kept: the secret has 256 random bits, so a
-- plain SHA-256 cannot be guessed back, and it can be looked up by index. Keys are revoked, never
-- deleted: the journal names them.
CREATE TABLE api_key (
    id uuid CONSTRAINT api_key_pkey PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT api_key_tenant_fkey REFERENCES tenant (id),
    name text NOT NULL,
    prefix text NOT NULL,
    secret_hash bytea NOT NULL CONSTRAINT api_key_secret_hash_key UNIQUE,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT api_key_secret_hash_length CHECK (octet_length(secret_hash) = 32),
    CONSTRAINT api_key_scopes_known CHECK (scopes <@ ARRAY['read', 'write', 'admin']),
    CONSTRAINT api_key_expires_later CHECK (expires_at > created_at)
);
GRANT SELECT ON api_key TO godwit_read, godwit_write;
GRANT INSERT, UPDATE (revoked_at) ON api_key TO godwit_write;
