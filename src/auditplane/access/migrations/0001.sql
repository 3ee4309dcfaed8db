-- Who may do what: accounts and their API keys.

CREATE TABLE account (
    name TEXT PRIMARY KEY,
    created_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A key is kept as its SHA-256 only: it has 256 random bits, which no guessing finds.
CREATE TABLE api_key (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    account TEXT NOT NULL REFERENCES account (name),
    role TEXT NOT NULL,
    description TEXT NOT NULL,
    envelope INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER,
    revoked_us INTEGER,
    last_used_us INTEGER
) STRICT;

-- Who is signed in to the page. A token is kept as its SHA-256 only, as a key is.
CREATE TABLE session (
    hash BLOB PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES api_key (id),
    created_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_of_key ON session (key_id, created_us);

-- Links that sign in once.
CREATE TABLE link (
    hash BLOB PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES api_key (id),
    expires_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Attempts to sign in that failed; the source is a hash of an address, or of how a key begins.
CREATE TABLE attempt (
    source BLOB NOT NULL,
    at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX attempt_of_source ON attempt (source, at_us);
CREATE INDEX attempt_at ON attempt (at_us);
