-- name: key_by_hash
SELECT id FROM api_key WHERE hash = ?;
-- name: working_key_by_hash
SELECT id, account, role, description, envelope, created_us, expires_us, revoked_us, last_used_us
FROM api_key WHERE hash = ?1 AND revoked_us IS NULL AND (expires_us IS NULL OR expires_us > ?2);
-- name: key_by_id
SELECT id, account, role, description, envelope, created_us, expires_us, revoked_us, last_used_us
FROM api_key WHERE id = ?1 AND account = ?2;
-- name: key_of_any_account
SELECT id, account, role, description, envelope, created_us, expires_us, revoked_us, last_used_us
FROM api_key WHERE id = ?;
-- name: keys_of
SELECT id, account, role, description, envelope, created_us, expires_us, revoked_us, last_used_us
FROM api_key WHERE account = ? ORDER BY id;
-- name: keys
SELECT id, account, role, description, envelope, created_us, expires_us, revoked_us, last_used_us
FROM api_key ORDER BY id;
-- name: count_working_keys
SELECT count(*) FROM api_key
WHERE account = ?1 AND revoked_us IS NULL AND (expires_us IS NULL OR expires_us > ?2);
-- name: any_key
SELECT 1 FROM api_key LIMIT 1;
-- name: account_of_key
SELECT account FROM api_key WHERE id = ?;
-- name: add_account
INSERT OR IGNORE INTO account (name, created_us) VALUES (?, ?);
-- name: account
SELECT 1 FROM account WHERE name = ?;
-- name: accounts
SELECT name FROM account ORDER BY name;
-- name: add_key
INSERT INTO api_key (id, hash, account, role, description, envelope, created_us, expires_us)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);
-- name: revoke_key
UPDATE api_key SET revoked_us = ?1 WHERE id = ?2 AND revoked_us IS NULL;
-- name: drop_ended_keys
DELETE FROM api_key WHERE id IN (
    SELECT id FROM api_key WHERE account = ?1 AND (revoked_us IS NOT NULL OR expires_us <= ?2)
    ORDER BY min(coalesce(revoked_us, expires_us), coalesce(expires_us, revoked_us)) DESC, id DESC
    LIMIT -1 OFFSET ?3
) RETURNING id;
-- name: used_key
UPDATE api_key SET last_used_us = max(coalesce(last_used_us, 0), ?1) WHERE id = ?2;
-- name: drop_other_keys
DELETE FROM api_key WHERE id NOT IN (SELECT value FROM json_each(?));
-- name: drop_keyless_accounts
DELETE FROM account WHERE name NOT IN (SELECT account FROM api_key);
-- name: session_by_hash
SELECT session.expires_us, id, account, role, description, envelope, api_key.created_us, api_key.expires_us,
    revoked_us, last_used_us
FROM session JOIN api_key ON api_key.id = session.key_id WHERE session.hash = ?;
-- name: add_session
INSERT INTO session (hash, key_id, created_us, expires_us) VALUES (?, ?, ?, ?);
-- name: drop_session
DELETE FROM session WHERE hash = ?;
-- name: drop_sessions_of
DELETE FROM session WHERE key_id = ?;
-- name: drop_ended_sessions
DELETE FROM session WHERE expires_us <= ?;
-- name: drop_oldest_sessions
DELETE FROM session WHERE hash IN (
    SELECT hash FROM session WHERE key_id = ?1 ORDER BY created_us DESC LIMIT -1 OFFSET ?2
);
-- name: add_link
INSERT INTO link (hash, key_id, expires_us) VALUES (?, ?, ?);
-- name: take_link
DELETE FROM link WHERE hash = ?1 AND expires_us > ?2 RETURNING key_id;
-- name: drop_links_of
DELETE FROM link WHERE key_id = ?;
-- name: drop_ended_links
DELETE FROM link WHERE expires_us <= ?;
-- name: attempt_before
SELECT at_us FROM attempt WHERE source = ?1 AND at_us > ?2 ORDER BY at_us DESC LIMIT 1 OFFSET ?3;
-- name: add_attempt
INSERT INTO attempt (source, at_us) VALUES (?, ?);
-- name: drop_old_attempts
DELETE FROM attempt WHERE at_us <= ?;
-- name: drop_all_sessions
DELETE FROM session;
-- name: drop_all_links
DELETE FROM link;
-- name: drop_all_attempts
DELETE FROM attempt;
-- name: count_sessions
SELECT count(*) FROM session WHERE expires_us > ?;
-- name: count_attempts
SELECT count(*) FROM attempt WHERE at_us > ?;
