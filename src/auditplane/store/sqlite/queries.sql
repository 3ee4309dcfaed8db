-- name: state
SELECT size, newest_us, at_us, low, high, overflow_us, sealed FROM log;
-- name: size
SELECT size, overflow_us FROM log;
-- name: sealed
SELECT size, sealed FROM log;
-- name: live
SELECT live FROM log;
-- name: shown
SELECT size, purged, expired, expired_high FROM log;
-- name: told_between
SELECT idx FROM told WHERE idx >= ? AND idx < ?;
-- name: add_told
INSERT INTO told (idx) VALUES (?);
-- name: expired
SELECT expired FROM log;
-- name: holds
SELECT id, placed_us, placed_by, reason, user, min_us, max_us FROM hold ORDER BY id;
-- name: secret
SELECT secret FROM log;
-- name: set_state
UPDATE log SET live = live + ?1 - size, size = ?1, newest_us = ?2, at_us = ?3, low = ?4, high = ?5, overflow_us = ?6;

-- name: add_tail
INSERT INTO tail (key, idx, doc, stamp) VALUES (?, ?, ?, ?);
-- name: add_entries
INSERT INTO entry (first, count, keys, hashes) VALUES (?, ?, ?, ?);
-- name: add_given
INSERT OR REPLACE INTO given (id, key) VALUES (?, ?);

-- name: erasure
SELECT at_us, reason FROM erased WHERE id = ?;
-- name: gone_high
SELECT max(expired_high, purged_high) FROM log;
-- name: given_key
SELECT key FROM given WHERE id = ?;
-- name: tail_at
SELECT idx, doc, stamp FROM tail WHERE key = ?;
-- name: tail_top
SELECT key FROM tail WHERE key >= ?1 AND key < ?2 ORDER BY key DESC LIMIT 1;
-- name: tail_keys
SELECT key, idx FROM tail;
-- name: tail_from
SELECT key, idx, doc FROM tail WHERE idx >= ? ORDER BY key;
-- name: tail_low
SELECT min(key) FROM tail;
-- name: tail_desc
SELECT key, idx, doc FROM tail WHERE key >= ?1 AND key <= ?2 ORDER BY key DESC LIMIT ?3;
-- name: tail_asc
SELECT key, idx, doc FROM tail WHERE key >= ?1 AND key <= ?2 ORDER BY key LIMIT ?3;

-- name: runs
WITH RECURSIVE found (run) AS (
    SELECT min(run) FROM block
    UNION ALL
    SELECT (SELECT min(run) FROM block WHERE run > found.run) FROM found WHERE found.run IS NOT NULL
)
SELECT run FROM found WHERE run IS NOT NULL;
-- name: block_below
SELECT id, run, low, high, count, first_index, last_index, guarded, docs_bytes
FROM block WHERE run = ?1 AND low <= ?2 ORDER BY low DESC LIMIT 1;
-- name: straddling
WITH RECURSIVE found (run) AS (
    SELECT min(run) FROM block
    UNION ALL
    SELECT (SELECT min(run) FROM block WHERE run > found.run) FROM found WHERE found.run IS NOT NULL
)
SELECT block.id, block.run, low, high, count, first_index, last_index, guarded, docs_bytes
FROM found CROSS JOIN block ON block.id = (
    SELECT below.id FROM block AS below WHERE below.run = found.run AND below.low <= ?2 ORDER BY below.low DESC LIMIT 1
)
WHERE high >= ?1;
-- name: blocks_desc
SELECT id, run, low, high, count, first_index, last_index, guarded, docs_bytes
FROM block WHERE run = ?1 AND low >= ?2 AND low <= ?3 ORDER BY low DESC LIMIT ?4;
-- name: blocks_asc
SELECT id, run, low, high, count, first_index, last_index, guarded, docs_bytes
FROM block WHERE run = ?1 AND low >= ?2 AND low <= ?3 ORDER BY low LIMIT ?4;
-- name: block_keys
SELECT keys FROM block_keys WHERE id = ?;
-- name: block_indexes
SELECT indexes FROM block_keys WHERE id = ?;
-- name: frames
SELECT data FROM frame WHERE id >= ? AND id < ? ORDER BY id;
-- name: frames_in
SELECT id, data FROM frame WHERE id IN (SELECT value FROM json_each(?));
-- name: blocks_of
SELECT value, block.id, run, low, high, count, first_index, last_index, guarded, docs_bytes
FROM json_each(?1) CROSS JOIN block ON block.id = (
    SELECT below.id FROM block AS below WHERE below.run = ?2 AND below.low <= value ORDER BY below.low DESC LIMIT 1
)
WHERE high >= value;
-- name: csv_in
SELECT id, data FROM block_csv WHERE id IN (SELECT value FROM json_each(?));
-- name: blocks_in
SELECT id, run, low, high, count, first_index, last_index, guarded, docs_bytes
FROM block WHERE id IN (SELECT value FROM json_each(?));
-- name: block_stamps
SELECT data FROM block_stamps WHERE id = ?;

