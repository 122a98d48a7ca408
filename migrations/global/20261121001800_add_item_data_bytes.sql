-- The length of a document as text, as an answer carries it. A page of a list ends by bytes; without
-- this, whoever counts them must fetch and render each document that the page then leaves out. The
-- stored size would not do: it is of the compressed form. Adding it rewrites the table.
ALTER TABLE item
    ADD COLUMN data_bytes integer NOT NULL GENERATED ALWAYS AS (octet_length(data::text)) STORED;
