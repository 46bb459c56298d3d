-- What is on its way to tenants' endpoints: one row for each event and endpoint, written with the
-- event. `due_at` is when it is tried next; while a try is under way, when that one's lease lapses.
-- All times here are by the database's clock.

CREATE TABLE deliveries (
    event          TEXT   NOT NULL REFERENCES events (event) ON DELETE CASCADE,
    tenant         TEXT   NOT NULL,
    endpoint       TEXT   NOT NULL,
    -- waiting, delivered or dead
    state          TEXT   NOT NULL,
    made_at        BIGINT NOT NULL,
    due_at         BIGINT NOT NULL,
    tries          BIGINT NOT NULL,
    -- Who has the try that is under way: what another one says of it counts for nothing.
    lease          TEXT,
    last_status    BIGINT,
    last_error     TEXT,
    ended_at       BIGINT,
    PRIMARY KEY (event, endpoint)
);

CREATE INDEX deliveries_due ON deliveries (tenant, endpoint, due_at) WHERE state = 'waiting';
CREATE INDEX deliveries_open ON deliveries (tenant, endpoint, state, made_at)
    WHERE state <> 'delivered';
CREATE INDEX deliveries_dead ON deliveries (tenant, ended_at DESC, event DESC, endpoint DESC)
    WHERE state = 'dead';
