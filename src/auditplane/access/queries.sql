-- name: key_by_hash
SELECT id, account, role, description, envelope, created_us, expires_us, revoked_us, last_used_us
FROM api_key WHERE hash = ?;
-- name: key_by_id
SELECT id, account, role, description, envelope, created_us, expires_us, revoked_us, last_used_us
FROM api_key WHERE id = ?1 AND account = ?2;
-- name: keys_of
SELECT id, account, role, description, envelope, created_us, expires_us, revoked_us, last_used_us
FROM api_key WHERE ?1 IS NULL OR account = ?1 ORDER BY id;
-- name: any_key
SELECT 1 FROM api_key LIMIT 1;
-- name: account_of_key
SELECT account FROM api_key WHERE id = ?;
-- name: add_account
INSERT OR IGNORE INTO account (name, created_us) VALUES (?, ?);
-- name: accounts
SELECT name FROM account ORDER BY name;
-- name: add_key
INSERT INTO api_key (id, hash, account, role, description, envelope, created_us, expires_us)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);
-- name: revoke_key
UPDATE api_key SET revoked_us = ?1 WHERE id = ?2 AND revoked_us IS NULL;
-- name: used_key
UPDATE api_key SET last_used_us = max(coalesce(last_used_us, 0), ?1) WHERE id = ?2;
-- name: drop_other_keys
DELETE FROM api_key WHERE id NOT IN (SELECT value FROM json_each(?));