-- name: term_desc
SELECT rowid FROM term WHERE term MATCH ?1 AND rowid >= ?2 AND rowid <= ?3 ORDER BY rowid DESC LIMIT ?4;
-- name: term_asc
SELECT rowid FROM term WHERE term MATCH ?1 AND rowid >= ?2 AND rowid <= ?3 ORDER BY rowid LIMIT ?4;
-- name: term_count
SELECT count(*) FROM term WHERE term MATCH ?1 AND rowid >= ?2 AND rowid <= ?3;
-- name: crowded
SELECT crowded FROM log;
-- name: word_rows
SELECT rowid FROM word WHERE word MATCH ?1 AND rowid >= ?2 AND rowid <= ?3;
-- name: word_few
SELECT rowid FROM word WHERE word MATCH ?1 LIMIT ?2;

-- name: entries_from
SELECT first, count, keys FROM entry
WHERE first >= (SELECT coalesce(max(first), 0) FROM entry WHERE first <= ?1) ORDER BY first LIMIT ?2;

-- name: tail_holds
SELECT 1 FROM tail LIMIT 1 OFFSET ?;
-- name: seal_rows
SELECT key, idx, doc, stamp FROM tail ORDER BY key LIMIT ?;
-- name: unseal
DELETE FROM tail WHERE key >= ?1 AND key <= ?2 AND idx < ?3;
-- name: set_sealed
UPDATE log SET sealed = sealed + ?1, crowded = crowded OR ?2;
-- name: add_term
INSERT INTO term (rowid, tokens) VALUES (?, ?);
-- name: add_block
INSERT INTO block (run, low, high, count, first_index, last_index, guarded, docs_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?);
-- name: add_block_keys
INSERT INTO block_keys (id, keys, indexes) VALUES (?, ?, ?);
-- name: add_frame
INSERT INTO frame (id, data) VALUES (?, ?);
-- name: add_block_csv
INSERT INTO block_csv (id, data) VALUES (?, ?);
-- name: add_block_stamps
INSERT INTO block_stamps (id, data) VALUES (?, ?);
-- name: add_word
INSERT INTO word (rowid, tokens) VALUES (?, ?);
-- name: drop_word
INSERT INTO word (word, rowid, tokens) VALUES ('delete', ?, ?);
-- name: drop_block
DELETE FROM block WHERE id = ?;
-- name: drop_block_keys
DELETE FROM block_keys WHERE id = ?;
-- name: drop_frames
DELETE FROM frame WHERE id >= ? AND id < ?;
-- name: drop_block_csv
DELETE FROM block_csv WHERE id = ?;
-- name: drop_block_stamps
DELETE FROM block_stamps WHERE id = ?;
-- name: has_block
SELECT 1 FROM block WHERE id = ?;
-- name: run_sizes
SELECT run, count(*) FROM block GROUP BY run;
-- name: run_first
SELECT id, run, low, high, count, first_index, last_index, guarded, docs_bytes
FROM block WHERE run = ?1 ORDER BY low LIMIT 1;

