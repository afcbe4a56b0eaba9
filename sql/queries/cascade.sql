-- cascade.sql - the jobs that follow deletions to their end (spec 01 §6.2, §6.3).

-- name: item_put :exec
-- An item of a job as it is now; the job's counters move with it.
WITH old AS (SELECT n, state FROM job_items WHERE job_id = :job::uuid AND target = :target::text),
     new AS (INSERT INTO job_items (job_id, n, target, state, attempts, error_code, error_text)
	SELECT :job::uuid, coalesce((SELECT n FROM old), (SELECT coalesce(max(n), -1) + 1 FROM job_items WHERE job_id = :job::uuid)),
		:target::text, :state::text, 1, :code::text?, :text::text?
	ON CONFLICT (job_id, n) DO UPDATE SET state = excluded.state, attempts = job_items.attempts + 1,
		error_code = excluded.error_code, error_text = excluded.error_text)
UPDATE jobs SET total = total + CASE WHEN EXISTS (SELECT FROM old) THEN 0 ELSE 1 END,
	done = done + (:state::text = 'succeeded')::int - coalesce((SELECT state = 'succeeded' FROM old), false)::int,
	failed = failed + (:state::text = 'failed')::int - coalesce((SELECT state = 'failed' FROM old), false)::int
 WHERE id = :job::uuid;

-- row: item_counts
--   done int8, failed int8, open int8

-- name: items_count :one item_counts
-- How the items of one kind (cl-, obj-, cn-) ended.
SELECT count(*) FILTER (WHERE state = 'succeeded') AS done, count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE state = 'running') AS open
  FROM job_items WHERE job_id = :job::uuid AND starts_with(target, :prefix::text);

-- row: doomed_capsule
--   id uuid, epoch int8, stopping bool

-- name: capsules_doomed :many doomed_capsule
-- Capsules of a team that are not gone, and no item of this job yet: all, or those that shall stop.
SELECT c.id, c.epoch, c.observed_state = 'stopping' AS stopping FROM capsules c
 WHERE c.team_id = :team::uuid AND c.observed_state <> 'stopped' AND (:all::bool OR c.desired_state = 'stopped')
   AND NOT EXISTS (SELECT FROM job_items i WHERE i.job_id = :job::uuid AND i.target = wire_id('cl-', c.id))
 ORDER BY c.id LIMIT 50;

-- row: item_target
--   target text

-- name: capsules_settled :many item_target
-- Items of this job whose capsule is gone.
SELECT i.target FROM job_items i
 WHERE i.job_id = :job::uuid AND i.state = 'running' AND starts_with(i.target, 'cl-')
   AND NOT EXISTS (SELECT FROM capsules c WHERE c.team_id = ANY (CAST(:teams::text[] AS uuid[])) AND c.observed_state <> 'stopped'
	AND wire_id('cl-', c.id) = i.target)
 LIMIT 500;

-- row: team_at_end
--   id uuid, deleted bool, purged bool

-- name: team_purge_state :one team_at_end
-- Is there something to purge?
SELECT id, deleted_at IS NOT NULL AS deleted, purged_at IS NOT NULL AS purged FROM teams WHERE id = :id::uuid FOR NO KEY UPDATE;

-- name: team_templates_delete :exec
-- Its templates start nothing any more; their blocks go by reference count.
UPDATE templates SET deleted_at = now() WHERE team_id = :team::uuid AND deleted_at IS NULL;

-- name: team_snapshots_delete :exec
-- Its snapshots: the host's copies go by reference count.
DELETE FROM snapshots WHERE team_id = :team::uuid;

-- row: team_host
--   id uuid, status text

-- name: team_hosts :many team_host
-- Its hosts, to be decommissioned.
SELECT id, status FROM hosts WHERE team_id = :team::uuid AND deleted_at IS NULL ORDER BY id;

-- name: host_tokens_forget :exec
-- Registration tokens of a host, the used ones too.
DELETE FROM host_tokens WHERE host_id = :host::uuid;

-- name: team_images_forget :exec
-- Images of its capsules, which are all gone: their artifacts go by reference count (artifact.gc).
DELETE FROM capsule_images WHERE team_id = :team::uuid;

-- name: team_points_forget :exec
-- What its capsules used.
DELETE FROM capsule_metrics WHERE team_id = :team::uuid;

-- name: team_samples_forget :exec
-- What it held.
DELETE FROM team_metric_snapshots WHERE team_id = :team::uuid;

-- name: team_answers_forget :exec
-- Answers that are kept for it.
DELETE FROM idempotency_keys WHERE scope_id = :team::uuid;

-- name: team_members_forget :exec
-- Who was in it.
DELETE FROM users_teams WHERE team_id = :team::uuid;

-- name: team_invitations_forget :exec
-- Whom it invited.
DELETE FROM team_invitations WHERE team_id = :team::uuid;

-- name: team_roles_forget :exec
-- Its custom roles.
DELETE FROM team_roles WHERE team_id = :team::uuid;

-- name: team_quota_forget :exec
-- Its own limits.
DELETE FROM quotas WHERE team_id = :team::uuid AND team_id <> '00000000-0000-0000-0000-000000000000';

-- name: team_children_free :exec
-- Teams below it stand alone.
UPDATE teams SET parent_id = NULL WHERE parent_id = :team::uuid;

-- name: team_set_purged :exec
-- What stays: the row with id and slug, usage, invoices, audit. Personal teams bear a person's name.
UPDATE teams SET name = 'deleted team', settings = '{}', created_by = NULL, purged_at = now(), updated_at = now()
 WHERE id = :team::uuid AND purged_at IS NULL;

-- row: purge_start
--   due bool, waits bool

