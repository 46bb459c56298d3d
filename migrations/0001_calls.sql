-- What remains of calls. The same text makes tables in SQLite and in Postgres: times are Unix
-- milliseconds, money is in millionths, JSON is text.

CREATE TABLE calls (
    call           TEXT   NOT NULL PRIMARY KEY,
    carrier_call   TEXT   NOT NULL UNIQUE,
    carrier        TEXT   NOT NULL,
    direction      TEXT   NOT NULL,
    tenant         TEXT,
    campaign       TEXT,
    agent          TEXT,
    -- Whole or hashed, as the settings say; and masked, for people.
    caller         TEXT,
    caller_shown   TEXT,
    called         TEXT,
    called_shown   TEXT,
    state          TEXT   NOT NULL,
    -- How far the call has come: states move to a higher one only.
    rank           BIGINT NOT NULL,
    reason         TEXT,
    blame          TEXT,
    -- Of a refused call: which cap was full, and what the caller was offered.
    scope          TEXT,
    offered        TEXT,
    metadata       TEXT,
    rang_at        BIGINT NOT NULL,
    connected_at   BIGINT,
    ended_at       BIGINT,
    -- How long its media was bridged, by a clock that nobody sets.
    talked_ms      BIGINT,
    -- Who says so: the replica that last had the call.
    replica        TEXT
);

CREATE INDEX calls_of_tenant ON calls (tenant, rang_at DESC, call DESC);
CREATE INDEX calls_of_campaign ON calls (tenant, campaign, rang_at DESC, call DESC);
CREATE INDEX calls_by_age ON calls (rang_at);
CREATE INDEX calls_of_caller ON calls (caller, rang_at DESC);
CREATE INDEX calls_of_called ON calls (called, rang_at DESC);
-- Those that are not over, for whoever looks after lost ones: there are few.
CREATE INDEX calls_open ON calls (replica) WHERE rank < 90;

CREATE TABLE steps (
    step           TEXT   NOT NULL PRIMARY KEY,
    call           TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    what           TEXT   NOT NULL,
    details        TEXT
);

CREATE INDEX steps_of_call ON steps (call, at, step);

CREATE TABLE words (
    step           TEXT   NOT NULL PRIMARY KEY,
    call           TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    who            TEXT   NOT NULL,
    text           TEXT   NOT NULL
);

CREATE INDEX words_of_call ON words (call, at, step);

-- What an agent has used up in a call.
CREATE TABLE usage (
    step           TEXT   NOT NULL PRIMARY KEY,
    call           TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    agent          TEXT   NOT NULL,
    model          TEXT,
    text_in        BIGINT NOT NULL,
    audio_in       BIGINT NOT NULL,
    cached_in      BIGINT NOT NULL,
    text_out       BIGINT NOT NULL,
    audio_out      BIGINT NOT NULL,
    seconds        BIGINT NOT NULL,
    cost_micros    BIGINT NOT NULL
);

CREATE INDEX usage_of_call ON usage (call);

CREATE TABLE recordings (
    recording      TEXT   NOT NULL PRIMARY KEY,
    call           TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    url            TEXT   NOT NULL,
    seconds        BIGINT NOT NULL
);

CREATE INDEX recordings_of_call ON recordings (call);

-- The replicas that write here. `beat` changes as long as one lives; nobody's clock is asked.
CREATE TABLE replicas (
    replica        TEXT   NOT NULL PRIMARY KEY,
    beat           BIGINT NOT NULL
);

-- What tenants are told. One row an event, written with what it tells of.
CREATE TABLE events (
    event          TEXT   NOT NULL PRIMARY KEY,
    tenant         TEXT   NOT NULL,
    kind           TEXT   NOT NULL,
    call           TEXT,
    at             BIGINT NOT NULL,
    body           TEXT   NOT NULL
);

CREATE INDEX events_of_call ON events (call);
CREATE INDEX events_by_age ON events (at);
