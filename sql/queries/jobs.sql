-- jobs.sql - jobs from their insertion to their end (spec 04 §2).

-- row: job_in
--   id uuid, inserted bool, claimed bool

-- row: job_one
--   one int4

-- row: job_id
--   id uuid

-- row: job
--   id uuid, kind text, queue text, team_id uuid, priority int4, actor_type text, actor_id text?, actor_name text?,
--   request_id text?, traceparent text?, args jsonb, lock_key text?, attempts int4, waits int4, epoch int8,
--   checkpoint jsonb?, visible bool

-- row: job_held
--   kind text, queue text, team_id uuid, lock_key text?, visible bool, attempts int4, waits int4, epoch int8,
--   actor_type text, actor_id text?, actor_name text?

-- row: job_due
--   id uuid, queue text, priority int4

-- row: job_still
--   id uuid, epoch int8, cancel bool

-- row: job_asked
--   actor_type text, actor_id text?, actor_name text?

-- name: job_asker :one job_asked
-- Who asked for what is being done under the lock.
SELECT actor_type, actor_id, actor_name FROM jobs WHERE lock_key = :lock::text AND state = 'running' AND kind = :kind::text;

-- name: job_insert :one job_in
-- A new job, or the first of the same kind and unique key.
SELECT * FROM job_insert(:id::uuid, :kind::text, :queue::text, :priority::int4, :team::uuid, :actor_type::text,
	:actor_id::text?, :actor_name::text?, :request::text?, :trace::text?, :args::text::jsonb, :unique_key::text?,
	:lock_key::text?, :run_at::timestamptz?, :deadline::timestamptz?, :visible::bool, :worker::text?, :lease_sec::int4);

-- name: job_fence :one job_one
-- Is this run still ours? Locks the row for share, so that a takeover waits for the open transaction.
SELECT 1 AS one FROM jobs WHERE id = :id::uuid AND epoch = :epoch::int8 AND state = 'running' FOR SHARE;

-- name: job_renew :exec
-- A longer lease for one job.
UPDATE jobs SET lease_until = now() + make_interval(secs => :lease_sec::int4)
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND state = 'running';

-- name: job_claim_lock :exec
-- Serialises claims of one queue and team, so that the limit per team holds.
SELECT pg_advisory_xact_lock(hashtextextended(:queue::text || (SELECT team_id FROM jobs WHERE id = :id::uuid)::text, 0));

-- name: job_claim :one job
-- Takes a queued job, unless its queue is paused or its team has its share; a second statement, to see what the lock waited for.
UPDATE jobs j SET state = 'running', epoch = epoch + 1, attempts = attempts + 1, worker = :worker::text,
	lease_until = now() + make_interval(secs => :lease_sec::int4), started_at = coalesce(started_at, now())
 WHERE id = :id::uuid AND state = 'queued' AND run_at <= now() AND (deadline_at IS NULL OR deadline_at > now())
   AND NOT EXISTS (SELECT FROM queues q WHERE q.name = j.queue AND q.paused)
   AND NOT EXISTS (SELECT FROM jobs r WHERE r.lock_key = j.lock_key AND r.state = 'running')
   AND (:per_team::int4 = 0 OR :per_team::int4 > (SELECT count(*) FROM jobs r
	WHERE r.queue = j.queue AND r.team_id = j.team_id AND r.state = 'running'))
RETURNING id, kind, queue, team_id, priority::int AS priority, actor_type, actor_id, actor_name, request_id, traceparent,
	args, lock_key, attempts, waits, epoch, checkpoint, visible;

-- name: job_peek :one job_id
-- Without Redis: the next job of the queue that could be claimed.
SELECT id FROM jobs j
 WHERE queue = :queue::text AND state = 'queued' AND run_at <= now()
   AND NOT EXISTS (SELECT FROM queues q WHERE q.name = j.queue AND q.paused)
   AND NOT EXISTS (SELECT FROM jobs r WHERE r.lock_key = j.lock_key AND r.state = 'running')
   AND (:per_team::int4 = 0 OR :per_team::int4 > (SELECT count(*) FROM jobs r
	WHERE r.queue = j.queue AND r.team_id = j.team_id AND r.state = 'running'))
 ORDER BY priority, run_at LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: job_hold :one job_held
