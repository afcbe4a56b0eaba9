-- capsules.sql - capsules: small virtual machines.

-- row: capsule
--   id uuid, status text, template text, vcpus int4, memory_mb int4, timeout_sec int4, created_at timestamptz,
--   started_at timestamptz?, last_active_at timestamptz?, last_updated timestamptz, metadata jsonb, state text,
--   desired_state text, generation int8, name text?, team_id uuid, owner_id uuid?, owner_name text?, template_id uuid,
--   template_version int4, disk_size_mb int4, tags text[], env_names text[], error jsonb?, start_mode text?, accel text?,
--   epoch int8, residency text?, visibility text, network jsonb, idle_action text, idle_signals text[], auto_resume text,
--   timeout_mode text, expires_at timestamptz?, max_lifetime_sec int4, on_max_lifetime text, restart_policy text,
--   paused_by text?, op text?, parent_id uuid?, snapshot_id uuid?, warnings text[], open_ports text[], host_id uuid?, own_host bool,
--   state_reason text?

-- part: capsule_shape
SELECT c.id, CASE c.observed_state WHEN 'pausing' THEN 'paused' WHEN 'resuming' THEN 'starting' WHEN 'hibernating' THEN 'paused'
         WHEN 'stopping' THEN 'stopped' ELSE c.observed_state END AS status,
       c.template_name AS template, c.vcpus, c.memory_mb, c.timeout_sec, c.created_at, c.started_at, c.last_active_at,
       c.updated_at AS last_updated,
       c.metadata || jsonb_strip_nulls(jsonb_build_object('kernel_version', nullif(v.kernel_version, ''), 'agent_version', nullif(h.agent_version, ''))) AS metadata,
       c.observed_state AS state, c.desired_state, c.generation, c.name, c.team_id, c.owner_id, u.name AS owner_name,
       c.template_id, c.template_version, c.disk_size_mb, c.tags, c.env_names, c.error, c.start_mode, c.accel, c.epoch,
       CASE WHEN c.observed_state IN ('pausing','paused') THEN c.residency END AS residency, c.visibility, c.network,
       c.idle_action, c.idle_signals, c.auto_resume, c.timeout_mode,
       least(CASE WHEN c.timeout_mode = 'fixed' THEN c.deadline_at END, CASE WHEN c.max_lifetime_sec > 0
         THEN c.started_at + make_interval(secs => c.max_lifetime_sec) END) AS expires_at,
       c.max_lifetime_sec, c.on_max_lifetime, c.restart_policy, c.paused_by, c.op, c.parent_id, c.snapshot_id,
       array_remove(ARRAY[CASE WHEN c.pending_spec IS NOT NULL THEN 'the new size holds from the next cold boot' END,
         c.lost_note], NULL) AS warnings,
       ARRAY(SELECT p.port || ' ' || p.visibility FROM capsule_ports p WHERE p.capsule_id = c.id ORDER BY p.port) AS open_ports,
       c.host_id, coalesce(h.type = 'byoc', false) AS own_host,
       CASE WHEN c.observed_state IN ('starting','resuming') AND c.state_reason = 'pulling' THEN 'pulling' END AS state_reason
  FROM capsules c LEFT JOIN users u ON u.id = c.owner_id
  LEFT JOIN hosts h ON h.id = c.host_id
  LEFT JOIN template_versions v ON v.template_id = c.template_id AND v.version = c.template_version

-- part: capsule_filters
AND (c.observed_state <> 'stopped' OR :state::text? = 'stopped')
   AND (:state::text? IS NULL OR c.observed_state = :state::text?)
   AND (:template::text? IS NULL OR c.template_name = :template::text?)
   AND (:tags::text[]? IS NULL OR c.tags @> :tags::text[]?)
   AND (:tag_any::text[]? IS NULL OR c.tags && :tag_any::text[]?)
   AND (:created_after::timestamptz? IS NULL OR c.created_at > :created_after::timestamptz?)
   AND (:created_before::timestamptz? IS NULL OR c.created_at < :created_before::timestamptz?)
   AND (:name::text? IS NULL OR starts_with(c.name, :name::text?))
   AND (:owner::uuid? IS NULL OR c.owner_id = :owner::uuid?)
   AND (:metadata::jsonb? IS NULL OR c.metadata @> :metadata::jsonb?)
   AND (c.created_at, c.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))

-- name: capsule_get :one capsule
-- A capsule of the tenant, in any state while its tombstone lives.
{{capsule_shape}}
 WHERE c.id = :id::uuid AND c.team_id = current_team();

