-- Calls that we place: what was asked for, and how far it has come. The same text makes tables in
-- SQLite and in Postgres: times are Unix milliseconds, JSON is text.

CREATE TABLE outbound (
    call            TEXT   NOT NULL PRIMARY KEY,
    tenant          TEXT   NOT NULL,
    -- Who asks twice by the same key gets the first answer, if it asks for the same.
    idempotency_key TEXT   NOT NULL,
    body_hash       TEXT   NOT NULL,
    api_key         TEXT   NOT NULL,
    -- What the call is called until its carrier has a name for it, and by that.
    pending         TEXT   NOT NULL,
    carrier_call    TEXT   UNIQUE,
    campaign        TEXT   NOT NULL,
    agent           TEXT,
    -- Whole, for the carrier; blank an hour after it is over.
    to_number       TEXT   NOT NULL,
    from_number     TEXT   NOT NULL,
    request         TEXT   NOT NULL,
    -- reserving, queued, dialing, unknown, placed, answered, over.
    state           TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    -- When the carrier was last asked.
    dialed_at       BIGINT,
    -- Until when it may ring.
    rings_until     BIGINT,
    -- Which replica looks after it, and until when nobody else does.
    holder          TEXT   NOT NULL,
    held_until      BIGINT NOT NULL,
    UNIQUE (tenant, idempotency_key)
);

CREATE INDEX outbound_open ON outbound (held_until) WHERE state <> 'over';
-- Nobody is called twice at a time, whoever asks.
CREATE UNIQUE INDEX outbound_ringing ON outbound (to_number) WHERE state <> 'over';
CREATE INDEX outbound_to ON outbound (to_number, created_at);
CREATE INDEX outbound_by_age ON outbound (created_at);

-- What a tenant has used up of a day (UTC).
CREATE TABLE outbound_days (
    tenant          TEXT   NOT NULL,
    day             TEXT   NOT NULL,
    calls           BIGINT NOT NULL,
    talked_ms       BIGINT NOT NULL,
    PRIMARY KEY (tenant, day)
);
