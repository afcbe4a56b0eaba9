-- e2b.sql - capsules, snapshots and templates as clients of the E2B protocol see them (spec 06).

-- row: sandbox
--   id uuid, team_id uuid, template_id uuid, snapshot_id uuid?, alias text?, created_at timestamptz, started_at timestamptz,
--   ends_at timestamptz, left_s int8?, state text?, observed text, epoch int8, vcpus int4, memory_mb int4, disk_size_mb int4,
--   metadata jsonb, network jsonb, internet bool, public_traffic bool, ingress jsonb, idle_action text, auto_resume text, timeout_mode text,
--   timeout_sec int4, op text?, idle_memory bool

-- part: sandboxes
SELECT c.id, c.team_id, c.template_id, c.snapshot_id, coalesce(s.alias, CASE WHEN c.snapshot_id IS NULL THEN c.template_name END) AS alias,
       c.created_at, coalesce(c.started_at, c.created_at) AS started_at,
       coalesce(least(CASE WHEN c.timeout_mode = 'fixed' THEN c.deadline_at END, CASE WHEN c.max_lifetime_sec > 0
         THEN c.started_at + make_interval(secs => c.max_lifetime_sec) END), '9999-12-31T23:59:59Z') AS ends_at,
       CASE WHEN c.timeout_mode = 'fixed' THEN extract(epoch FROM c.deadline_at - now())::int8 END AS left_s,
       CASE WHEN c.observed_state IN ('pending','starting','running','resuming','missing') THEN 'running'
            WHEN c.observed_state IN ('pausing','paused','hibernating','hibernated') THEN 'paused' END AS state,
       c.observed_state AS observed, c.epoch, c.vcpus, c.memory_mb, c.disk_size_mb, c.metadata, c.network, coalesce((c.network->>'internet')::bool, true) AS internet, c.public_traffic, c.ingress,
       c.idle_action, c.auto_resume, c.timeout_mode, c.timeout_sec, c.op, c.idle_memory
  FROM capsules c LEFT JOIN snapshots s ON s.id = c.snapshot_id

-- part: listed
WHERE c.team_id = current_team() AND c.purpose = 'user' AND c.observed_state <> 'stopped'
   AND (:running::bool AND c.observed_state IN ('pending','starting','running','resuming','missing')
     OR :paused::bool AND c.observed_state IN ('pausing','paused','hibernating','hibernated'))
   AND (:metadata::jsonb? IS NULL OR c.metadata @> :metadata::jsonb?)
   AND (:started_after::timestamptz? IS NULL OR coalesce(c.started_at, c.created_at) > :started_after::timestamptz?)
   AND (:template::text? IS NULL OR c.template_name = :template::text? OR s.alias = :template::text?
     OR coalesce(c.snapshot_id, c.template_id) = :template_id::uuid?)

-- name: e2b_get :one sandbox
-- A capsule of the tenant in any state; state is NULL where these routes do not show it.
{{sandboxes}}
 WHERE c.id = :id::uuid AND c.team_id = current_team();

