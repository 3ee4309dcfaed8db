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
