-- The directory of sessions: who is signed in, from where, and what was ended. A session lives in the Redis
-- of the region that began it; its row lets every region know it, and end it, when that Redis is gone. Of
-- the token only SHA-256 is here. Rows are never undone: `ended_at` is set once, and a row that comes after
-- its own end changes nothing.
--
-- `changed` is the transaction that ended the session or changed what it may do, and null until then: every
-- region reads the changes of its own replica by it, in the order of commits.
CREATE TABLE user_session (
    id uuid CONSTRAINT user_session_pkey PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT user_session_tenant_fkey REFERENCES tenant (id),
    user_id uuid NOT NULL CONSTRAINT user_session_user_fkey REFERENCES tenant_user (id),
    token_hash bytea NOT NULL CONSTRAINT user_session_token_hash_key UNIQUE,
    region text NOT NULL,
    device text NOT NULL,
    address text NOT NULL,
    generation bigint NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    seen_in text NOT NULL,
    ended_at timestamptz,
    changed xid8,
    CONSTRAINT user_session_token_hash_whole CHECK (octet_length(token_hash) = 32),
    CONSTRAINT user_session_end_is_a_change CHECK (ended_at IS NULL OR changed IS NOT NULL)
);
GRANT SELECT ON user_session TO godwit_read, godwit_write;
GRANT INSERT, DELETE, UPDATE (device, address, generation, seen_at, seen_in, ended_at, changed)
    ON user_session TO godwit_write;
