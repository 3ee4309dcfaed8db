-- The log of one account.

-- Where the log stands. `low` and `high` bound every key ever used; `overflow_us` is how far an event's key
-- lies beyond its timestamp at the most; `sealed` is how many events have left the tail; `crowded` tells that
-- some of them needed a wide row of `term`; `tiled` is how many entries stand in full tiles; `secret` keys
-- the tokens, so that they tell nothing of the texts they are made from. Events with an index below `expired`
-- that no hold keeps are not shown any more; those below `purged` are destroyed, too. No event that is stored and
-- has expired has a key above `expired_high`, none that a purge destroyed has one above `purged_high`. `markings` is how often entries were marked as those of
-- events that are gone; `wal_due` tells that the write-ahead log may hold what was destroyed. `retention_days` is how long events are kept, 0 for ever, null as the server
-- is set.
CREATE TABLE log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    live INTEGER NOT NULL,
    newest_us INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    overflow_us INTEGER NOT NULL,
    sealed INTEGER NOT NULL,
    crowded INTEGER NOT NULL,
    tiled INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    purged INTEGER NOT NULL,
    expired_high INTEGER NOT NULL,
    purged_high INTEGER NOT NULL,
    markings INTEGER NOT NULL,
    wal_due INTEGER NOT NULL,
    retention_days INTEGER,
    secret BLOB NOT NULL
) STRICT;
INSERT INTO log VALUES (1, 0, 0, 0, 0, 9223372036854775807, -1, 0, 0, 0, 0, 0, 0, -1, -1, 0, 0, NULL, randomblob(32));

-- The newest events, one row each.
CREATE TABLE tail (
    key INTEGER PRIMARY KEY,
    idx INTEGER NOT NULL,
    doc BLOB NOT NULL,
    stamp BLOB NOT NULL
) STRICT;

-- What the log commits to, by index: keys and 32-byte hashes of the entries from `first` on. One row a
-- commit, later repacked into rows of 1,024. In place of the key of an event that is gone stands -1.
CREATE TABLE entry (
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    keys BLOB NOT NULL,
    hashes BLOB NOT NULL
) STRICT;

-- The Merkle tree over the entries: number `n` of the hashes of level `level` of C2SP tlog-tiles, from level 1
-- on, each over 256 of the level below. Those of the newest entries are missing until upkeep adds them.
CREATE TABLE node (
    level INTEGER NOT NULL,
    n INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (level, n)
) STRICT, WITHOUT ROWID;

-- The newest checkpoint, stored before anybody sees it: a signed note (C2SP tlog-checkpoint).
CREATE TABLE checkpoint (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    at_us INTEGER NOT NULL,
    note BLOB NOT NULL
) STRICT;

-- Stands from when the log was restored from a backup until its operator confirms it: nothing is signed
-- meanwhile. `key` is the verifier key that the log had in the backup, or empty.
CREATE TABLE restored (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at_us INTEGER NOT NULL,
    backup_us INTEGER NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    key TEXT NOT NULL
) STRICT;

-- Sealed events: up to 1,024 neighbours in key order. The blocks of one run don't overlap. `first_index` is
-- the least index and `last_index` the greatest; `guarded` tells that the CSV holds cells which the formula guard changed.
CREATE TABLE block (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first_index INTEGER NOT NULL,
    last_index INTEGER NOT NULL,
    guarded INTEGER NOT NULL,
    docs_bytes INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX block_order ON block (run, low);
-- zstd of keys (i64, ascending) and of indexes (i64, in the order of the keys).
CREATE TABLE block_keys (id INTEGER PRIMARY KEY, keys BLOB NOT NULL, indexes BLOB NOT NULL) STRICT;
-- Lines stand newest first. Docs are in zstd frames of 32 lines, whose id is 512 times that of the block and
-- their number in it; CSV and stamps are in one frame.
CREATE TABLE frame (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE block_csv (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE block_stamps (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;

-- Ids that callers gave; those made here hold their key.
CREATE TABLE given (id BLOB PRIMARY KEY, key INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Events that were erased: their ids can't be recorded again.
CREATE TABLE erased (
    id BLOB PRIMARY KEY, idx INTEGER NOT NULL, at_us INTEGER NOT NULL, reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The indexes of events that say why others are gone: they don't expire.
CREATE TABLE told (idx INTEGER PRIMARY KEY) STRICT;

-- The legal holds that are in force. Null is any user, or no bound.
CREATE TABLE hold (
    id TEXT PRIMARY KEY,
    placed_us INTEGER NOT NULL,
    placed_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    user TEXT,
    min_us INTEGER,
    max_us INTEGER
) STRICT, WITHOUT ROWID;

-- The purge that is under way: it destroys what has expired with an index below `target`. `id` is that of the
-- event that will tell of it; `tail_key`, `block_id`, `piece_id` and `marked` are how far it came in the tail, the blocks, the pieces and the entries; `count`,
-- `low` and `high` are the number and the bounds of the keys of what is destroyed so far; `giving_back` is how far
-- the room of their terms is given back (see forgetting.py).
CREATE TABLE purge (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    target INTEGER NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    tail_key INTEGER NOT NULL,
    block_id INTEGER NOT NULL,
    marked INTEGER NOT NULL,
    count INTEGER NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    giving_back INTEGER NOT NULL,
    piece_id INTEGER NOT NULL
) STRICT;

-- Exact values of sealed events (rowid: see postings.py); words of blocks, rowid = the id of the block.
CREATE VIRTUAL TABLE term USING fts5 (tokens, content = '', columnsize = 0, detail = 'none', tokenize = 'ascii');
CREATE VIRTUAL TABLE word USING fts5 (tokens, content = '', columnsize = 0, detail = 'none', tokenize = 'ascii');

-- What sealed events are counted by (see columns.py): pieces of up to 65,536 of them, each event in one. Times
-- are microseconds since 1970; `first_index` is the least index and `last_index` the greatest.
CREATE TABLE piece (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    count INTEGER NOT NULL,
    low_us INTEGER NOT NULL,
    high_us INTEGER NOT NULL,
    first_index INTEGER NOT NULL,
    last_index INTEGER NOT NULL
) STRICT;
-- The columns of pieces; the id is 16 times that of the piece and the number of the column.
CREATE TABLE piece_column (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
-- The values in the pieces, and how many of their events have each (see values.py).
CREATE TABLE value (
    id INTEGER PRIMARY KEY, member INTEGER NOT NULL, text TEXT NOT NULL, folded TEXT NOT NULL
) STRICT;
CREATE INDEX value_found ON value (member, folded);
CREATE TABLE tally (id INTEGER PRIMARY KEY, count INTEGER NOT NULL) STRICT;
-- Indexes from `first` to `last` of events that the purge under way has destroyed and that still are in pieces.
CREATE TABLE destroyed (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, indexes BLOB NOT NULL
) STRICT;
