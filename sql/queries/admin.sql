-- admin.sql - what administrators of the platform see and change (spec 01 §2.8).

-- row: admin_user
--   id uuid, email text, name text, is_admin bool, status text, created_at timestamptz, teams_joined int8, teams_owned int8,
--   platform_role text, source text, mfa bool, has_password bool, providers text[], must_change_password bool,
--   last_login_at timestamptz?, disabled_at timestamptz?, deleted_at timestamptz?, purge_after timestamptz?

-- part: account
SELECT u.id, u.email, u.name, u.platform_role = 'admin' AS is_admin, u.status, u.created_at,
       (SELECT count(*) FROM users_teams m JOIN teams t ON t.id = m.team_id WHERE m.user_id = u.id AND t.deleted_at IS NULL) AS teams_joined,
       (SELECT count(*) FROM users_teams m JOIN teams t ON t.id = m.team_id
         WHERE m.user_id = u.id AND m.role = 'owner' AND t.deleted_at IS NULL) AS teams_owned,
       u.platform_role, u.source, EXISTS (SELECT FROM mfa_factors f WHERE f.user_id = u.id AND f.verified_at IS NOT NULL) AS mfa,
       u.password_hash IS NOT NULL AS has_password,
       ARRAY(SELECT p.slug FROM external_identities e JOIN identity_providers p ON p.id = e.idp_id WHERE e.user_id = u.id ORDER BY 1) AS providers,
       u.must_change_password, u.last_login_at, u.disabled_at, u.deleted_at, u.purge_after

-- part: account_filters
(u.status = :status::text? OR :status::text? IS NULL AND u.status <> 'deleted')
   AND (:q::text? IS NULL OR starts_with(u.email, lower(:q::text?)) OR starts_with(lower(u.name), lower(:q::text?)))
   AND (:role::text? IS NULL OR u.platform_role = :role::text?) AND (:source::text? IS NULL OR u.source = :source::text?)

-- name: admin_user_get :one admin_user
-- One account, deleted ones too as long as they can be restored.
{{account}}
  FROM users u WHERE u.id = :id::uuid;

