-- The primary key, after the other indexes that begin with tenant and collection. While a table has
-- no statistics, or those of many small collections, the planner thinks all of them equally good at
-- finding one item, and of equals it takes the newest: with the key made first it read a whole
-- collection to find one item in it.
ALTER TABLE item ADD CONSTRAINT item_pkey PRIMARY KEY (tenant_id, collection, id);
