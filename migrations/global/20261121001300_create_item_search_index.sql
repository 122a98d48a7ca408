-- `q=`: full-text search.
CREATE INDEX item_search_idx ON item USING gin (search);
