-- keys.sql - API keys (spec 01 §2.7).

-- row: key
--   id uuid, team_id uuid, name text, key_prefix text, created_by uuid, creator_email text?, created_at timestamptz,
--   last_used_at timestamptz?, kind text, description text, scopes text[], expires_at timestamptz?, revoked_at timestamptz?, state text

-- name: key_list :many key
-- Keys of the team, newest first: one's own, or all.
SELECT k.id, k.team_id, k.name, k.key_prefix, coalesce(k.created_by, '00000000-0000-0000-0000-000000000000') AS created_by,
       u.email AS creator_email, k.created_at, k.last_used_at, k.kind, k.description, k.scopes, k.expires_at, k.revoked_at,
       CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' ELSE 'active' END AS state
  FROM api_keys k LEFT JOIN users u ON u.id = k.created_by
 WHERE k.team_id = :team::uuid AND (:everybody::bool OR k.created_by = :user::uuid)
   AND (k.created_at, k.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY k.created_at DESC, k.id DESC LIMIT :limit::int4;

-- name: key_get :one key
-- One key of the team.
SELECT k.id, k.team_id, k.name, k.key_prefix, coalesce(k.created_by, '00000000-0000-0000-0000-000000000000') AS created_by,
       u.email AS creator_email, k.created_at, k.last_used_at, k.kind, k.description, k.scopes, k.expires_at, k.revoked_at,
       CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' ELSE 'active' END AS state
  FROM api_keys k LEFT JOIN users u ON u.id = k.created_by
 WHERE k.id = :id::uuid AND k.team_id = :team::uuid AND (:everybody::bool OR k.created_by = :user::uuid);

-- name: key_insert :exec
-- A new key; its digits are never stored.
INSERT INTO api_keys (id, team_id, kind, created_by, name, description, key_hash, key_prefix, scopes, expires_at)
VALUES (:id::uuid, :team::uuid, :kind::text, :user::uuid, :name::text, :description::text, :hash::bytea, :prefix::text,
       :scopes::text[], :expires_at::timestamptz?);

-- row: key_counts
--   team int8, mine int8

-- name: key_count :one key_counts
-- Live keys of the team and of the user.
SELECT count(*) AS team, count(*) FILTER (WHERE created_by = :user::uuid) AS mine FROM api_keys
 WHERE team_id = :team::uuid AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: key_delete :exec
-- Removes a key.
DELETE FROM api_keys WHERE id = :id::uuid AND team_id = :team::uuid;

-- name: key_revoke :exec
-- Ends a key; its row stays.
UPDATE api_keys SET revoked_at = now() WHERE id = :id::uuid AND team_id = :team::uuid AND revoked_at IS NULL;

-- name: key_used :exec
-- Remembers the use, at most once a minute.
UPDATE api_keys SET last_used_at = now() WHERE id = :id::uuid AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute');
