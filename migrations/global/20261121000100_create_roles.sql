-- Each part of the program connects with a role that can do only what that part needs. These two
-- hold the grants and cannot log in; an operator makes login roles and their passwords, and makes
-- them members. Roles belong to the whole server, so another database's migration may have made
-- them, or be making them at this moment.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['godwit_read', 'godwit_write'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;
