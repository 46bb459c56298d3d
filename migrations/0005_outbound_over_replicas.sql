-- What replicas know of placed calls together, beside the calls themselves.

-- By what calls to one number are counted once the number itself is gone: a keyed code, which is
-- blank an hour after the call was asked for. Numbers are blank as soon as a call is over.
ALTER TABLE outbound ADD COLUMN to_code TEXT NOT NULL DEFAULT '';

DROP INDEX outbound_to;
CREATE INDEX outbound_to ON outbound (to_code, created_at);
CREATE INDEX outbound_of_key ON outbound (api_key, created_at);

-- When each carrier may next be asked for a call, by the database's clock.
CREATE TABLE outbound_turns (
    carrier         TEXT   NOT NULL PRIMARY KEY,
    next_at         BIGINT NOT NULL
);
