-- live.sql - events for live streams (spec 04 §6), read by the gateway as hutch_work. What the relay has numbered is
-- committed in the order of gpos: who has read up to one number has missed nothing below it.

-- row: live_head
--   gpos int8

-- row: live_since
--   gpos int8?, more int8

-- row: live_event
--   gpos int8, seq int8, v int4, id uuid, at timestamptz, team_id uuid, user_id uuid?, capsule_id uuid?, type text, category text,
--   actor_type text, actor_id text?, actor_name text?, resource_type text?, resource_id text?, data jsonb, request_id text?,
--   visibility text?, owner_id uuid?

-- row: live_job
--   actor_id text?

-- row: live_place
--   id uuid, address text

-- row: live_figures
--   figures text

-- name: live_places :many live_place
-- Where these capsules (a JSON array) run; only those that do.
SELECT c.id, h.dial AS address FROM capsules c JOIN hosts h ON h.id = c.host_id
 WHERE c.id IN (SELECT i::uuid FROM jsonb_array_elements_text(:ids::text::jsonb) i) AND c.observed_state = 'running';

-- name: live_figures_get :one live_figures
-- The platform at a glance, for those who run it; counts of rows that live, by partial indexes where tables grow.
SELECT json_build_object('at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
	'capsules', (SELECT coalesce(json_object_agg(s.state, s.n), '{}') FROM (SELECT observed_state AS state, count(*) AS n
		FROM capsules WHERE observed_state <> 'stopped' GROUP BY 1 ORDER BY 1) s),
	'reserved_vcpus', coalesce(r.vcpus, 0), 'reserved_memory_mb', coalesce(r.mb, 0),
	'hosts', (SELECT coalesce(json_object_agg(s.status, s.n), '{}') FROM (SELECT status, count(*) AS n
		FROM hosts WHERE deleted_at IS NULL GROUP BY 1 ORDER BY 1) s),
	'host_cpu_cores', coalesce(h.cores, 0), 'host_memory_mb', coalesce(h.mb, 0), 'host_free_memory_mb', coalesce(h.free, 0),
	'jobs_queued', (SELECT count(*) FROM jobs WHERE state = 'queued' AND run_at <= now()),
	'jobs_running', (SELECT count(*) FROM jobs WHERE state = 'running'),
	'events_waiting', (SELECT count(*) FROM events WHERE seq IS NULL))::text AS figures
  FROM (SELECT sum(vcpus) AS vcpus, sum(memory_mb) AS mb FROM capsules
	 WHERE observed_state IN ('starting','running','pausing','resuming','hibernating','missing')
	    OR (observed_state = 'paused' AND residency IS DISTINCT FROM 'disk')) r,
       (SELECT sum(cpu_cores) AS cores, sum(memory_mb) AS mb, sum(free_memory_mb) AS free FROM hosts
	 WHERE status = 'online' AND deleted_at IS NULL) h;

-- name: live_head_get :one live_head
-- The number given last.
SELECT gpos FROM event_relay;

-- name: live_next :many live_event
-- Of all teams, in order.
SELECT e.gpos, e.seq, e.v::int AS v, e.id, e.at, e.team_id, e.user_id, e.capsule_id, e.type, e.category, e.actor_type, e.actor_id,
       e.actor_name, e.resource_type, e.resource_id, e.data, e.request_id, c.visibility, c.owner_id
  FROM events e LEFT JOIN capsules c ON c.id = e.capsule_id
 WHERE e.gpos > :after::int8 ORDER BY e.gpos LIMIT :limit::int4;

-- name: live_since_get :one live_since
-- Where the client's last event stands, if it is of the last day and was one it could see; how many of its topics came after it.
WITH s AS (SELECT e.gpos FROM events e WHERE e.id = :id::uuid AND e.at > now() - interval '24 hours'
	AND (e.team_id = :team::uuid? OR e.user_id = :user::uuid?))
SELECT s.gpos, (SELECT count(*) FROM (SELECT FROM events e
	WHERE e.gpos > s.gpos AND e.gpos <= :head::int8 AND (e.team_id = :team::uuid? OR e.user_id = :user::uuid?)
	  AND (:capsule::uuid? IS NULL OR e.capsule_id = :capsule::uuid?)
	  AND (:job::text? IS NULL OR (e.resource_type = 'job' AND e.resource_id = :job::text?)) LIMIT 10001) n) AS more
  FROM s;

-- name: live_replay :many live_event
-- Of one team and one user, up to a number that is known to be complete.
SELECT e.gpos, e.seq, e.v::int AS v, e.id, e.at, e.team_id, e.user_id, e.capsule_id, e.type, e.category, e.actor_type, e.actor_id,
       e.actor_name, e.resource_type, e.resource_id, e.data, e.request_id, c.visibility, c.owner_id
  FROM events e LEFT JOIN capsules c ON c.id = e.capsule_id
 WHERE e.gpos > :after::int8 AND e.gpos <= :head::int8 AND (e.team_id = :team::uuid? OR e.user_id = :user::uuid?)
   AND (:capsule::uuid? IS NULL OR e.capsule_id = :capsule::uuid?)
   AND (:job::text? IS NULL OR (e.resource_type = 'job' AND e.resource_id = :job::text?))
 ORDER BY e.gpos LIMIT :limit::int4;

-- name: live_job_get :one live_job
-- Who asked for a job of the team.
SELECT actor_id FROM jobs WHERE id = :id::uuid AND team_id = :team::uuid AND visible;