-- name: user_purge_due :one purge_start
-- Still deleted, and the days of grace are over? waits: teams that went with it are not purged yet.
SELECT u.status = 'deleted' AND u.purge_after <= now() AS due,
       EXISTS (SELECT FROM users_teams m JOIN teams t ON t.id = m.team_id
                WHERE m.user_id = u.id AND t.deleted_at IS NOT NULL AND t.purged_at IS NULL) AS waits
  FROM users u WHERE u.id = :id::uuid FOR NO KEY UPDATE OF u;

-- name: user_purge_begin :exec
-- From here on nobody restores it.
UPDATE users SET purge_started_at = coalesce(purge_started_at, now()) WHERE id = :id::uuid;

-- row: anonymised
--   n int8, digest text, batch int8

-- name: audit_anonymise :one anonymised
-- Takes a person out of the next rows of the audit log.
SELECT n, digest, batch FROM audit_anonymise(:user::uuid, :most::int4);

-- row: page_end
--   last uuid?, n int8

-- name: events_forget :one page_end
-- Takes a person out of the next page of events.
WITH page AS (SELECT id, at FROM events WHERE id > :after::uuid ORDER BY id LIMIT :most::int4),
     done AS (UPDATE events e SET user_id = nullif(e.user_id, :user::uuid),
	actor_name = CASE WHEN e.actor_id = :wire::text THEN 'deleted-user' ELSE e.actor_name END,
	actor_id = nullif(e.actor_id, :wire::text), resource_id = nullif(e.resource_id, :wire::text),
	data = replace(replace(e.data::text, :wire::text, 'usr-0000000000000000000000000'), :email::text, 'deleted-user')::jsonb
	FROM page WHERE e.id = page.id AND e.at = page.at AND (e.user_id = :user::uuid OR e.actor_id = :wire::text
		OR e.resource_id = :wire::text OR strpos(e.data::text, :wire::text) > 0 OR strpos(e.data::text, :email::text) > 0))
SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM page) AS n;

-- name: jobs_forget :one page_end
-- Takes a person out of the next page of jobs. A job that bears his name goes on without it.
WITH page AS (SELECT id FROM jobs WHERE id > :after::uuid ORDER BY id LIMIT :most::int4),
     done AS (UPDATE jobs j SET actor_name = CASE WHEN j.actor_id = :wire::text THEN 'deleted-user' ELSE j.actor_name END,
	actor_id = nullif(j.actor_id, :wire::text), unique_key = nullif(j.unique_key, :wire::text), lock_key = nullif(j.lock_key, :wire::text),
	args = CASE WHEN strpos(j.args::text, :wire::text) > 0 THEN '{}' ELSE j.args END
	FROM page WHERE j.id = page.id AND j.id <> :self::uuid AND (j.actor_id = :wire::text OR j.unique_key = :wire::text
		OR j.lock_key = :wire::text OR strpos(j.args::text, :wire::text) > 0))
SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM page) AS n;

-- name: job_forget_self :exec
-- The purge's own row names nobody any more.
UPDATE jobs SET actor_name = CASE WHEN actor_id = :wire::text THEN 'deleted-user' ELSE actor_name END,
       actor_id = nullif(actor_id, :wire::text), unique_key = NULL, lock_key = NULL, args = '{}' WHERE id = :id::uuid;

-- name: emails_forget :one page_end
-- Takes a person out of the next page of mails: those to him, and those that tell others who it was.
WITH page AS (SELECT id FROM emails WHERE id > :after::uuid ORDER BY id LIMIT :most::int4),
     done AS (UPDATE emails e SET user_id = nullif(e.user_id, :user::uuid), vars = '{}',
	to_addr = CASE WHEN e.user_id = :user::uuid OR e.to_addr = :email::text THEN NULL ELSE e.to_addr END,
	to_name = CASE WHEN e.user_id = :user::uuid OR e.to_addr = :email::text THEN NULL ELSE e.to_name END,
	state = CASE WHEN e.state = 'queued' THEN 'expired' ELSE e.state END
	FROM page WHERE e.id = page.id AND e.template <> 'account_purged' AND (e.user_id = :user::uuid OR e.to_addr = :email::text
		OR e.vars->>'by' = :name::text OR e.vars->>'inviter' = :name::text OR strpos(e.vars::text, :email::text) > 0))
SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM page) AS n;

-- name: invitations_to_forget :exec
-- Invitations to the address.
DELETE FROM team_invitations WHERE email = :email::text;

-- name: idempotency_forget :exec
-- Answers that are kept for the person.
DELETE FROM idempotency_keys WHERE scope_id = :user::uuid;

-- name: user_gone :exec
-- The account; foreign keys do the rest.
DELETE FROM users WHERE id = :id::uuid AND status = 'deleted';

-- row: missing_purge
--   kind text, id uuid, run_at timestamptz?

-- name: purges_missing :many missing_purge
-- Deleted accounts and teams that nobody purges.
SELECT 'user.purge' AS kind, u.id, u.purge_after AS run_at FROM users u
 WHERE u.status = 'deleted' AND NOT EXISTS (SELECT FROM jobs j WHERE j.kind = 'user.purge' AND j.unique_key = wire_id('usr-', u.id)
	AND j.state IN ('queued','running'))
 UNION ALL
SELECT 'team.purge', t.id, NULL FROM teams t
 WHERE t.deleted_at IS NOT NULL AND t.purged_at IS NULL AND NOT EXISTS (SELECT FROM jobs j WHERE j.kind = 'team.purge'
	AND j.unique_key = wire_id('team-', t.id) AND j.state IN ('queued','running'))
 LIMIT 500;
