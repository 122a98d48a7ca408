-- `filter=`: JSON containment. jsonb_path_ops is smaller and faster than the default operators, and
-- containment is all that is asked of it.
CREATE INDEX item_data_idx ON item USING gin (data jsonb_path_ops);