-- name: retention_days
SELECT retention_days FROM log;
-- name: set_retention_days
UPDATE log SET retention_days = ?;
-- name: set_expired
UPDATE log SET expired = max(expired, ?1), expired_high = max(expired_high, ?2);
-- name: add_hold
INSERT INTO hold (id, placed_us, placed_by, reason, user, min_us, max_us) VALUES (?, ?, ?, ?, ?, ?, ?);
-- name: drop_hold
DELETE FROM hold WHERE id = ?;
-- name: purge_all_again
UPDATE log SET purged = 0, expired_high = iif(expired > 0, high, expired_high);
-- name: purge
SELECT id, target, size, root, tail_key, block_id, piece_id, marked, count, low, high, giving_back FROM purge;
-- name: begin_purge
INSERT INTO purge (one, id, target, size, root, tail_key, block_id, marked, count, low, high, giving_back,
    piece_id)
VALUES (1, ?, ?, ?, ?, -1, 0, ?, 0, 9223372036854775807, -1, 0, 0);
-- name: purge_went_on
UPDATE purge SET tail_key = ?1, block_id = ?2, piece_id = ?3, marked = ?4, count = count + ?5, low = min(low, ?6),
    high = max(high, ?7);
-- name: purge_again
UPDATE purge SET tail_key = -1, block_id = 0, piece_id = 0, marked = 0;
-- name: set_giving_back
UPDATE purge SET giving_back = ?;
-- name: block_ids
SELECT id FROM block ORDER BY id;
-- name: set_terms_aside
ALTER TABLE term RENAME TO old_term;
-- name: make_terms
CREATE VIRTUAL TABLE term USING fts5 (tokens, content = '', columnsize = 0, detail = 'none', tokenize = 'ascii');
-- name: drop_some_old_terms
DELETE FROM old_term_data WHERE id IN (SELECT id FROM old_term_data LIMIT ?);
-- name: drop_old_terms
DROP TABLE old_term;
-- name: merge_terms
INSERT INTO term (term, rank) VALUES ('merge', ?);
-- name: count_marking
UPDATE log SET markings = markings + 1;
-- name: wal_due
SELECT wal_due FROM log;
-- name: set_wal_due
UPDATE log SET wal_due = ?;
-- name: markings
SELECT markings FROM log;
-- name: end_purge
DELETE FROM purge;
-- name: set_purged
UPDATE log SET purged = ?1, purged_high = max(purged_high, ?2), expired_high = iif(expired = ?1, -1, expired_high);
-- name: tail_to_purge
SELECT key, idx, doc, stamp FROM tail WHERE key > ?1 AND idx < ?2 ORDER BY key LIMIT ?3;
-- name: blocks_to_purge
SELECT id, run, low, high, count, first_index, last_index, guarded, docs_bytes
FROM block WHERE id > ?1 AND first_index < ?2 ORDER BY id LIMIT ?3;
-- name: left_in_tail
SELECT idx FROM tail WHERE idx >= ?1 AND idx < ?2;
-- name: left_in_blocks
SELECT id FROM block WHERE first_index < ?2 AND last_index >= ?1;
-- name: drop_tail
DELETE FROM tail WHERE key = ? AND idx = ?;
-- name: has_given
SELECT 1 FROM given LIMIT 1;
-- name: drop_given
DELETE FROM given WHERE id = ? AND key = ?;
-- name: drop_term
INSERT INTO term (term, rowid, tokens) VALUES ('delete', ?, ?);
-- name: delete_words_securely
INSERT INTO word (word, rank) VALUES ('secure-delete', ?);
-- name: delete_terms_securely
INSERT INTO term (term, rank) VALUES ('secure-delete', ?);
-- name: add_live
UPDATE log SET live = live + ?;
-- name: add_erased
INSERT OR REPLACE INTO erased (id, idx, at_us, reason) VALUES (?, ?, ?, ?);
-- name: entry_row
SELECT first, keys FROM entry WHERE first = (SELECT max(first) FROM entry WHERE first <= ?);
-- name: set_entry_keys
UPDATE entry SET keys = ?2 WHERE first = ?1;
-- name: give_back
PRAGMA incremental_vacuum(512);
-- name: freed
SELECT freelist_count, page_count FROM pragma_freelist_count, pragma_page_count;

