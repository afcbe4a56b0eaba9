-- sweeper.sql - what makes up for every loss: of Redis, of workers, of time (spec 04 §2.2, §2.4).

-- row: swept_lock
--   got bool

-- row: swept_due
--   id uuid, queue text, priority int4

-- row: swept
--   id uuid, kind text, state text, team_id uuid, visible bool, error_code text?, actor_type text, actor_id text?, actor_name text?

-- row: swept_slot
--   name text, slot timestamptz

-- name: sweep_lock :one swept_lock
-- One sweeper at a time.
SELECT pg_try_advisory_lock(hashtextextended('hutch.sweeper', 0)) AS got;

-- name: sweep_unlock :exec
-- Lets the next one in.
SELECT pg_advisory_unlock(hashtextextended('hutch.sweeper', 0));

-- name: sweep_announce :many swept_due
-- Due jobs nobody was told of, or was told of 10 s ago and more: up to 500 of a queue, teams in turn, none of a team at its limit.
WITH pick AS (
	SELECT id, row_number() OVER (PARTITION BY team_id ORDER BY priority, run_at) AS turn, priority, run_at
	  FROM (SELECT id, team_id, priority, run_at FROM jobs w
		WHERE queue = :queue::text AND state = 'queued' AND run_at <= now()
		  AND (announced_at IS NULL OR announced_at < now() - interval '10 seconds')
		  AND NOT EXISTS (SELECT FROM queues q WHERE q.name = w.queue AND q.paused)
		ORDER BY priority, run_at LIMIT 5000) AS due
	  LEFT JOIN (SELECT team_id AS team, count(*) AS n FROM jobs WHERE queue = :queue::text AND state = 'running'
		GROUP BY team_id) AS busy ON busy.team = due.team_id
	 WHERE :per_team::int4 = 0 OR :per_team::int4 > coalesce(busy.n, 0)
	 ORDER BY turn, priority, run_at LIMIT 500
), told AS (
	UPDATE jobs j SET announced_at = now() FROM pick WHERE j.id = pick.id AND j.state = 'queued'
	RETURNING j.id, j.queue, j.priority::int AS priority, pick.turn, j.run_at
)
SELECT id, queue, priority FROM told ORDER BY turn, priority, run_at;

-- name: sweep_leases :many swept
-- Jobs whose worker was silent too long: back to the queue, or failed as poison at the third crash.
UPDATE jobs j SET crashes = crashes + 1, lease_until = NULL, worker = NULL, announced_at = NULL,
	state = CASE WHEN crashes >= 2 THEN 'failed' ELSE 'queued' END,
	run_at = now() + interval '10 seconds' * power(3, crashes) * (0.8 + 0.2 * random()),
	error_code = CASE WHEN crashes >= 2 THEN 'poison' ELSE 'crash' END,
	error_text = CASE WHEN crashes >= 2 THEN 'the job crashed its worker three times' ELSE 'the worker died' END,
	finished_at = CASE WHEN crashes >= 2 THEN now() END
  FROM (SELECT id FROM jobs WHERE state = 'running' AND lease_until < now() LIMIT 500 FOR UPDATE SKIP LOCKED) AS dead
 WHERE j.id = dead.id
RETURNING j.id, j.kind, j.state, j.team_id, j.visible, j.error_code, j.actor_type, j.actor_id, j.actor_name;

-- name: job_crashed :many swept
-- The same for one job whose child is known to be dead.
UPDATE jobs j SET crashes = crashes + 1, lease_until = NULL, worker = NULL, announced_at = NULL,
	state = CASE WHEN crashes >= 2 THEN 'failed' ELSE 'queued' END,
	run_at = now() + interval '10 seconds' * power(3, crashes) * (0.8 + 0.2 * random()),
	error_code = CASE WHEN crashes >= 2 THEN 'poison' ELSE 'crash' END,
	error_text = CASE WHEN crashes >= 2 THEN 'the job crashed its worker three times' ELSE 'the worker died' END,
	finished_at = CASE WHEN crashes >= 2 THEN now() END
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND state = 'running'
RETURNING j.id, j.kind, j.state, j.team_id, j.visible, j.error_code, j.actor_type, j.actor_id, j.actor_name;

