-- auth.sql - who is asking: one function call a request.

-- row: principal
--   type text, key_id uuid?, user_id uuid?, session_id uuid?, team_id uuid?, role text?, platform_role text,
--   user_status text?, email text?, name text, scopes text[]?, team_live bool, key_state text,
--   must_change_password bool, has_factor bool, team_mfa bool, rate_limit int4?

-- name: auth_by_key :one principal
-- The principal of an API key's hash, used from an address; sets the tenant of row-level security.
SELECT 'api_key' AS type, key_id, user_id, session_id, team_id, role, platform_role, user_status, email, name, scopes,
       team_live, key_state, false AS must_change_password, false AS has_factor, false AS team_mfa, rate_limit
  FROM auth_key(:hash::bytea, :ip::text?);

-- name: auth_by_session :one principal
-- The principal of an access token: session, user, team, membership as they are now.
SELECT type, NULL::uuid AS key_id, user_id, session_id, team_id, role, platform_role, user_status, email, name,
       NULL::text[] AS scopes, team_live, key_state, must_change_password, has_factor, team_mfa, NULL::int AS rate_limit
  FROM auth_session(:session::uuid, :user::uuid, :team::uuid?);

-- name: auth_for_platform :one principal
-- The same of an access token whose user acts for the Platform: an administrator of the platform is one of that team, and nobody else is in it.
SELECT s.type, NULL::uuid AS key_id, s.user_id, s.session_id, t.id AS team_id, CASE WHEN t.id IS NOT NULL THEN 'admin' END AS role,
       s.platform_role, s.user_status, s.email, s.name, NULL::text[] AS scopes, t.id IS NOT NULL AS team_live, s.key_state,
       s.must_change_password, s.has_factor, false AS team_mfa, NULL::int AS rate_limit
  FROM auth_session(:session::uuid, :user::uuid, :team::uuid?) s,
       LATERAL (SELECT nullif(set_config('hutch.team', CASE WHEN s.platform_role = 'admin' AND s.key_state = 'live' AND s.user_status = 'active'
                                                            THEN '00000000-0000-0000-0000-000000000000' ELSE '' END, false), '')::uuid AS id) t;

-- row: auth_host
--   id uuid, name text, status text

-- name: auth_by_host :one auth_host
-- The host of a host token, unless it was deleted; forgets the tenant.
SELECT h.id, h.name, h.status FROM hosts h, set_config('hutch.team', '', false) s
 WHERE h.id = :host::uuid AND h.deleted_at IS NULL
   AND EXISTS (SELECT FROM host_refresh_tokens t WHERE t.host_id = h.id AND t.revoked_at IS NULL AND t.expires_at > now());

-- row: permission
--   name text, roles text

-- name: permission_list :many permission
-- The dictionary as it was seeded.
SELECT name, array_to_string(roles, ',') AS roles FROM permissions;
