-- A tenant's people. `email` is as they wrote it, `email_folded` what makes two spellings one
-- (docs/adr/0011-users.md). `password_hash` is a PHC string of argon2id; null: no password, so nobody can sign
-- in as them. A deleted user's row stays without anything personal: whoever makes one under the same id
-- later finds it taken, and the journal's `user:<id>` still names somebody.
--
-- No role may read `password_hash` yet: signing in will be what needs it.
CREATE TABLE tenant_user (
    id uuid CONSTRAINT tenant_user_pkey PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT tenant_user_tenant_fkey REFERENCES tenant (id),
    email text,
    email_folded text,
    name text,
    role text NOT NULL,
    password_hash text,
    password_changed_at timestamptz,
    suspended_at timestamptz,
    deleted_at timestamptz,
    epoch bigint NOT NULL,
    version bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT tenant_user_role_known CHECK (role IN ('admin', 'editor', 'viewer', 'guest')),
    CONSTRAINT tenant_user_alive_is_somebody CHECK (
        deleted_at IS NOT NULL OR num_nulls(email, email_folded, name) = 0),
    CONSTRAINT tenant_user_deleted_is_nobody CHECK (
        deleted_at IS NULL
        OR num_nonnulls(email, email_folded, name, password_hash, password_changed_at) = 0),
    CONSTRAINT tenant_user_password_has_a_time CHECK (
        (password_hash IS NULL) = (password_changed_at IS NULL))
);
GRANT SELECT (id, tenant_id, email, email_folded, name, role, password_changed_at, suspended_at,
    deleted_at, epoch, version, created_at, updated_at) ON tenant_user TO godwit_read, godwit_write;
GRANT INSERT, UPDATE (email, email_folded, name, role, password_hash, password_changed_at, suspended_at,
    deleted_at, epoch, version, updated_at) ON tenant_user TO godwit_write;
