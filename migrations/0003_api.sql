-- Who may use /v1, and what they have changed.

-- The secret part of a key is kept as its SHA-256 only: it has 128 bits of chance, and nobody
-- comes from the code to it.
CREATE TABLE keys (
    key            TEXT   NOT NULL PRIMARY KEY,
    hash           TEXT   NOT NULL,
    tenant         TEXT   NOT NULL,
    name           TEXT   NOT NULL,
    -- Scopes with blanks between them.
    scopes         TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    revoked_at     BIGINT,
    used_at        BIGINT
);

CREATE INDEX keys_of_tenant ON keys (tenant, created_at);

-- Who has changed what: one row for each change.
CREATE TABLE audit (
    entry          TEXT   NOT NULL PRIMARY KEY,
    at             BIGINT NOT NULL,
    -- `key:` and the key's public part, or `operator`.
    actor          TEXT   NOT NULL,
    tenant         TEXT,
    action         TEXT   NOT NULL,
    target         TEXT   NOT NULL,
    request_id     TEXT,
    was            TEXT,
    became         TEXT
);

CREATE INDEX audit_by_age ON audit (at);
CREATE INDEX audit_of_tenant ON audit (tenant, at DESC, entry DESC);

-- What one replica at a time does now and then, and when one has last begun to.
CREATE TABLE duties (
    duty           TEXT   NOT NULL PRIMARY KEY,
    at             BIGINT NOT NULL
);
