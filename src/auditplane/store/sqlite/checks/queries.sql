-- name: log
SELECT size, live, newest_us, at_us, low, high, overflow_us, sealed, crowded, tiled, expired, purged, expired_high,
    markings, wal_due, retention_days FROM log;
-- name: entries
SELECT first, count, keys, hashes FROM entry ORDER BY first;
-- name: entry
SELECT keys, hashes FROM entry WHERE first = ?;
-- name: hashes_below
SELECT first, hashes FROM entry WHERE first <= ? ORDER BY first DESC LIMIT 1;
-- name: nodes
SELECT level, n, hash FROM node ORDER BY level, n;
-- name: headers
SELECT id, run, low, high, count, first_index, last_index, guarded, docs_bytes FROM block ORDER BY id;
-- name: ordered_headers
SELECT run, low, id FROM block INDEXED BY block_order ORDER BY run, low;
-- name: block_csv
SELECT data FROM block_csv WHERE id = ?;
-- name: frames
SELECT id, data FROM frame WHERE id >= ?1 AND id < ?2 ORDER BY id;
-- name: frame_between
SELECT id FROM frame WHERE id >= ?1 AND id < ?2 LIMIT 3;
-- name: block_keys_between
SELECT id FROM block_keys WHERE id >= ?1 AND id < ?2 LIMIT 3;
-- name: block_csv_between
SELECT id FROM block_csv WHERE id >= ?1 AND id < ?2 LIMIT 3;
-- name: block_stamps_between
SELECT id FROM block_stamps WHERE id >= ?1 AND id < ?2 LIMIT 3;
-- name: tail
SELECT key, idx, doc, stamp FROM tail ORDER BY key;
-- name: tail_keys
SELECT key FROM tail;
-- name: last_block
SELECT max(seq), count(*) FROM sqlite_sequence WHERE name = 'block';
-- name: given
SELECT id, key FROM given;
-- name: given_count
SELECT count(*) FROM given;
-- name: given_in
SELECT CAST(id AS TEXT), key FROM given WHERE id IN (SELECT CAST(value AS BLOB) FROM json_each(?));
-- name: erased
SELECT CAST(id AS TEXT), idx FROM erased;
-- name: told
SELECT idx FROM told;
-- name: purge_target
SELECT target FROM purge;
-- name: dropping
SELECT 1 FROM purge WHERE giving_back = ?;
-- name: schema
SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name;
-- name: values
SELECT id, member, text, folded FROM value;
-- name: values_by_index
SELECT member, folded, id FROM value INDEXED BY value_found ORDER BY member, folded, id;
-- name: values_sorted
SELECT member, folded, id FROM value NOT INDEXED ORDER BY member, folded, id;
-- name: tallies
SELECT id, count FROM tally;
-- name: column_ids
SELECT id FROM piece_column ORDER BY id;
-- name: last_piece
SELECT max(seq) FROM sqlite_sequence WHERE name = 'piece';
-- name: open_vocabulary
CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, {}, instance);
-- name: vocabulary
SELECT term, doc FROM temp.vocabulary;
-- name: close_vocabulary
DROP TABLE IF EXISTS temp.vocabulary;
-- name: stray_segments
SELECT DISTINCT segid FROM {0}_idx EXCEPT SELECT id >> 37 FROM {0}_data
UNION SELECT * FROM (SELECT id >> 37 FROM {0}_data WHERE id > 10 EXCEPT SELECT segid FROM {0}_idx);
-- name: pages
PRAGMA integrity_check(20);
-- name: pages_quickly
PRAGMA quick_check(20);