-- name: admin_user_list :many admin_user
-- Accounts, newest first, from a key or from a place.
{{account}}
  FROM users u
 WHERE {{account_filters}}
   AND (u.created_at, u.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY u.created_at DESC, u.id DESC OFFSET :skip::int4 LIMIT :limit::int4;

-- name: admin_user_sorted :many admin_user
-- The same in another order; pages only by number.
{{account}}
  FROM (SELECT * FROM users u
	 WHERE {{account_filters}}
	 ORDER BY CASE WHEN :sort::text = 'email' THEN u.email END, CASE WHEN :sort::text = 'created_at' THEN u.created_at END,
		CASE WHEN :sort::text = 'last_login_at' THEN u.last_login_at END DESC NULLS LAST, u.id
	 OFFSET :skip::int4 LIMIT :limit::int4) u
 ORDER BY CASE WHEN :sort::text = 'email' THEN u.email END, CASE WHEN :sort::text = 'created_at' THEN u.created_at END,
	CASE WHEN :sort::text = 'last_login_at' THEN u.last_login_at END DESC NULLS LAST, u.id;

-- row: admin_total
--   n int8

-- name: admin_user_count :one admin_total
-- How many accounts the filters leave.
SELECT count(*) AS n FROM users u
 WHERE {{account_filters}};

-- name: admin_user_insert :exec
-- An account that an administrator makes: active, and its password is to be changed.
INSERT INTO users (id, source, email, name, status, platform_role, password_hash, password_changed_at, must_change_password,
       webauthn_handle, activated_at)
VALUES (:id::uuid, 'admin', :email::text, :name::text, 'active', :role::text, :password_hash::text?,
       CASE WHEN :password_hash::text? IS NULL THEN NULL ELSE now() END, true, :handle::bytea, now());

-- name: admin_user_update :exec
-- What an administrator changed; a new address is unverified.
UPDATE users SET name = coalesce(:name::text?, name), email = coalesce(:email::text?, email),
       email_verified_at = CASE WHEN :email::text? IS NULL OR email = :email::text? THEN email_verified_at END,
       must_change_password = coalesce(CAST(:must_change::text? AS bool), must_change_password), updated_at = now()
 WHERE id = :id::uuid;

-- name: admin_member_add :exec
-- Into a live team, with a role; an owner thaws a frozen one.
INSERT INTO users_teams (team_id, user_id, role, source, added_by)
SELECT t.id, :user::uuid, :role::text, 'admin', :by::uuid FROM teams t
 WHERE t.id = :team::uuid AND t.deleted_at IS NULL AND t.slug <> 'platform'
    ON CONFLICT (team_id, user_id) DO UPDATE SET role = excluded.role, role_id = NULL;

-- name: factors_of_user_delete :exec
-- Second factors.
DELETE FROM mfa_factors WHERE user_id = :user::uuid;

-- name: codes_of_user_delete :exec
-- Backup codes.
DELETE FROM mfa_backup_codes WHERE user_id = :user::uuid;

-- row: held
--   capsules int8, keys int8

-- name: team_holds :one held
-- What goes with a team.
SELECT (SELECT count(*) FROM capsules WHERE team_id = :team::uuid AND observed_state <> 'stopped') AS capsules,
       (SELECT count(*) FROM api_keys WHERE team_id = :team::uuid AND created_by IS DISTINCT FROM :user::uuid) AS keys;

-- name: keys_of_user_count :one admin_total
-- Keys that a person made.
SELECT count(*) AS n FROM api_keys WHERE created_by = :user::uuid;

-- row: admin_team
--   id uuid, name text, slug text, is_byoc bool, created_at timestamptz, deleted_at timestamptz?, member_count int8, owner_name text?,
--   owner_email text?, active_sandbox_count int8, kind text, frozen bool, purged_at timestamptz?

-- name: admin_team_list :many admin_team
-- Teams, live ones first, newest first; the Platform team is none.
SELECT t.id, t.name, t.slug, t.is_byoc, t.created_at, t.deleted_at,
       (SELECT count(*) FROM users_teams m JOIN users u ON u.id = m.user_id WHERE m.team_id = t.id AND u.status <> 'deleted') AS member_count,
       o.name AS owner_name, o.email AS owner_email,
       (SELECT count(*) FROM capsules c WHERE c.team_id = t.id
         AND c.observed_state NOT IN ('paused','hibernated','stopped','error')) AS active_sandbox_count,
       t.kind, NOT EXISTS (SELECT FROM users_teams m JOIN users u ON u.id = m.user_id
	 WHERE m.team_id = t.id AND m.role = 'owner' AND u.status = 'active') AS frozen, t.purged_at
  FROM teams t LEFT JOIN LATERAL (SELECT u.name, u.email FROM users_teams m JOIN users u ON u.id = m.user_id
	WHERE m.team_id = t.id AND m.role = 'owner' AND u.status <> 'deleted' ORDER BY m.created_at, u.id LIMIT 1) o ON true
 WHERE t.slug <> 'platform' AND (:id::uuid? IS NULL OR t.id = :id::uuid?)
   AND (CAST(:byoc::text? AS bool) IS NULL OR t.is_byoc = CAST(:byoc::text? AS bool)) AND (CAST(:deleted::text? AS bool) IS NULL OR (t.deleted_at IS NOT NULL) = CAST(:deleted::text? AS bool))
   AND (:q::text? IS NULL OR starts_with(lower(t.name), lower(:q::text?)) OR starts_with(t.slug, :q::text?))
   AND (:before_id::uuid? IS NULL
	OR (t.deleted_at IS NOT NULL) > (SELECT b.deleted_at IS NOT NULL FROM teams b WHERE b.id = :before_id::uuid?)
	OR (t.deleted_at IS NOT NULL) = (SELECT b.deleted_at IS NOT NULL FROM teams b WHERE b.id = :before_id::uuid?)
	   AND (t.created_at, t.id) < (coalesce(:before::timestamptz?, 'infinity'), :before_id::uuid?))
 ORDER BY t.deleted_at IS NOT NULL, t.created_at DESC, t.id DESC OFFSET :skip::int4 LIMIT :limit::int4;

-- name: admin_team_count :one admin_total
-- How many teams the filters leave.
SELECT count(*) AS n FROM teams t
 WHERE t.slug <> 'platform' AND (CAST(:byoc::text? AS bool) IS NULL OR t.is_byoc = CAST(:byoc::text? AS bool))
   AND (CAST(:deleted::text? AS bool) IS NULL OR (t.deleted_at IS NOT NULL) = CAST(:deleted::text? AS bool))
   AND (:q::text? IS NULL OR starts_with(lower(t.name), lower(:q::text?)) OR starts_with(t.slug, :q::text?));

-- row: live_team
--   id uuid, name text, kind text, is_byoc bool, byoc_hosts int8, is_platform bool

-- name: admin_team_lock :one live_team
-- A live team, locked.
SELECT id, name, kind, is_byoc, (SELECT count(*) FROM hosts h WHERE h.team_id = t.id AND h.deleted_at IS NULL) AS byoc_hosts,
       slug = 'platform' AS is_platform
  FROM teams t WHERE id = :id::uuid AND deleted_at IS NULL FOR NO KEY UPDATE;

-- name: admin_team_update :exec
-- Name and kind.
UPDATE teams SET name = coalesce(:name::text?, name), kind = coalesce(:kind::text?, kind), updated_at = now() WHERE id = :id::uuid;

-- name: admin_team_byoc :exec
-- May it bring hosts of its own?
UPDATE teams SET is_byoc = :enabled::bool, updated_at = now() WHERE id = :id::uuid;