-- First statement of a job's end: waits for whoever holds the row.
SELECT kind, queue, team_id, lock_key, visible, attempts, waits, epoch, actor_type, actor_id, actor_name
  FROM jobs WHERE id = :id::uuid AND epoch = :epoch::int8 AND state = 'running' FOR UPDATE;

-- name: job_end :exec
-- Second statement of a job's end; see spec 04 §2.2 for why it is a second one.
UPDATE jobs SET state = :state::text, lease_until = NULL, worker = NULL,
	run_at = CASE WHEN :state::text = 'queued' THEN now() + :delay_us::int8 * interval '1 microsecond' ELSE run_at END,
	announced_at = CASE WHEN :state::text = 'queued' AND :delay_us::int8 = 0 THEN now() END,
	attempts = attempts - :uncount::int4, waits = waits + :wait::int4,
	result = coalesce(:result::text?::jsonb, result), error_code = :error_code::text?, error_text = :error_text::text?,
	cancel_requested_at = CASE WHEN :state::text = 'queued' THEN cancel_requested_at END,
	finished_at = CASE WHEN :state::text <> 'queued' THEN now() END
 WHERE id = :id::uuid;

-- name: job_next :many job_due
-- Who waited behind a job that ended: the next of its team, if that was at its limit, and the next of its lock.
SELECT id, queue, priority::int AS priority FROM jobs WHERE id IN (
	(SELECT n.id FROM jobs n
	  WHERE n.queue = :queue::text AND n.team_id = :team::uuid AND n.state = 'queued' AND n.run_at <= now()
	    AND :per_team::int4 > 0 AND :per_team::int4 - 1 <= (SELECT count(*) FROM jobs r
		WHERE r.queue = :queue::text AND r.team_id = :team::uuid AND r.state = 'running')
	  ORDER BY n.priority, n.run_at LIMIT 1)
	UNION ALL
	(SELECT n.id FROM jobs n WHERE n.lock_key = :lock_key::text? AND n.state = 'queued' AND n.run_at <= now()
	  ORDER BY n.priority, n.run_at LIMIT 1));

-- name: job_checkpoint :exec
-- Saves how far a job is; in the effect's transaction, behind the fence.
UPDATE jobs SET checkpoint = :checkpoint::text::jsonb, phase = :phase::text?
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND state = 'running';

-- name: job_item_add :exec
-- One item of a job; a second time it is the same item.
INSERT INTO job_items (job_id, n, target, state, attempts)
VALUES (:id::uuid, :n::int4, :target::text, :state::text, 1) ON CONFLICT DO NOTHING;

-- name: job_renew_all :exec
-- The parent's beat: longer leases for what its children do. Locked rows are skipped: their transaction is open.
UPDATE jobs j SET lease_until = now() + make_interval(secs => :lease_sec::int4)
  FROM (SELECT r.id FROM jobs r
	JOIN unnest(:ids::text[], :epochs::text[]) AS mine (id, epoch)
	  ON r.id = CAST(mine.id AS uuid) AND r.epoch = CAST(mine.epoch AS bigint)
	WHERE r.state = 'running' FOR UPDATE OF r SKIP LOCKED) AS held
 WHERE j.id = held.id;

-- name: job_alive :many job_still
-- Which of the children's jobs are still theirs, and who wants them cancelled.
SELECT r.id, r.epoch, r.cancel_requested_at IS NOT NULL AS cancel
  FROM jobs r JOIN unnest(:ids::text[], :epochs::text[]) AS mine (id, epoch)
    ON r.id = CAST(mine.id AS uuid) AND r.epoch = CAST(mine.epoch AS bigint)
 WHERE r.state = 'running';
