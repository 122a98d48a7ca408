-- Whether an id has a tombstone now. A statement that inserts an item sees the tombstones there were
-- when it began, but may then wait for a transaction that is deleting that very id. Called as the
-- insert returns, this looks again: a volatile function's statements see what has been committed
-- since, so that a re-created item never starts over from version 1.
CREATE FUNCTION item_deleted_meanwhile(tenant_id uuid, collection text, id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM item_tombstone AS mark
        WHERE mark.tenant_id = $1 AND mark.collection = $2 AND mark.id = $3
    );
END
$$;
