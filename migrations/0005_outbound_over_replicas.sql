-- What replicas know of placed calls together, beside the calls themselves.

-- By what calls to one number are counted once the number itself is gone: a keyed code, which is
-- blank an hour after the call was asked for. Numbers are blank as soon as a call is over.
ALTER TABLE outbound ADD COLUMN to_code TEXT NOT NULL DEFAULT '';

DROP INDEX outbound_to;
CREATE INDEX outbound_to ON outbound (to_code, created_at);
CREATE INDEX outbound_of_key ON outbound (api_key, created_at);

-- Looked at every few seconds by every replica: those that are not over, by who looks after them,
-- and those whose number is still to be forgotten.
CREATE INDEX outbound_of_holder ON outbound (holder) WHERE state <> 'over';
CREATE INDEX outbound_coded ON outbound (created_at) WHERE state = 'over' AND to_code <> '';

-- When each carrier may next be asked for a call, by the database's clock.
CREATE TABLE outbound_turns (
    carrier         TEXT   NOT NULL PRIMARY KEY,
    next_at         BIGINT NOT NULL
);
