-- By what calls to numbers that begin alike are counted: a keyed code, blank as `to_code` is.
ALTER TABLE outbound ADD COLUMN prefix_code TEXT NOT NULL DEFAULT '';
CREATE INDEX outbound_alike ON outbound (prefix_code, created_at);
