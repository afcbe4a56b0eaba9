-- deletion.sql - the ends of accounts and teams, and their returns (spec 01 §1.1, §6); lib/deletion.c.

-- row: dying
--   id uuid, email text, name text, status text, platform_role text, deleted_from text?, purging bool, grace_days_left int8

-- name: platform_lock :exec
-- First lock of all: who is a platform administrator does not change until the end of the transaction.
SELECT 1 FROM platform_state FOR NO KEY UPDATE;

-- name: dying_lock :one dying
-- An account, locked: no session, key or ticket is made for it meanwhile.
SELECT id, email, name, status, platform_role, deleted_from, purge_started_at IS NOT NULL AS purging,
       extract(epoch FROM purge_after - now())::int8 / 86400 AS grace_days_left
  FROM users WHERE id = :id::uuid FOR NO KEY UPDATE;

-- row: tally
--   n int8

-- name: admins_left :one tally
-- Active platform administrators beside one account.
SELECT count(*) AS n FROM users WHERE platform_role = 'admin' AND status = 'active' AND id <> :id::uuid;

-- name: admin_is_active :one tally
-- Is the caller still an active platform administrator?
SELECT count(*) AS n FROM users WHERE platform_role = 'admin' AND status = 'active' AND id = :id::uuid;

-- row: his_team
--   id uuid, name text, role text, others int8, other_owner bool

-- name: his_teams_lock :exec
-- The live teams of an account, locked in order of id.
SELECT 1 FROM teams WHERE id IN (SELECT team_id FROM users_teams WHERE user_id = :user::uuid) AND deleted_at IS NULL
 ORDER BY id FOR NO KEY UPDATE;

-- name: his_teams :many his_team
-- The live teams of an account: who else is in them, and is there another active owner?
SELECT t.id, t.name, m.role,
       (SELECT count(*) FROM users_teams o JOIN users u ON u.id = o.user_id
         WHERE o.team_id = t.id AND o.user_id <> m.user_id AND u.status <> 'deleted') AS others,
       EXISTS (SELECT FROM users_teams o JOIN users u ON u.id = o.user_id
                WHERE o.team_id = t.id AND o.user_id <> m.user_id AND o.role = 'owner' AND u.status = 'active') AS other_owner
  FROM users_teams m JOIN teams t ON t.id = m.team_id
 WHERE m.user_id = :user::uuid AND t.deleted_at IS NULL ORDER BY t.id;

-- row: dying_team
--   id uuid, name text, deleted bool, is_platform bool

-- name: dying_team_lock :one dying_team
-- A team, locked: nothing is made in it meanwhile.
SELECT id, name, deleted_at IS NOT NULL AS deleted, slug = 'platform' AS is_platform FROM teams WHERE id = :id::uuid FOR NO KEY UPDATE;

-- name: team_creations_wait :exec
-- Waits for whoever is making capsules in the team; the next one sees what this transaction did.
SELECT pg_advisory_xact_lock(hashtextextended(:team::uuid::text, 11));

-- row: gone_key
--   id uuid, team_id uuid, name text

-- name: keys_of_user_delete :many gone_key
-- All keys that a person made, of all kinds and teams.
WITH gone AS (DELETE FROM api_keys WHERE created_by = :user::uuid RETURNING id, team_id, name)
SELECT id, team_id, name FROM gone ORDER BY team_id, id;

-- name: keys_of_team_delete :many gone_key
-- All keys of a team.
WITH gone AS (DELETE FROM api_keys WHERE team_id = :team::uuid RETURNING id, team_id, name)
SELECT id, team_id, name FROM gone ORDER BY team_id, id;

-- name: keys_of_logins_delete :many gone_key
-- The keys that live as long as a login of the person does.
WITH gone AS (DELETE FROM api_keys WHERE session_id IN (SELECT id FROM login_sessions WHERE user_id = :user::uuid)
   RETURNING id, team_id, name)
SELECT id, team_id, name FROM gone ORDER BY team_id, id;

-- name: tokens_of_user_delete :exec
-- Links that were mailed to a person.
DELETE FROM one_time_tokens WHERE user_id = :user::uuid;

-- name: capsules_shall_stop :exec
-- Every capsule of the team that is not stopped shall stop; a job follows it to the end.
UPDATE capsules SET desired_state = 'stopped', generation = generation + 1
 WHERE team_id = :team::uuid AND observed_state <> 'stopped' AND desired_state <> 'stopped';

-- name: user_set_disabled :exec
-- active, inactive -> disabled.
UPDATE users SET status = 'disabled', disabled_at = now(), updated_at = now() WHERE id = :id::uuid;

-- name: user_set_enabled :exec
-- Whatever happened since: found by status, never by a date.
UPDATE users SET status = 'active', disabled_at = NULL, activated_at = coalesce(activated_at, now()), updated_at = now() WHERE id = :id::uuid;

-- row: purge_time
--   purge_after timestamptz

-- name: user_set_deleted :one purge_time
-- The days of grace begin.
UPDATE users SET deleted_from = status, status = 'deleted', deleted_at = now(), updated_at = now(),
       purge_after = now() + make_interval(days => :days::int4)
 WHERE id = :id::uuid RETURNING purge_after;

-- name: user_purge_now :exec
-- No days of grace.
UPDATE users SET purge_after = least(purge_after, now()) WHERE id = :id::uuid;

-- name: purge_job_now :exec
-- Its job is due.
UPDATE jobs SET run_at = now(), announced_at = NULL WHERE kind = 'user.purge' AND unique_key = :key::text AND state = 'queued';

-- name: purge_job_cancel :exec
-- A restored account is not purged.
UPDATE jobs SET state = 'cancelled', finished_at = now(), announced_at = NULL
 WHERE kind = 'user.purge' AND unique_key = :key::text AND state = 'queued';

-- name: user_set_restored :exec
-- As it was before.
UPDATE users SET status = coalesce(deleted_from, 'active'), deleted_from = NULL, deleted_at = NULL, purge_after = NULL, updated_at = now()
 WHERE id = :id::uuid;

-- name: team_set_deleted :exec
-- The team is gone for everybody.
UPDATE teams SET deleted_at = now(), updated_at = now() WHERE id = :id::uuid;

-- row: person
--   id uuid, email text, name text

-- name: team_people :many person
-- Who is told that his team is gone.
SELECT u.id, u.email, u.name FROM users_teams m JOIN users u ON u.id = m.user_id
 WHERE m.team_id = :team::uuid AND u.status = 'active' ORDER BY u.id;

-- name: invitations_of_team_revoke :exec
-- Nobody joins a deleted team.
UPDATE team_invitations SET revoked_at = now() WHERE team_id = :team::uuid AND revoked_at IS NULL;

-- name: invitations_by_user_revoke :exec
-- What he offered counts no longer.
UPDATE team_invitations SET revoked_at = now() WHERE invited_by = :user::uuid AND revoked_at IS NULL;
