-- The search vector of a document too long to be searched whole. A tsvector holds at most 1 MiB,
-- and a text of many short words makes a vector larger than itself, so an item well within the
-- 1 MiB that the API accepts could be refused by the index. Of such a document the first 128 KiB
-- of its strings and numbers can be found.
CREATE FUNCTION item_search_long(data jsonb) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN to_tsvector(
    'simple'::regconfig,
    (
        SELECT left(string_agg(part #>> '{}', ' '), 131072)
        FROM jsonb_path_query(data, 'strict $.** ? (@.type() == "string" || @.type() == "number")')
            AS part
    )
);
