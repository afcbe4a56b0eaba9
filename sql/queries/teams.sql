-- teams.sql - teams and who is in them.

-- row: team
--   id uuid, name text, slug text, is_byoc bool, created_at timestamptz, kind text, parent_id uuid?, require_mfa bool,
--   frozen bool, member_count int8, role text, is_default bool

-- name: team_list :many team
-- The live teams of a user, by the time he joined.
SELECT t.id, t.name, t.slug, t.is_byoc, t.created_at, t.kind, t.parent_id, t.require_mfa,
       NOT EXISTS (SELECT FROM users_teams o JOIN users u ON u.id = o.user_id
                    WHERE o.team_id = t.id AND o.role = 'owner' AND u.status = 'active') AS frozen,
       (SELECT count(*) FROM users_teams o JOIN users u ON u.id = o.user_id
         WHERE o.team_id = t.id AND u.status <> 'deleted') AS member_count, m.role, m.is_default
  FROM users_teams m JOIN teams t ON t.id = m.team_id
 WHERE m.user_id = :user::uuid AND t.deleted_at IS NULL ORDER BY m.created_at, t.id LIMIT 200;

-- row: membership
--   team_id uuid, role text, name text

-- name: team_for_token :one membership
-- The team of a new token: the asked one if a member, else the default one, else the earliest joined.
SELECT t.id AS team_id, m.role, t.name FROM users_teams m JOIN teams t ON t.id = m.team_id
 WHERE m.user_id = :user::uuid AND t.deleted_at IS NULL
 ORDER BY (t.id = :asked::uuid?) IS TRUE DESC, m.is_default DESC, m.created_at, t.id LIMIT 1;

-- name: team_insert :exec
-- A new team.
INSERT INTO teams (id, name, slug, created_by) VALUES (:id::uuid, :name::text, :slug::text, :user::uuid?);

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
       (SELECT count(*) AS capsules, coalesce(sum(c.vcpus), 0)::int8 AS vcpus,
               coalesce(sum(c.memory_mb), 0)::int8 AS memory_mb, coalesce(sum(c.disk_size_mb), 0)::int8 AS disk_mb
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
