-- By what calls to numbers that begin alike are counted: a keyed code, blank as `to_code` is.
ALTER TABLE outbound ADD COLUMN prefix_code TEXT NOT NULL DEFAULT '';
CREATE INDEX outbound_alike ON outbound (prefix_code, created_at);

-- Since when somebody wants it to be over, while it may ring: beside the state, which older replicas
-- read as well.
ALTER TABLE outbound ADD COLUMN called_off_at BIGINT;