-- name: tiled
SELECT tiled FROM log;
-- name: not_tiled
SELECT size - tiled FROM log;
-- name: set_tiled
UPDATE log SET tiled = ?;
-- name: entry_rows
SELECT keys, hashes FROM entry WHERE first >= ? ORDER BY first LIMIT ?;
-- name: drop_entries
DELETE FROM entry WHERE first >= ?1 AND first < ?2;

-- name: entry_hashes
SELECT first, hashes FROM entry
WHERE first >= (SELECT coalesce(max(first), 0) FROM entry WHERE first <= ?1) AND first < ?2 ORDER BY first;
-- name: nodes
SELECT hash FROM node WHERE level = ?1 AND n >= ?2 AND n < ?3 ORDER BY n;
-- name: next_node
SELECT coalesce(max(n) + 1, 0) FROM node WHERE level = ?;
-- name: add_node
INSERT INTO node (level, n, hash) VALUES (?, ?, ?);
-- name: checkpoint
SELECT size, root, at_us, note FROM checkpoint;
-- name: set_checkpoint
INSERT OR REPLACE INTO checkpoint (one, size, root, at_us, note) VALUES (1, ?, ?, ?, ?);

-- name: restored
SELECT at_us, backup_us, size, root, key FROM restored;
-- name: set_restored
INSERT OR REPLACE INTO restored (one, at_us, backup_us, size, root, key) VALUES (1, ?, ?, ?, ?, ?);
-- name: clear_restored
DELETE FROM restored;

-- name: pieces
SELECT id, count, low_us, high_us, first_index, last_index FROM piece ORDER BY id;
-- name: has_piece
SELECT 1 FROM piece WHERE id = ?;
-- name: add_piece
INSERT INTO piece (count, low_us, high_us, first_index, last_index) VALUES (?, ?, ?, ?, ?);
-- name: add_piece_column
INSERT INTO piece_column (id, data) VALUES (?, ?);
-- name: drop_piece
DELETE FROM piece WHERE id = ?;
-- name: drop_piece_columns
DELETE FROM piece_column WHERE id >= ? AND id < ?;
-- name: piece_column
SELECT data FROM piece_column WHERE id = ?;
-- name: values_of
SELECT id, text FROM value WHERE member = ?1 AND folded = ?2;
-- name: values_in
SELECT id, text FROM value WHERE id IN (SELECT value FROM json_each(?));
-- name: values_holding
SELECT text, count FROM value CROSS JOIN tally USING (id) WHERE member = ?1 AND instr(folded, ?2) LIMIT ?3;
-- name: values_count
SELECT count(*) FROM value WHERE member = ?;
-- name: value_last
SELECT coalesce(max(id), 0) FROM value;
-- name: add_value
INSERT INTO value (member, text, folded) VALUES (?, ?, ?);
-- name: tally
INSERT INTO tally (id, count) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET count = count + excluded.count;
-- name: drop_empty_value
DELETE FROM value WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM tally WHERE id = ?1 AND count > 0);
-- name: drop_empty_tally
DELETE FROM tally WHERE id = ?1 AND count <= 0;
-- name: add_destroyed
INSERT INTO destroyed (first, last, indexes) VALUES (?, ?, ?);
-- name: destroyed
SELECT first, last, indexes FROM destroyed;
-- name: drop_destroyed
DELETE FROM destroyed;
