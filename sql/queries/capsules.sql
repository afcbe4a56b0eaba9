-- capsules.sql - capsules: small virtual machines.

-- row: capsule
--   id uuid, status text, template text, vcpus int4, memory_mb int4, timeout_sec int4, created_at timestamptz,
--   started_at timestamptz?, last_active_at timestamptz?, last_updated timestamptz, metadata jsonb, state text,
--   desired_state text, generation int8, name text?, team_id uuid, owner_id uuid?, owner_name text?, template_id uuid,
--   template_version int4, disk_size_mb int4, tags text[], env_names text[], error jsonb?, start_mode text?, accel text?,
--   epoch int8

-- name: capsule_get :one capsule
-- A capsule of the tenant, in any state while its tombstone lives.
SELECT c.id, CASE c.observed_state WHEN 'pausing' THEN 'paused' WHEN 'resuming' THEN 'starting' WHEN 'hibernating' THEN 'paused'
         WHEN 'stopping' THEN 'stopped' ELSE c.observed_state END AS status,
       c.template_name AS template, c.vcpus, c.memory_mb, 0 AS timeout_sec, c.created_at, c.started_at, c.last_active_at,
       c.updated_at AS last_updated,
       c.metadata || CASE WHEN v.kernel_version = '' THEN '{}' ELSE jsonb_build_object('kernel_version', v.kernel_version) END AS metadata,
       c.observed_state AS state, c.desired_state, c.generation, c.name, c.team_id, c.owner_id, u.name AS owner_name,
       c.template_id, c.template_version, c.disk_size_mb, c.tags, c.env_names, c.error, c.start_mode, c.accel, c.epoch
  FROM capsules c LEFT JOIN users u ON u.id = c.owner_id
  LEFT JOIN template_versions v ON v.template_id = c.template_id AND v.version = c.template_version
 WHERE c.id = :id::uuid AND c.team_id = current_team();

