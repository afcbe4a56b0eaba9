-- teams.sql - teams and who is in them.

-- row: team
--   id uuid, name text, slug text, is_byoc bool, created_at timestamptz, kind text, parent_id uuid?, require_mfa bool,
--   frozen bool, member_count int8, role text, is_default bool, permissions text[]

-- row: membership
--   team_id uuid, role text, name text

-- name: team_list :many team
-- The live teams of a user, by the time he joined.
SELECT t.id, t.name, t.slug, t.is_byoc, t.created_at, t.kind, t.parent_id, t.require_mfa,
       NOT EXISTS (SELECT FROM users_teams o JOIN users u ON u.id = o.user_id
                    WHERE o.team_id = t.id AND o.role = 'owner' AND u.status = 'active') AS frozen,
       (SELECT count(*) FROM users_teams o JOIN users u ON u.id = o.user_id
         WHERE o.team_id = t.id AND u.status <> 'deleted') AS member_count, m.role, m.is_default,
       ARRAY(SELECT p.name FROM permissions p WHERE m.role = ANY (p.roles) ORDER BY p.name) AS permissions
  FROM users_teams m JOIN teams t ON t.id = m.team_id
 WHERE m.user_id = :user::uuid AND t.deleted_at IS NULL ORDER BY m.created_at, t.id LIMIT 200;

-- name: team_get :one team
-- A live team of which the user is a member.
SELECT t.id, t.name, t.slug, t.is_byoc, t.created_at, t.kind, t.parent_id, t.require_mfa,
       NOT EXISTS (SELECT FROM users_teams o JOIN users u ON u.id = o.user_id
                    WHERE o.team_id = t.id AND o.role = 'owner' AND u.status = 'active') AS frozen,
       (SELECT count(*) FROM users_teams o JOIN users u ON u.id = o.user_id
         WHERE o.team_id = t.id AND u.status <> 'deleted') AS member_count, m.role, m.is_default,
       ARRAY(SELECT p.name FROM permissions p WHERE m.role = ANY (p.roles) ORDER BY p.name) AS permissions
  FROM users_teams m JOIN teams t ON t.id = m.team_id
 WHERE m.user_id = :user::uuid AND t.id = :team::uuid AND t.deleted_at IS NULL;

-- row: team_locked
--   id uuid, name text, kind text, parent_id uuid?, require_mfa bool, role text?

-- name: team_lock :one team_locked
-- A live team, locked until the end of the transaction, and the caller's role in it as it is now.
SELECT t.id, t.name, t.kind, t.parent_id, t.require_mfa,
       (SELECT m.role FROM users_teams m WHERE m.team_id = t.id AND m.user_id = :user::uuid?) AS role
  FROM teams t WHERE t.id = :team::uuid AND t.deleted_at IS NULL FOR UPDATE OF t;

-- name: team_role :one membership
-- The user's membership in a live team.
SELECT t.id AS team_id, m.role, t.name FROM users_teams m JOIN teams t ON t.id = m.team_id
 WHERE t.id = :team::uuid AND m.user_id = :user::uuid AND t.deleted_at IS NULL;

-- row: team_count
--   n int8

-- row: waited
--   ok bool

-- name: one_at_a_time :one waited
-- Waits for others who hold the word, until the end of their transactions; what is read next is as they left it.
SELECT true AS ok FROM pg_advisory_xact_lock(hashtextextended(:word::text, 13));

-- name: team_owned_count :one team_count
-- Live teams that the user owns.
SELECT count(*) AS n FROM users_teams m JOIN teams t ON t.id = m.team_id
 WHERE m.user_id = :user::uuid AND m.role = 'owner' AND t.deleted_at IS NULL;

-- row: team_place
--   depth int4, cycle bool

-- name: team_line :one team_place
-- How deep a team would stand below the parent (a team without parent: 1), with the depth of what is below it; whether it would be its own ancestor.
WITH RECURSIVE up AS (
  SELECT t.id, t.parent_id, 1 AS n FROM teams t WHERE t.id = :parent::uuid
  UNION ALL SELECT t.id, t.parent_id, up.n + 1 FROM teams t JOIN up ON t.id = up.parent_id WHERE up.n < 32),
down AS (
  SELECT t.id, 1 AS n FROM teams t WHERE t.id = :team::uuid?
  UNION ALL SELECT t.id, down.n + 1 FROM teams t JOIN down ON t.parent_id = down.id WHERE down.n < 32 AND t.deleted_at IS NULL)
SELECT ((SELECT max(n) FROM up) + coalesce((SELECT max(n) FROM down), 1))::int AS depth,
       coalesce((SELECT bool_or(id = :team::uuid?) FROM up), false) AS cycle;

-- name: team_update :exec
-- Name, kind, place and rules of a team; what is NULL stays.
UPDATE teams SET name = coalesce(:name::text?, name), kind = coalesce(:kind::text?, kind),
       parent_id = coalesce(:parent::uuid?, parent_id), require_mfa = coalesce(:require_mfa::text?::bool, require_mfa), updated_at = now()
 WHERE id = :team::uuid;

-- row: member
--   user_id uuid, name text, email text, role text, joined_at timestamptz, status text, mfa bool, last_seen_at timestamptz?, source text

-- name: member_list :many member
-- Members of a team by the time they joined; deleted accounts are none.
SELECT u.id AS user_id, u.name, u.email, m.role, m.created_at AS joined_at, u.status,
       EXISTS (SELECT FROM mfa_factors f WHERE f.user_id = u.id AND f.verified_at IS NOT NULL) AS mfa,
       (SELECT max(s.last_seen_at) FROM login_sessions s WHERE s.user_id = u.id) AS last_seen_at, m.source
  FROM users_teams m JOIN users u ON u.id = m.user_id
 WHERE m.team_id = :team::uuid AND u.status <> 'deleted' ORDER BY m.created_at, u.id LIMIT 10000;