-- name: sweep_deadlines :many swept
-- Jobs whose deadline passed. A running one has no row any more at its next fence, and its child is killed.
UPDATE jobs j SET state = 'failed', error_code = 'deadline', error_text = coalesce(error_text, 'the deadline passed'),
	lease_until = NULL, worker = NULL, finished_at = now()
  FROM (SELECT id FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'queued' AND deadline_at < now()
		UNION ALL SELECT id FROM jobs WHERE state = 'running' AND deadline_at < now())
	LIMIT 500 FOR UPDATE SKIP LOCKED) AS late
 WHERE j.id = late.id
RETURNING j.id, j.kind, j.state, j.team_id, j.visible, j.error_code, j.actor_type, j.actor_id, j.actor_name;

-- name: timer_fire :many swept_slot
-- The timers whose present slot was not taken yet; the slot is the database's time cut to the period.
INSERT INTO timer_slots (name, slot)
SELECT t.name, to_timestamp(floor(extract(epoch FROM now()) / CAST(t.period AS int)) * CAST(t.period AS int))
  FROM unnest(:names::text[], :periods::text[]) AS t (name, period)
ON CONFLICT DO NOTHING RETURNING name, slot;

-- name: timer_job :exec
-- Which job a slot started.
UPDATE timer_slots SET job_id = :job::uuid WHERE name = :name::text AND slot = :slot::timestamptz;

-- name: retain_jobs :exec
-- Finished jobs that were kept long enough: failed ones 90 days, others as their kind says (0 days is an hour).
DELETE FROM jobs WHERE id IN (SELECT j.id FROM jobs j
	LEFT JOIN unnest(:kinds::text[], :days::text[]) AS k (kind, days) ON k.kind = j.kind
	WHERE j.finished_at < now() - CASE WHEN coalesce(CAST(k.days AS int), 30) = 0 THEN interval '1 hour'
		WHEN j.state = 'failed' THEN interval '90 days' ELSE make_interval(days => coalesce(CAST(k.days AS int), 30)) END
	LIMIT 10000);

-- name: retain_slots :exec
-- Slots of timers long past; a day's timer needs its present one.
DELETE FROM timer_slots WHERE slot < now() - interval '3 days';

-- name: retain_tokens :exec
-- One-time tokens that expired a day ago.
DELETE FROM one_time_tokens WHERE token_hash IN
	(SELECT token_hash FROM one_time_tokens WHERE expires_at < now() - interval '1 day' LIMIT 10000);

-- name: retain_idempotency :exec
-- Idempotency records whose time is over.
DELETE FROM idempotency_keys WHERE (scope_id, route, key) IN
	(SELECT scope_id, route, key FROM idempotency_keys WHERE expires_at < now() LIMIT 10000);

-- name: retain_sessions :exec
-- Logins that ended 60 days ago: until then their device is known.
DELETE FROM login_sessions WHERE id IN
	(SELECT id FROM login_sessions WHERE expires_at < now() - interval '60 days' LIMIT 10000);

-- name: retain_addresses :exec
-- Addresses of mails older than 30 days are erased.
UPDATE emails SET to_addr = NULL, to_name = NULL WHERE id IN
	(SELECT id FROM emails WHERE to_addr IS NOT NULL AND created_at < now() - interval '30 days' LIMIT 10000);

-- name: retain_unsent :exec
-- Mails whose time is over without having been sent.
UPDATE emails SET state = 'expired', reason = coalesce(reason, 'expired') WHERE state = 'queued' AND expires_at < now() - interval '1 hour';

-- name: retain_signups :exec
-- People who never activated their account within 7 days.
DELETE FROM users WHERE id IN
	(SELECT id FROM users WHERE status = 'inactive' AND created_at < now() - interval '7 days' LIMIT 10000);

-- row: partitions
--   n int4

-- name: partitions_make :one partitions
-- Partitions of the coming months are made, old ones dropped.
SELECT events_partitions(:keep_days::int4) AS n;