-- name: e2b_list :many sandbox
-- Running and sleeping capsules of the tenant, newest first.
{{sandboxes}}
 {{listed}}
   AND (c.created_at, c.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY c.created_at DESC, c.id DESC LIMIT :limit::int4;

-- name: e2b_list_up :many sandbox
-- The same, oldest first.
{{sandboxes}}
 {{listed}}
   AND (c.created_at, c.id) > (coalesce(:after::timestamptz?, '-infinity'),
       coalesce(:after_id::uuid?, '00000000-0000-0000-0000-000000000000'))
 ORDER BY c.created_at, c.id LIMIT :limit::int4;

-- row: sandbox_count
--   n int8

-- name: e2b_running :one sandbox_count
-- How many of the tenant's capsules run.
SELECT count(*) AS n FROM capsules WHERE team_id = current_team() AND purpose = 'user'
   AND observed_state IN ('pending','starting','running','resuming','missing');

-- name: e2b_door :exec
-- Who reaches the ports of a new capsule, how its services are spoken to, what of it sleeps.
UPDATE capsules SET public_traffic = :public_traffic::bool, ingress = :ingress::jsonb, idle_memory = :idle_memory::bool WHERE id = :id::uuid AND team_id = current_team();

-- name: e2b_door_of :exec
-- A copy's ports are as open as those of what it was copied from; it sleeps like it.
UPDATE capsules c SET public_traffic = p.public_traffic, ingress = p.ingress, idle_memory = p.idle_memory FROM capsules p
 WHERE c.id = :id::uuid AND p.id = :parent::uuid AND p.team_id = c.team_id;

-- row: e2b_job_state
--   state text

-- name: e2b_job :one e2b_job_state
-- How far a job of the tenant is.
SELECT state FROM jobs WHERE id = :id::uuid AND team_id = current_team();

-- row: e2b_slug
--   slug text

-- name: e2b_team :one e2b_slug
-- The name space of the tenant's templates and snapshots.
SELECT slug FROM teams WHERE id = current_team();

-- row: e2b_template
--   id uuid, team_id uuid, name text, slug text, version int4, disk_size_mb int4, public bool, build_id uuid, builds int8, spawned int8,
--   spawned_at timestamptz?, created_at timestamptz, updated_at timestamptz

-- part: templates
SELECT t.id, t.team_id, t.name, m.slug, v.version, v.disk_size_mb, t.visibility = 'public' OR t.team_id = '00000000-0000-0000-0000-000000000000' AS public,
       md5(t.id::text || ':' || v.version)::uuid AS build_id,
       (SELECT count(*) FROM template_versions b WHERE b.template_id = t.id) AS builds,
       (SELECT count(*) FROM capsules c WHERE c.template_id = t.id) AS spawned,
       (SELECT max(c.created_at) FROM capsules c WHERE c.template_id = t.id) AS spawned_at, t.created_at, v.created_at AS updated_at
  FROM templates t JOIN teams m ON m.id = t.team_id JOIN template_versions v ON v.template_id = t.id AND v.version = t.current_version

-- name: e2b_template_find :one e2b_template
-- A template by id or name: the own team's before the platform's.
{{templates}}
 WHERE t.deleted_at IS NULL AND t.team_id IN (current_team(), '00000000-0000-0000-0000-000000000000')
   AND (t.id = :id::uuid? OR t.name = :name::text?) AND (:team::uuid? IS NULL OR t.team_id = :team::uuid?)
 ORDER BY t.team_id = current_team() DESC LIMIT 1;

-- name: e2b_template_shown :one e2b_template
-- What another team shows to all, by its name space and name.
{{templates}}
 WHERE t.deleted_at IS NULL AND t.visibility = 'public' AND t.name = :name::text AND m.slug = :space::text AND m.deleted_at IS NULL;

-- name: e2b_template_show :exec
-- A template of the tenant is shown to all teams, or no longer. 0: it was so before.
UPDATE templates SET visibility = CASE WHEN :public::bool THEN 'public' ELSE 'team' END
 WHERE id = :id::uuid AND team_id = current_team() AND deleted_at IS NULL AND (visibility = 'public') <> :public::bool;

-- name: e2b_template_delete :exec
-- A template of the tenant starts nothing any more; what runs and sleeps of it goes on.
UPDATE templates SET deleted_at = now() WHERE id = :id::uuid AND team_id = current_team() AND deleted_at IS NULL;

-- name: e2b_templates :many e2b_template
-- The tenant's templates and the platform's, newest first.
{{templates}}
 WHERE t.deleted_at IS NULL AND t.team_id IN (current_team(), '00000000-0000-0000-0000-000000000000')
   AND (t.created_at, t.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY t.created_at DESC, t.id DESC LIMIT :limit::int4;

-- row: e2b_build
--   build_id uuid, version int4, disk_size_mb int4, created_at timestamptz

-- name: e2b_builds :many e2b_build
-- The versions of a template, newest first.
SELECT md5(v.template_id::text || ':' || v.version)::uuid AS build_id, v.version, v.disk_size_mb, v.created_at
  FROM template_versions v JOIN templates t ON t.id = v.template_id WHERE v.template_id = :id::uuid
   AND (t.team_id IN (current_team(), '00000000-0000-0000-0000-000000000000') OR t.visibility = 'public') ORDER BY v.version DESC LIMIT 100;

-- row: e2b_snapshot
--   id uuid, alias text?, created_at timestamptz

-- name: e2b_snapshot_find :one e2b_snapshot
-- The newest ready snapshot of a name, or the ready one of an id.
SELECT id, alias, created_at FROM snapshots WHERE team_id = current_team() AND state = 'ready'
   AND (id = :id::uuid? OR alias = :alias::text?) ORDER BY created_at DESC, id DESC LIMIT 1;

-- name: e2b_snapshots_of :many e2b_snapshot
-- All versions of a name.
SELECT id, alias, created_at FROM snapshots WHERE team_id = current_team() AND state <> 'deleting' AND alias = :alias::text
 ORDER BY created_at DESC, id DESC LIMIT 1000;

-- name: e2b_snapshots :many e2b_snapshot
-- Ready snapshots, newest first; of a name the newest version only.
SELECT s.id, s.alias, s.created_at FROM snapshots s
 WHERE s.team_id = current_team() AND s.state = 'ready' AND s.kind = 'manual'
   AND (:capsule::uuid? IS NULL OR s.capsule_id = :capsule::uuid?) AND (:alias::text? IS NULL OR s.alias = :alias::text?)
   AND (s.alias IS NULL OR NOT EXISTS (SELECT FROM snapshots n WHERE n.team_id = s.team_id AND n.alias = s.alias AND n.state = 'ready'
       AND (n.created_at, n.id) > (s.created_at, s.id)))
   AND (s.created_at, s.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY s.created_at DESC, s.id DESC LIMIT :limit::int4;

-- name: e2b_snapshot_name :exec
-- What clients call a snapshot that was just begun.
UPDATE snapshots SET alias = :alias::text WHERE id = :id::uuid AND team_id = current_team();

-- row: e2b_team_point
--   at int8, running int8, starts int8

-- name: e2b_team_points :many e2b_team_point
-- What a team ran in a stretch of time, in equal steps.
SELECT p.at, p.running, (SELECT count(*) FROM capsules c WHERE c.team_id = :team::uuid AND c.created_at >= to_timestamp(p.at)
       AND c.created_at < to_timestamp(p.at + :step::int8)) AS starts
  FROM (SELECT (floor(extract(epoch FROM s.sampled_at) / :step::int8) * :step::int8)::int8 AS at, max(s.running_count)::int8 AS running
          FROM team_metric_snapshots s WHERE s.team_id = :team::uuid AND s.sampled_at BETWEEN to_timestamp(:from::int8) AND to_timestamp(:to::int8)
         GROUP BY 1) p ORDER BY p.at;
