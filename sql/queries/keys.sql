-- keys.sql - API keys (spec 01 §2.7).

-- row: key
--   id uuid, team_id uuid, name text, key_prefix text, created_by uuid, creator_email text?, created_at timestamptz,
--   last_used_at timestamptz?, kind text, description text, scopes text[], expires_at timestamptz?, revoked_at timestamptz?, state text,
--   rate_limit int4?, allowed_ips text[], rotated_to uuid?

-- name: key_list :many key
-- Keys of the team, newest first: one's own, or all.
SELECT k.id, k.team_id, k.name, k.key_prefix, coalesce(k.created_by, '00000000-0000-0000-0000-000000000000') AS created_by,
       u.email AS creator_email, k.created_at, k.last_used_at, k.kind, k.description, k.scopes, k.expires_at, k.revoked_at,
       CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' ELSE 'active' END AS state,
       k.rate_limit, k.allowed_ips::text[] AS allowed_ips, k.rotated_to
  FROM api_keys k LEFT JOIN users u ON u.id = k.created_by
 WHERE k.team_id = :team::uuid AND (:everybody::bool OR k.created_by = :user::uuid)
   AND (:kind::text? IS NULL OR k.kind = :kind::text?) AND (:creator::uuid? IS NULL OR k.created_by = :creator::uuid?)
   AND (:state::text? IS NULL OR :state::text? = CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired'
       ELSE 'active' END)
   AND (k.created_at, k.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY k.created_at DESC, k.id DESC LIMIT :limit::int4;

-- name: key_get :one key
-- One key of the team.
SELECT k.id, k.team_id, k.name, k.key_prefix, coalesce(k.created_by, '00000000-0000-0000-0000-000000000000') AS created_by,
       u.email AS creator_email, k.created_at, k.last_used_at, k.kind, k.description, k.scopes, k.expires_at, k.revoked_at,
       CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' ELSE 'active' END AS state,
       k.rate_limit, k.allowed_ips::text[] AS allowed_ips, k.rotated_to
  FROM api_keys k LEFT JOIN users u ON u.id = k.created_by
 WHERE k.id = :id::uuid AND k.team_id = :team::uuid AND (:everybody::bool OR k.created_by = :user::uuid);

-- name: key_insert :exec
-- A new key; its digits are never stored.
INSERT INTO api_keys (id, team_id, kind, created_by, name, description, key_hash, key_prefix, scopes, expires_at, rate_limit, allowed_ips)
VALUES (:id::uuid, :team::uuid, :kind::text, :user::uuid, :name::text, :description::text, :hash::bytea, :prefix::text,
       :scopes::text[], :expires_at::timestamptz?, nullif(:rate_limit::int4?, 0),
       ARRAY(SELECT network(a::inet)::cidr FROM unnest(:allowed_ips::text[]?) a));

-- row: key_counts
--   team int8, mine int8

-- name: key_count :one key_counts
-- Live keys of the team, and of the user in all teams.
SELECT count(*) AS team, live_keys(:user::uuid) AS mine FROM api_keys
 WHERE team_id = :team::uuid AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: key_delete :exec
-- Removes a key.
DELETE FROM api_keys WHERE id = :id::uuid AND team_id = :team::uuid;

-- name: key_revoke :exec
-- Ends a key; its row stays.
UPDATE api_keys SET revoked_at = now() WHERE id = :id::uuid AND team_id = :team::uuid AND revoked_at IS NULL;

-- name: key_change :exec
-- Other words, fewer rights: what is NULL stays.
UPDATE api_keys SET name = coalesce(:name::text?, name), description = coalesce(:description::text?, description),
       scopes = coalesce(:scopes::text[]?, scopes), rate_limit = coalesce(:rate_limit::int4?, rate_limit),
       expires_at = coalesce(:expires_at::timestamptz?, expires_at),
       allowed_ips = CASE WHEN :allowed_ips::text[]? IS NULL THEN allowed_ips
         ELSE ARRAY(SELECT network(a::inet)::cidr FROM unnest(:allowed_ips::text[]?) a) END
 WHERE id = :id::uuid AND team_id = :team::uuid AND revoked_at IS NULL;

-- name: key_rotated :exec
-- The old key of a rotation ends after the overlap; only the first rotation finds it.
UPDATE api_keys SET rotated_to = :to::uuid, expires_at = least(expires_at, now() + make_interval(secs => :overlap::int8))
 WHERE id = :id::uuid AND team_id = :team::uuid AND rotated_to IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- row: key_denial
--   suppressed int4

-- name: key_denied :one key_denial
-- Counts a refusal of a known key; how many were not written down since the last row, or -1: neither is this one.
SELECT key_denied(:id::uuid, :reason::text) AS suppressed;

-- name: key_used :exec
-- Remembers the last use, at most once a minute.
UPDATE api_keys k SET last_used_at = now(), last_used_ip = n.ip
  FROM (SELECT DISTINCT ON (1) u.id::uuid AS id, nullif(u.ip, '')::inet AS ip
          FROM unnest(:ids::text[], :ips::text[]) u(id, ip) ORDER BY 1) n
 WHERE k.id = n.id AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute');

-- name: key_usage_add :exec
-- Adds what a process has counted; keys that are gone are left out.
INSERT INTO api_key_usage (key_id, team_id, hour, route, status, requests)
SELECT k.id, k.team_id, date_trunc('hour', now()), u.route, u.status::int2, u.n::int8
  FROM unnest(:ids::text[], :routes::text[], :statuses::text[], :counts::text[]) u(id, route, status, n)
  JOIN api_keys k ON k.id = u.id::uuid ORDER BY 1, 4, 5
    ON CONFLICT (key_id, hour, route, status) DO UPDATE SET requests = api_key_usage.requests + excluded.requests;

-- row: key_stat
--   kind text, name text, n int8

-- name: key_stats :many key_stat
-- The use of a key between two times: in total, of the last day, by route, by status, by hour.
WITH rows AS (SELECT hour, route, status, requests FROM api_key_usage
  WHERE key_id = :id::uuid AND hour >= date_trunc('hour', :from::timestamptz) AND hour < :to::timestamptz)
SELECT 'total' AS kind, '' AS name, coalesce(sum(requests), 0)::int8 AS n FROM rows
UNION ALL SELECT 'last_24h', '', coalesce(sum(requests), 0)::int8 FROM rows WHERE hour > now() - interval '1 day'
UNION ALL SELECT * FROM (SELECT 'by_route', route, sum(requests)::int8 FROM rows GROUP BY 2 ORDER BY 3 DESC, 2 LIMIT 10) x
UNION ALL SELECT 'by_status', status::text, sum(requests)::int8 FROM rows GROUP BY 2
UNION ALL SELECT * FROM (SELECT 'points', to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), sum(requests)::int8 FROM rows GROUP BY 2 ORDER BY 2) x;