-- name: capsule_list :many capsule
-- Capsules of the tenant, newest first; all but stopped ones, or those of one state.
{{capsule_shape}}
 WHERE c.team_id = current_team()
 {{capsule_filters}}
 ORDER BY c.created_at DESC, c.id DESC LIMIT :limit::int4;

-- name: admin_capsule_get :one capsule
-- A capsule of any team.
{{capsule_shape}}
 WHERE c.id = :id::uuid;

-- name: admin_capsule_list :many capsule
-- Capsules of one team or of all, as capsule_list.
{{capsule_shape}}
 WHERE (:team::uuid? IS NULL OR c.team_id = :team::uuid?)
 {{capsule_filters}}
 ORDER BY c.created_at DESC, c.id DESC LIMIT :limit::int4;

-- row: template_found
--   id uuid, name text, version int4, disk_size_mb int4

-- name: template_resolve :one template_found
-- A template by name (the own team's first, then the platform's) or id; by name space and name another team's that it shows to all. Hosts hold one build of each, so only its current version starts.
SELECT t.id, t.name, v.version, v.disk_size_mb FROM templates t
  JOIN template_versions v ON v.template_id = t.id AND v.version = t.current_version
 WHERE t.deleted_at IS NULL AND v.version = coalesce(:version::int4?, t.current_version)
   AND CASE WHEN :space::text? IS NULL THEN t.team_id IN (:team::uuid, '00000000-0000-0000-0000-000000000000')
       ELSE t.team_id = (SELECT m.id FROM teams m WHERE m.slug = :space::text? AND m.deleted_at IS NULL)
         AND (t.visibility = 'public' OR t.team_id IN (:team::uuid, '00000000-0000-0000-0000-000000000000')) END
   AND (t.id = :id::uuid? OR t.name = :name::text?)
 ORDER BY t.team_id = :team::uuid DESC LIMIT 1;

-- name: capsule_insert :exec
-- A new capsule: on a host whose row is locked (starting), or waiting for one (pending).
INSERT INTO capsules (id, team_id, owner_id, created_by_key, name, template_id, template_name, template_version, host_id,
       observed_state, vcpus, memory_mb, disk_size_mb, guest_user, workdir, boot, envs_enc, env_names, metadata, tags,
       timeout_sec, timeout_mode, deadline_at, idle_action, idle_signals, auto_resume, max_lifetime_sec, on_max_lifetime,
       restart_policy, network, host_tags, parent_id, snapshot_id, wake_from, wake_cold, epoch)
VALUES (:id::uuid, :team::uuid, :owner::uuid?, :key::uuid?, :name::text?, :template::uuid, :template_name::text,
       :version::int4, :host::uuid?, CASE WHEN :host::uuid? IS NULL THEN 'pending' ELSE 'starting' END, :vcpus::int4,
       :memory_mb::int4, :disk_size_mb::int4, :user::text?, :workdir::text?, :boot::text, :envs_enc::bytea?,
       :env_names::text[], :metadata::jsonb, :tags::text[], :timeout_sec::int4, :timeout_mode::text,
       CASE WHEN :timeout_mode::text = 'fixed' AND :timeout_sec::int4 > 0
         THEN now() + make_interval(secs => :timeout_sec::int4) END, :idle_action::text, :idle_signals::text[],
       :auto_resume::text, :max_lifetime_sec::int4, :on_max_lifetime::text, :restart_policy::text, :network::jsonb,
       :host_tags::text[], :parent::uuid?, :snapshot::uuid?, :wake_from::text?, :wake_cold::bool, :epoch::int8);

-- name: capsule_stop_wanted :exec
-- Destruction accepted; it cannot be undone.
UPDATE capsules SET desired_state = 'stopped', generation = generation + 1, observed_state = 'stopping', state_reason = :reason::text
 WHERE id = :id::uuid AND observed_state NOT IN ('stopping','stopped');

-- row: capsule_op
--   id uuid, team_id uuid, owner_id uuid?, observed_state text, desired_state text, epoch int8, change_no int8, host_id uuid?,
--   address text?, template_id uuid, template_name text, template_version int4, vcpus int4, memory_mb int4,
--   disk_size_mb int4, name text?, guest_user text, workdir text, boot text, envs_enc bytea?, created_at timestamptz,
--   host_status text?, since_s int8, wake_from text?, wake_cold bool, residency text?, paused_by text?, op text?, failures int4,
--   starts int4, timeout_sec int4, timeout_mode text, deadline_s int8?, idle_action text, idle_signals text[],
--   auto_resume text, restart_policy text, network jsonb, host_tags text[], image_memory bytea?, image_disk bytea?,
--   image_class text?, image_bytes int8?, missing_from text?, parent_id uuid?, snapshot_id uuid?, generation int8, started_at timestamptz?,
--   cold_vcpus int4, cold_memory_mb int4, cold_disk_size_mb int4, tags text[], env_names text[], idle_memory bool, told text,
--   state_reason text

