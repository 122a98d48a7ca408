-- Whose data it is. Every other row of the product belongs to one tenant.
CREATE TABLE tenant (
    id uuid CONSTRAINT tenant_pkey PRIMARY KEY,
    name text NOT NULL CONSTRAINT tenant_name_key UNIQUE,
    created_at timestamptz NOT NULL
);
GRANT SELECT ON tenant TO godwit_read, godwit_write;
GRANT INSERT ON tenant TO godwit_write;