-- name: capsule_list :many capsule
-- Capsules of the tenant, newest first; all but stopped ones, or those of one state.
SELECT c.id, CASE c.observed_state WHEN 'pausing' THEN 'paused' WHEN 'resuming' THEN 'starting' WHEN 'hibernating' THEN 'paused'
         WHEN 'stopping' THEN 'stopped' ELSE c.observed_state END AS status,
       c.template_name AS template, c.vcpus, c.memory_mb, 0 AS timeout_sec, c.created_at, c.started_at, c.last_active_at,
       c.updated_at AS last_updated,
       c.metadata || CASE WHEN v.kernel_version = '' THEN '{}' ELSE jsonb_build_object('kernel_version', v.kernel_version) END AS metadata,
       c.observed_state AS state, c.desired_state, c.generation, c.name, c.team_id, c.owner_id, u.name AS owner_name,
       c.template_id, c.template_version, c.disk_size_mb, c.tags, c.env_names, c.error, c.start_mode, c.accel, c.epoch
  FROM capsules c LEFT JOIN users u ON u.id = c.owner_id
  LEFT JOIN template_versions v ON v.template_id = c.template_id AND v.version = c.template_version
 WHERE c.team_id = current_team()
   AND (c.observed_state <> 'stopped' OR :state::text? = 'stopped')
   AND (:state::text? IS NULL OR c.observed_state = :state::text?)
   AND (:template::text? IS NULL OR c.template_name = :template::text?)
   AND (:tag::text? IS NULL OR c.tags @> ARRAY[:tag::text?])
   AND (:name::text? IS NULL OR starts_with(c.name, :name::text?))
   AND (:owner::uuid? IS NULL OR c.owner_id = :owner::uuid?)
   AND (:metadata::jsonb? IS NULL OR c.metadata @> :metadata::jsonb?)
   AND (c.created_at, c.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY c.created_at DESC, c.id DESC LIMIT :limit::int4;

-- row: template_found
--   id uuid, name text, version int4, disk_size_mb int4

-- name: template_resolve :one template_found
-- A template by name (the own team's first, then the platform's) or id. Hosts hold one build of each, so only its current version starts.
SELECT t.id, t.name, v.version, v.disk_size_mb FROM templates t
  JOIN template_versions v ON v.template_id = t.id AND v.version = t.current_version
 WHERE t.deleted_at IS NULL AND v.version = coalesce(:version::int4?, t.current_version) AND t.team_id IN (:team::uuid, '00000000-0000-0000-0000-000000000000')
   AND (t.id = :id::uuid? OR t.name = :name::text?)
 ORDER BY t.team_id = :team::uuid DESC LIMIT 1;

-- row: host_choice
--   id uuid, address text

-- name: host_candidates :many host_choice
-- The three least loaded hosts that would take the capsule.
SELECT h.id, h.address FROM hosts h, LATERAL host_used(h.id) u
 WHERE h.deleted_at IS NULL AND h.status = 'online' AND h.schedulable AND h.type = 'regular'
   AND h.last_heartbeat_at > now() - make_interval(secs => :suspect::int8)
   AND u.memory_mb + :memory_mb::int4 + 128 <= (h.memory_mb - greatest(1024, h.memory_mb / 12)) * :mem_percent::int8 / 100
   AND u.vcpus + :vcpus::int4 <= h.cpu_cores * :cpu_percent::int8 / 100
   AND coalesce(h.free_disk_mb, 0) > 1024
 ORDER BY least(1 - (u.memory_mb + :memory_mb::int4)::float8 / greatest(h.memory_mb, 1),
                1 - (u.vcpus + :vcpus::int4)::float8 / greatest(h.cpu_cores * 4, 1)) DESC, h.id LIMIT 3;

-- name: host_lock :exec
-- Locks a host's row: reservations on it come one after the other.
SELECT 1 FROM hosts WHERE id = :id::uuid AND status = 'online' AND schedulable FOR UPDATE;

-- row: fits
--   ok bool

-- name: host_fits :one fits
-- With the row locked: is there still room.
SELECT u.memory_mb + :memory_mb::int4 + 128 <= (h.memory_mb - greatest(1024, h.memory_mb / 12)) * :mem_percent::int8 / 100
       AND u.vcpus + :vcpus::int4 <= h.cpu_cores * :cpu_percent::int8 / 100 AS ok
  FROM hosts h, LATERAL host_used(h.id) u WHERE h.id = :id::uuid;

-- name: capsule_insert :exec
-- A new capsule, placed on a host whose row is locked.
INSERT INTO capsules (id, team_id, owner_id, created_by_key, name, template_id, template_name, template_version, host_id,
       observed_state, vcpus, memory_mb, disk_size_mb, guest_user, workdir, boot, envs_enc, env_names, metadata, tags)
VALUES (:id::uuid, :team::uuid, :owner::uuid?, :key::uuid?, :name::text?, :template::uuid, :template_name::text,
       :version::int4, :host::uuid, 'starting', :vcpus::int4, :memory_mb::int4, :disk_size_mb::int4, :user::text?,
       :workdir::text?, :boot::text, :envs_enc::bytea?, :env_names::text[], :metadata::jsonb, :tags::text[]);

-- name: capsule_stop_wanted :exec
-- Destruction accepted; it cannot be undone.
UPDATE capsules SET desired_state = 'stopped', generation = generation + 1, observed_state = 'stopping', state_reason = :reason::text
 WHERE id = :id::uuid AND observed_state NOT IN ('stopping','stopped');

-- row: capsule_op
--   id uuid, team_id uuid, observed_state text, desired_state text, epoch int8, host_id uuid?, address text?, template_id uuid,
--   template_name text, template_version int4, vcpus int4, memory_mb int4, disk_size_mb int4, name text?, guest_user text,
--   workdir text, boot text, envs_enc bytea?, created_at timestamptz, host_status text?

-- name: capsule_for_op :one capsule_op
-- What an operation on the capsule needs to know.
SELECT c.id, c.team_id, c.observed_state, c.desired_state, c.epoch, c.host_id, h.address, c.template_id, c.template_name,
       c.template_version, c.vcpus, c.memory_mb, c.disk_size_mb, c.name, coalesce(c.guest_user, v.default_user) AS guest_user,
       coalesce(c.workdir, v.workdir) AS workdir, c.boot, c.envs_enc, c.created_at, h.status AS host_status
  FROM capsules c JOIN template_versions v ON v.template_id = c.template_id AND v.version = c.template_version
  LEFT JOIN hosts h ON h.id = c.host_id WHERE c.id = :id::uuid;

-- name: capsule_running :exec
-- starting -> running, by compare-and-set on the epoch.
UPDATE capsules SET observed_state = 'running', started_at = coalesce(started_at, now()), last_active_at = now(),
       start_mode = :start_mode::text, accel = :accel::text, starts = starts + 1, state_reason = '', error = NULL
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'starting';

-- name: capsule_failed :exec
-- A state -> error, by compare-and-set.
UPDATE capsules SET observed_state = 'error', state_reason = :code::text,
       error = jsonb_build_object('code', :code::text, 'message', :message::text, 'at', to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text;

-- name: capsule_stopped :exec
-- stopping -> stopped: a tombstone remains.
UPDATE capsules SET observed_state = 'stopped', stopped_at = now(), envs_enc = NULL, host_id = NULL
 WHERE id = :id::uuid AND observed_state = 'stopping';

-- name: capsules_purge :exec
-- Tombstones live 30 days.
DELETE FROM capsules WHERE ctid IN (SELECT ctid FROM capsules WHERE observed_state = 'stopped'
   AND stopped_at < now() - interval '30 days' LIMIT 1000);

-- row: capsule_due
--   id uuid, team_id uuid, epoch int8, observed_state text

-- name: capsules_stuck :many capsule_due
-- Capsules on their way somewhere for longer than a call takes: their operation is asked for again.
SELECT id, team_id, epoch, observed_state FROM capsules
 WHERE observed_state IN ('starting','stopping') AND state_since < now() - make_interval(secs => :age::int8) LIMIT 500;

-- row: capsule_known
--   id uuid, epoch int8, observed_state text, missing_from text?, change_no int8, age_s int8

-- name: host_capsules :many capsule_known
-- What the rows say that a host holds.
SELECT id, epoch, observed_state, missing_from, change_no, extract(epoch FROM now() - state_since)::int8 AS age_s
  FROM capsules WHERE host_id = :host::uuid AND observed_state <> 'stopped';

-- name: capsule_set_missing :exec
-- The host is silent: what it holds is not known any more.
UPDATE capsules SET missing_from = observed_state, observed_state = 'missing'
 WHERE host_id = :host::uuid AND observed_state IN ('starting','running','pausing','paused','resuming','hibernating');

-- name: capsule_found :exec
-- missing -> what the inventory shows.
UPDATE capsules SET observed_state = :state::text, missing_from = NULL
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'missing' AND change_no = :change_no::int8;

-- row: sighting
--   age_s int8

-- name: sighting_note :one sighting
-- Notes that an inventory disagrees with the rows; tells for how long it has.
INSERT INTO host_sightings (host_id, capsule, what) VALUES (:host::uuid, :capsule::text, :what::text)
    ON CONFLICT (host_id, capsule, what) DO UPDATE SET last_at = now()
RETURNING extract(epoch FROM now() - first_at)::int8 AS age_s;

-- name: sightings_forget :exec
-- Disagreements that the last inventory did not show any more.
DELETE FROM host_sightings WHERE host_id = :host::uuid AND last_at < now() - interval '25 seconds';
