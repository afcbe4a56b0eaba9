-- cli.sql - logins of command line programs, and their keys (spec 06 §13).

-- row: cli_made
--   told int4

-- name: cli_session_insert :exec
-- A new login that a person gives from a login of his own: as well proven as that one.
INSERT INTO login_sessions (id, user_id, team_id, kind, method, idp_id, refresh_hash, auth_at, mfa_at, ip, user_agent,
       idle_expires_at, expires_at)
SELECT :id::uuid, s.user_id, :team::uuid?, 'cli', s.method, s.idp_id, :hash::bytea, s.auth_at, s.mfa_at, :ip::text?::inet, :user_agent::text?,
       now() + make_interval(secs => :idle::int8), now() + make_interval(secs => :longest::int8)
  FROM login_sessions s WHERE s.id = :from::uuid AND s.user_id = :user::uuid AND s.revoked_at IS NULL AND s.expires_at > now();

-- name: cli_key_of :one cli_made
-- The key of a login in a team: made, known, or 0.
SELECT cli_key_make(:id::uuid, :session::uuid, :user::uuid, :team::uuid, :hash::bytea, :prefix::text, :scopes::text[]) AS told;
