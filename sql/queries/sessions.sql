-- sessions.sql - logins and their refresh tokens (spec 01 §4.2).

-- name: session_insert :exec
-- A new login.
INSERT INTO login_sessions (id, user_id, team_id, kind, method, idp_id, refresh_hash, device_hash, auth_at, mfa_at, ip, user_agent,
       idle_expires_at, expires_at)
VALUES (:id::uuid, :user::uuid, :team::uuid?, :kind::text, :method::text, :idp::uuid?, :hash::bytea, :device::bytea?, now(),
       CASE WHEN :mfa::text? IS NOT NULL THEN now() END, :ip::text?::inet, :user_agent::text?,
       now() + make_interval(secs => :idle::int8), now() + make_interval(secs => :longest::int8));

-- name: session_prune :exec
-- Fifty live logins a user: the oldest ends.
UPDATE login_sessions SET revoked_at = now(), revoke_reason = 'too_many'
 WHERE id IN (SELECT id FROM login_sessions WHERE user_id = :user::uuid AND revoked_at IS NULL AND expires_at > now()
               ORDER BY created_at DESC OFFSET 50);

-- row: session
--   id uuid, user_id uuid, team_id uuid?, kind text, generation int4, refresh_hash bytea, prev_hash bytea?, successor_enc bytea?,
--   since_rotation_s float8, live bool

-- name: session_lock :one session
-- A login, locked; two tabs refresh one after the other.
SELECT id, user_id, team_id, kind, generation, refresh_hash, prev_hash, successor_enc,
       coalesce(extract(epoch FROM now() - rotated_at), 0)::float8 AS since_rotation_s,
       (revoked_at IS NULL AND expires_at > now() AND idle_expires_at > now()) AS live
  FROM login_sessions WHERE id = :id::uuid FOR UPDATE;

-- name: session_rotate :exec
-- The next refresh token of the family.
UPDATE login_sessions SET generation = generation + 1, prev_hash = refresh_hash, refresh_hash = :hash::bytea,
       successor_enc = :successor::bytea, rotated_at = now(), last_seen_at = now(), team_id = :team::uuid?,
       idle_expires_at = least(expires_at, now() + make_interval(secs => :idle::int8))
 WHERE id = :id::uuid;

-- name: session_revoke :exec
-- Ends a login.
UPDATE login_sessions SET revoked_at = now(), revoke_reason = :reason::text WHERE id = :id::uuid AND revoked_at IS NULL;

-- name: session_revoke_all :exec
-- Ends all logins of a user.
UPDATE login_sessions SET revoked_at = now(), revoke_reason = :reason::text WHERE user_id = :user::uuid AND revoked_at IS NULL;

-- row: proof
--   fresh bool

-- name: session_proof :one proof
-- Did the user of this login prove who he is within so many seconds?
SELECT auth_at > now() - make_interval(secs => :seconds::int8) AS fresh FROM login_sessions WHERE id = :id::uuid;