-- part: told
left(md5(concat_ws('|', c.timeout_sec, c.timeout_mode, extract(epoch FROM c.deadline_at), c.idle_action, c.idle_memory, c.idle_signals,
         c.network, c.disk_size_mb)), 16) AS told

-- name: capsule_for_op :one capsule_op
-- What an operation on the capsule needs to know; with its newest image.
SELECT c.id, c.team_id, c.owner_id, c.observed_state, c.desired_state, c.epoch, c.change_no, c.host_id, h.dial AS address,
       c.template_id, c.template_name, c.template_version, c.vcpus, c.memory_mb, c.disk_size_mb, c.name,
       coalesce(c.guest_user, v.default_user) AS guest_user, coalesce(c.workdir, v.workdir) AS workdir, c.boot, c.envs_enc,
       c.created_at, h.status AS host_status, extract(epoch FROM now() - c.state_since)::int8 AS since_s, c.wake_from,
       c.wake_cold, c.residency, c.paused_by, c.op, c.failures, c.starts, c.timeout_sec, c.timeout_mode,
       extract(epoch FROM c.deadline_at - now())::int8 AS deadline_s, c.idle_action, c.idle_signals, c.auto_resume,
       c.restart_policy, c.network, c.host_tags, i.memory_artifact AS image_memory, i.disk_artifact AS image_disk,
       i.cpu_class AS image_class, i.bytes AS image_bytes, c.missing_from, c.parent_id, c.snapshot_id, c.generation, c.started_at,
       coalesce((c.pending_spec->>'vcpus')::int, c.vcpus) AS cold_vcpus,
       coalesce((c.pending_spec->>'memory_mb')::int, c.memory_mb) AS cold_memory_mb,
       greatest((c.pending_spec->>'disk_size_mb')::int, c.disk_size_mb) AS cold_disk_size_mb, c.tags, c.env_names,
       c.idle_memory, {{told}}, c.state_reason
  FROM capsules c JOIN template_versions v ON v.template_id = c.template_id AND v.version = c.template_version
  LEFT JOIN hosts h ON h.id = c.host_id
  LEFT JOIN LATERAL (SELECT m.memory_artifact, m.disk_artifact, m.cpu_class, m.bytes FROM capsule_images m WHERE m.capsule_id = c.id
                      ORDER BY m.epoch DESC LIMIT 1) i ON true
 WHERE c.id = :id::uuid;

-- name: capsule_running :exec
-- starting, resuming -> running, by compare-and-set on the epoch.
UPDATE capsules SET observed_state = 'running', started_at = coalesce(started_at, now()), last_active_at = now(),
       start_mode = :start_mode::text, accel = :accel::text, starts = starts + 1, state_reason = '', error = NULL,
       wake_from = NULL, wake_cold = false, failures = 0, missing_from = NULL
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state IN ('starting','resuming');

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

-- row: capsule_known
--   id uuid, team_id uuid, epoch int8, observed_state text, missing_from text?, change_no int8, age_s int8, generation int8, told text

-- name: host_capsules :many capsule_known
-- What the rows say that a host holds.
SELECT c.id, c.team_id, c.epoch, c.observed_state, c.missing_from, c.change_no,
       extract(epoch FROM now() - c.state_since)::int8 AS age_s, c.generation, {{told}}
  FROM capsules c WHERE c.host_id = :host::uuid AND c.observed_state <> 'stopped';

-- row: sighting
--   age_s int8

-- name: sighting_note :one sighting
-- Notes that an inventory disagrees with the rows; tells for how long it has.
INSERT INTO host_sightings (host_id, capsule, what) VALUES (:host::uuid, :capsule::text, :what::text)
    ON CONFLICT (host_id, capsule, what) DO UPDATE SET last_at = now()
RETURNING extract(epoch FROM now() - first_at)::int8 AS age_s;

-- name: sightings_forget :exec
-- Disagreements that the last inventory did not show any more.
DELETE FROM host_sightings WHERE host_id = :host::uuid AND last_at < now() - make_interval(secs => :age::int8) * 0.8;