-- name: member_get :one member
-- One member.
SELECT u.id AS user_id, u.name, u.email, m.role, m.created_at AS joined_at, u.status,
       EXISTS (SELECT FROM mfa_factors f WHERE f.user_id = u.id AND f.verified_at IS NOT NULL) AS mfa,
       (SELECT max(s.last_seen_at) FROM login_sessions s WHERE s.user_id = u.id) AS last_seen_at, m.source
  FROM users_teams m JOIN users u ON u.id = m.user_id
 WHERE m.team_id = :team::uuid AND m.user_id = :user::uuid AND u.status <> 'deleted';

-- name: member_add :exec
-- Puts a user into a team; 0: he is in it already.
INSERT INTO users_teams (team_id, user_id, role, source, added_by)
VALUES (:team::uuid, :user::uuid, :role::text, :source::text, :by::uuid?) ON CONFLICT DO NOTHING;

-- name: member_set_role :exec
-- Another role.
UPDATE users_teams SET role = :role::text, role_id = NULL WHERE team_id = :team::uuid AND user_id = :user::uuid;

-- name: member_remove :exec
-- Takes a user out of a team.
DELETE FROM users_teams WHERE team_id = :team::uuid AND user_id = :user::uuid;

-- name: member_owners :one team_count
-- Active owners of a team beside this user.
SELECT count(*) AS n FROM users_teams m JOIN users u ON u.id = m.user_id
 WHERE m.team_id = :team::uuid AND m.role = 'owner' AND u.status = 'active' AND m.user_id <> :user::uuid;

-- row: member_key
--   id uuid, name text

-- name: member_keys_delete :many member_key
-- The keys in the team that die with the membership.
DELETE FROM api_keys WHERE team_id = :team::uuid AND created_by = :user::uuid AND kind <> 'team' RETURNING id, name;

-- name: team_for_token :one membership
-- The team of a new token: the asked one if a member, else the default one, else the earliest joined.
SELECT t.id AS team_id, m.role, t.name FROM users_teams m JOIN teams t ON t.id = m.team_id
 WHERE m.user_id = :user::uuid AND t.deleted_at IS NULL
 ORDER BY (t.id = :asked::uuid?) IS TRUE DESC, m.is_default DESC, m.created_at, t.id LIMIT 1;

-- name: team_insert :exec
-- A new team.
INSERT INTO teams (id, name, slug, created_by, kind, parent_id)
VALUES (:id::uuid, :name::text, :slug::text, :user::uuid?, coalesce(:kind::text?, 'team'), :parent::uuid?);

-- name: member_insert :exec
-- Puts a user into a team.
INSERT INTO users_teams (team_id, user_id, role, is_default, source, added_by)
VALUES (:team::uuid, :user::uuid, :role::text, :is_default::bool, :source::text, :user::uuid);

-- row: quota
--   capsules int4, vcpus int4, memory_mb int8, disk_mb int8, used_capsules int8, used_vcpus int8, used_memory_mb int8,
--   used_disk_mb int8

-- name: team_quota :one quota
-- Limits of a team (its own or the default's) and what it holds.
SELECT q.capsules, q.vcpus, q.memory_mb, q.disk_mb, u.capsules AS used_capsules, u.vcpus AS used_vcpus,
       u.memory_mb AS used_memory_mb, u.disk_mb AS used_disk_mb
  FROM (SELECT * FROM quotas WHERE team_id IN (:team::uuid, '00000000-0000-0000-0000-000000000000')
         ORDER BY team_id = :team::uuid DESC LIMIT 1) q,
       (SELECT count(*) AS capsules, coalesce(sum(c.vcpus) FILTER (WHERE c.observed_state NOT IN ('paused','hibernating','hibernated','error')), 0)::int8 AS vcpus,
               coalesce(sum(c.memory_mb) FILTER (WHERE c.observed_state NOT IN ('paused','hibernating','hibernated','error')), 0)::int8 AS memory_mb, coalesce(sum(c.disk_size_mb), 0)::int8 AS disk_mb
          FROM capsules c WHERE c.team_id = :team::uuid
           AND c.observed_state NOT IN ('stopping','stopped') AND NOT (c.observed_state = 'error' AND c.starts = 0)) u;

-- row: locked
--   frozen bool

-- name: team_quota_lock :one locked
-- One reservation of a team's quota at a time, until the end of the transaction; and is it frozen: without an active owner?
SELECT NOT EXISTS (SELECT FROM users_teams o JOIN users u ON u.id = o.user_id
                    WHERE o.team_id = :team::uuid AND o.role = 'owner' AND u.status = 'active')
       AND NOT EXISTS (SELECT FROM teams WHERE id = :team::uuid AND slug = 'platform') AS frozen
  FROM pg_advisory_xact_lock(hashtextextended(:team::uuid::text, 11));

-- name: quota_default :exec
-- The default limits, held by the Platform team's row.
INSERT INTO quotas (team_id, capsules, vcpus, memory_mb, disk_mb)
VALUES ('00000000-0000-0000-0000-000000000000', :capsules::int4, :vcpus::int4, :memory_mb::int8, :disk_mb::int8)
    ON CONFLICT (team_id) DO UPDATE SET capsules = excluded.capsules, vcpus = excluded.vcpus,
       memory_mb = excluded.memory_mb, disk_mb = excluded.disk_mb, updated_at = now();

-- row: capsule_owner
--   owner_id uuid?

-- name: capsule_owner_of :one capsule_owner
-- Who made a capsule of the tenant.
SELECT owner_id FROM capsules WHERE id = :id::uuid AND team_id = current_team();
