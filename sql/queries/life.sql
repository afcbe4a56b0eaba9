-- life.sql - the moves of a capsule between its states (spec 02 §1.3): each compares (id, epoch, state) and sets.

-- row: life_due
--   id uuid, team_id uuid, epoch int8, observed_state text

-- name: capsules_stuck :many life_due
-- Capsules on their way somewhere for longer than a call takes: their operation is asked for again.
SELECT id, team_id, epoch, observed_state FROM capsules c
 WHERE observed_state IN ('pending','starting','pausing','resuming','hibernating','stopping')
   AND state_since < now() - make_interval(secs => :age::int8)
   AND NOT (observed_state = 'resuming' AND op IS NOT DISTINCT FROM 'rollback')
   AND NOT (observed_state IN ('pending','starting') AND wake_from IS NOT DISTINCT FROM 'parent'
         AND EXISTS (SELECT FROM jobs j WHERE j.id = c.op_job_id AND j.state IN ('queued','running'))) LIMIT 500;

-- name: capsules_op_lost :exec
-- An operation whose job has ended is over, however it ended.
UPDATE capsules c SET op = NULL, op_job_id = NULL WHERE c.op IS NOT NULL AND c.updated_at < now() - make_interval(secs => :age::int8)
   AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = c.op_job_id AND j.state IN ('queued','running'));

-- name: life_pause :exec
-- running -> pausing.
UPDATE capsules SET desired_state = 'paused', generation = generation + 1, observed_state = 'pausing', paused_by = :by::text,
       residency = 'ram', state_reason = :by::text
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'running' AND op IS NULL;

-- name: life_paused :exec
-- The vCPUs stand: by the call that asked for it, or by the host itself.
UPDATE capsules SET observed_state = 'paused', residency = :residency::text, desired_state = CASE WHEN desired_state = 'stopped'
       THEN desired_state ELSE 'paused' END, paused_by = :by::text, state_reason = :by::text, missing_from = NULL
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text;

-- name: life_residency :exec
-- The image of a paused capsule went to the host's disk, or came back.
UPDATE capsules SET residency = :residency::text
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'paused' AND residency IS DISTINCT FROM :residency::text;

-- name: life_runs_on :exec
-- A pause or hibernation that failed, or a host that was silent: it runs, as it did.
UPDATE capsules SET observed_state = 'running', desired_state = 'running', missing_from = NULL, state_reason = ''
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text;

-- name: life_wake :exec
-- A sleeping or failed capsule starts again as the next epoch: where it lies, or on a host whose row is locked.
UPDATE capsules SET observed_state = 'resuming', desired_state = 'running', generation = generation + 1, epoch = epoch + 1,
       host_id = :host::uuid, wake_from = :from::text, wake_cold = :cold::bool, state_reason = :reason::text,
       timeout_sec = coalesce(:timeout_sec::int4?, timeout_sec),
       deadline_at = CASE WHEN timeout_mode = 'fixed' AND coalesce(:timeout_sec::int4?, timeout_sec) > 0
         THEN now() + make_interval(secs => coalesce(:timeout_sec::int4?, timeout_sec)) END,
       lost_note = coalesce(:note::text?, lost_note),
       vcpus = CASE WHEN :cold::bool THEN coalesce((pending_spec->>'vcpus')::int, vcpus) ELSE vcpus END,
       memory_mb = CASE WHEN :cold::bool THEN coalesce((pending_spec->>'memory_mb')::int, memory_mb) ELSE memory_mb END,
       disk_size_mb = CASE WHEN :cold::bool THEN greatest((pending_spec->>'disk_size_mb')::int, disk_size_mb) ELSE disk_size_mb END,
       pending_spec = CASE WHEN :cold::bool THEN NULL ELSE pending_spec END
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text AND op IS NULL;

-- name: life_sleeps_on :exec
-- A wake that failed: paused or hibernated again, or in error with what it had.
UPDATE capsules SET observed_state = :to::text, desired_state = CASE :to::text WHEN 'error' THEN desired_state ELSE :to::text END,
       failures = failures + 1, wake_from = NULL, wake_cold = false, state_reason = :code::text,
       host_id = CASE WHEN :to::text = 'hibernated' THEN NULL ELSE host_id END,
       error = CASE WHEN :to::text = 'error' THEN jsonb_build_object('code', :code::text, 'message', :message::text,
         'at', to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) ELSE error END
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'resuming';

-- name: life_hibernate :exec
-- running, paused -> hibernating.
UPDATE capsules SET desired_state = 'hibernated', generation = generation + 1, observed_state = 'hibernating',
       paused_by = :by::text, state_reason = :by::text
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text AND op IS NULL;

-- name: life_hibernated :exec
-- Image and disk are sealed; it belongs to no host.
UPDATE capsules SET observed_state = 'hibernated', desired_state = 'hibernated', host_id = NULL, residency = NULL,
       paused_by = :by::text, state_reason = :by::text, missing_from = NULL, error = NULL
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text;

-- name: life_image_add :exec
-- The sealed image of this start.
INSERT INTO capsule_images (capsule_id, epoch, team_id, memory_artifact, disk_artifact, cpu_class, bytes)
VALUES (:id::uuid, :epoch::int8, :team::uuid, :memory::bytea?, :disk::bytea, :cpu_class::text, :bytes::int8)
    ON CONFLICT (capsule_id, epoch) DO UPDATE SET memory_artifact = excluded.memory_artifact,
       disk_artifact = excluded.disk_artifact, cpu_class = excluded.cpu_class, bytes = excluded.bytes, sealed_at = now();

-- name: life_images_old :exec
-- Images of earlier starts: the newest is enough.
DELETE FROM capsule_images WHERE capsule_id = :id::uuid AND epoch < :epoch::int8;

-- name: life_images_gone :exec
-- A destroyed capsule has no images.
DELETE FROM capsule_images WHERE capsule_id = :id::uuid;

-- name: artifact_add :exec
-- An artifact that a host has sealed; it is named in the same transaction.
INSERT INTO artifacts (id, kind, bytes, cpu_class, parent_id) VALUES (:id::bytea, :kind::text, :bytes::int8, :cpu_class::text?,
       (SELECT p.id FROM artifacts p WHERE p.id = :parent::bytea?))
    ON CONFLICT (id) DO UPDATE SET named_at = now(), parent_id = coalesce(artifacts.parent_id, excluded.parent_id);

-- name: artifact_held :exec
-- A host has it.
INSERT INTO artifact_copies (artifact_id, holder, state, verified_at) VALUES (:id::bytea, :holder::uuid, 'ready', now())
    ON CONFLICT (artifact_id, holder) DO UPDATE SET state = 'ready', verified_at = now();

-- row: artifact_source
--   holder uuid, address text, dial text

-- name: artifact_sources :many artifact_source
-- Hosts that have the artifact and can be asked for it.
SELECT c.holder, h.address, h.dial FROM artifact_copies c JOIN hosts h ON h.id = c.holder
 WHERE c.artifact_id = :id::bytea AND c.state = 'ready' AND h.deleted_at IS NULL AND h.status IN ('online','draining')
 ORDER BY h.last_heartbeat_at DESC LIMIT 8;

-- name: life_image_hosts :many artifact_source
-- Hosts that have an image of the capsule and can be asked to forget it.
SELECT DISTINCT h.id AS holder, h.address, h.dial FROM capsule_images i
  JOIN artifact_copies a ON a.artifact_id IN (i.disk_artifact, i.memory_artifact) JOIN hosts h ON h.id = a.holder
 WHERE i.capsule_id = :id::uuid AND h.deleted_at IS NULL AND h.status IN ('online','draining');

-- name: life_reason :exec
-- What it waits for on its way, for who looks; whatever the way comes to replaces it.
UPDATE capsules SET state_reason = :reason::text
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state IN ('starting','resuming') AND state_reason <> :reason::text;

-- name: life_place :exec
-- pending -> starting, on a host whose row is locked.
UPDATE capsules SET observed_state = 'starting', host_id = :host::uuid
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'pending';

-- name: life_move :exec
-- A start that failed on one host goes on at another, as the next epoch.
UPDATE capsules SET host_id = :host::uuid, epoch = epoch + 1, failures = failures + 1, wake_cold = :cold::bool, state_since = now()
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'starting';

-- name: life_recover :exec
-- missing, error -> starting from an image, on another host or the same; the old epoch is fenced.
UPDATE capsules SET observed_state = 'starting', desired_state = 'running', generation = generation + 1, epoch = epoch + 1,
       host_id = :host::uuid, wake_from = 'image', wake_cold = :cold::bool, missing_from = NULL, failures = 0,
       state_reason = 'recover', lost_note = :note::text?,
       vcpus = CASE WHEN :cold::bool THEN coalesce((pending_spec->>'vcpus')::int, vcpus) ELSE vcpus END,
       memory_mb = CASE WHEN :cold::bool THEN coalesce((pending_spec->>'memory_mb')::int, memory_mb) ELSE memory_mb END,
       disk_size_mb = CASE WHEN :cold::bool THEN greatest((pending_spec->>'disk_size_mb')::int, disk_size_mb) ELSE disk_size_mb END,
       pending_spec = CASE WHEN :cold::bool THEN NULL ELSE pending_spec END
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text AND op IS NULL;

-- name: life_recover_seal :exec
-- error -> hibernating: the disk that its host kept is sealed, to start elsewhere. Such a one wants to run.
UPDATE capsules SET observed_state = 'hibernating', desired_state = 'running', generation = generation + 1, paused_by = 'user',
       state_reason = 'recover', failures = 0, lost_note = :note::text?
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'error' AND op IS NULL;

-- name: life_op :exec
-- One operation at a time.
UPDATE capsules SET op = :op::text, op_job_id = :job::uuid
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text AND op IS NULL;

-- name: life_op_end :exec
-- The operation is over.
UPDATE capsules SET op = NULL, op_job_id = NULL WHERE id = :id::uuid AND op = :op::text;

-- name: life_roll :exec
-- A rollback's last step but the call: the next epoch begins.
UPDATE capsules SET epoch = epoch + 1, observed_state = 'resuming', generation = generation + 1, wake_from = 'image',
       wake_cold = :cold::bool, state_reason = 'rollback'
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = :was::text AND op = 'rollback';

-- name: life_restart :exec
-- error -> resuming by the restart policy, three times an hour.
UPDATE capsules SET observed_state = 'resuming', epoch = epoch + 1, wake_from = 'disk', wake_cold = true,
       restarts = CASE WHEN restarts_since > now() - interval '1 hour' THEN restarts + 1 ELSE 1 END,
       restarts_since = CASE WHEN restarts_since > now() - interval '1 hour' THEN restarts_since ELSE now() END,
       state_reason = 'restart_policy'
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'error' AND desired_state = 'running' AND host_id IS NOT NULL
   AND NOT (restarts_since > now() - interval '1 hour' AND restarts >= 3) IS TRUE;

-- name: life_rebooted :exec
-- How often the guest rebooted, as its host counts; less than before: the host counts anew.
UPDATE capsules SET reboots = :reboots::int4, reboots_since = now()
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND reboots <> :reboots::int4;

-- name: life_used :exec
-- What the host says of a running capsule's use: seconds since the last, 0 while it lasts.
UPDATE capsules SET idle_since = CASE WHEN :idle_s::int8 > 0 THEN now() - make_interval(secs => :idle_s::int8) END,
       last_active_at = greatest(last_active_at, now() - make_interval(secs => :idle_s::int8)),
       warned = CASE WHEN :idle_s::int8 < 15 THEN warned & 12 ELSE warned END
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'running'
   AND (idle_since IS NULL) IS DISTINCT FROM (:idle_s::int8 = 0)
       OR id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'running' AND :idle_s::int8 > 0
          AND abs(extract(epoch FROM now() - idle_since) - :idle_s::int8) > 5;

-- row: life_policy
--   id uuid, team_id uuid, epoch int8, observed_state text, idle_s int8?, timeout_sec int4, idle_action text, warned int4,
--   left_s int8?, on_max_lifetime text, fixed_s int8?, paused_by text?, idle_memory bool

-- name: life_policies :many life_policy
-- Capsules whose times are up, or near.
SELECT id, team_id, epoch, observed_state, extract(epoch FROM now() - idle_since)::int8 AS idle_s, timeout_sec, idle_action,
       warned, CASE WHEN max_lifetime_sec > 0
         THEN extract(epoch FROM started_at + make_interval(secs => max_lifetime_sec) - now())::int8 END AS left_s,
       on_max_lifetime, CASE WHEN timeout_mode = 'fixed' THEN extract(epoch FROM deadline_at - now())::int8 END AS fixed_s,
       paused_by, idle_memory
  FROM capsules
 WHERE observed_state = 'running' AND (max_lifetime_sec > 0 AND started_at + make_interval(secs => max_lifetime_sec) < now() + interval '620 seconds'
         OR timeout_mode = 'fixed' AND deadline_at < now() + interval '5 seconds'
         OR timeout_mode = 'idle' AND timeout_sec > 0 AND idle_since < now() - make_interval(secs => least(timeout_sec * 0.8, timeout_sec - 60.0)))
    OR observed_state IN ('paused','hibernated') AND max_lifetime_sec > 0 AND on_max_lifetime = 'destroy'
         AND started_at + make_interval(secs => max_lifetime_sec) < now()
    OR observed_state = 'paused' AND max_lifetime_sec > 0 AND on_max_lifetime = 'hibernate'
         AND started_at + make_interval(secs => max_lifetime_sec) < now()
    OR observed_state IN ('paused','hibernated') AND paused_by = 'idle' AND idle_action = 'destroy'
    OR observed_state = 'error' AND starts = 0 AND state_since < now() - interval '1 hour'
 LIMIT 500;

-- name: life_warned :exec
-- A warning is sent once.
UPDATE capsules SET warned = warned | :bit::int4 WHERE id = :id::uuid AND epoch = :epoch::int8 AND warned & :bit::int4 = 0;

-- name: life_update :exec
-- What PATCH changes; NULL leaves it. vCPUs and memory wait for the next cold boot; a disk grows at once (one that waits still was asked for before it did).
UPDATE capsules SET generation = generation + 1, name = CASE WHEN :rename::bool THEN :name::text? ELSE name END,
       tags = coalesce(:tags::text[]?, tags), metadata = coalesce(:metadata::jsonb?, metadata),
       timeout_sec = coalesce(:timeout_sec::int4?, timeout_sec), timeout_mode = coalesce(:timeout_mode::text?, timeout_mode),
       deadline_at = CASE WHEN coalesce(:timeout_mode::text?, timeout_mode) <> 'fixed' THEN NULL
         WHEN :timeout_sec::int4? IS NOT NULL OR :timeout_mode::text? IS NOT NULL
         THEN CASE WHEN coalesce(:timeout_sec::int4?, timeout_sec) > 0
           THEN now() + make_interval(secs => coalesce(:timeout_sec::int4?, timeout_sec)) END
         ELSE deadline_at END,
       warned = CASE WHEN :timeout_sec::int4? IS NOT NULL THEN 0 ELSE warned END,
       idle_action = coalesce(:idle_action::text?, idle_action), idle_signals = coalesce(:idle_signals::text[]?, idle_signals),
       auto_resume = coalesce(:auto_resume::text?, auto_resume),
       max_lifetime_sec = coalesce(:max_lifetime_sec::int4?, max_lifetime_sec),
       on_max_lifetime = coalesce(:on_max_lifetime::text?, on_max_lifetime),
       restart_policy = coalesce(:restart_policy::text?, restart_policy), network = coalesce(:network::jsonb?, network),
       pending_spec = CASE WHEN :vcpus::int4? IS NULL AND :memory_mb::int4? IS NULL AND :disk_size_mb::int4? IS NULL THEN pending_spec
         ELSE nullif(jsonb_strip_nulls(jsonb_build_object(
           'vcpus', nullif(coalesce(:vcpus::int4?, (pending_spec->>'vcpus')::int), vcpus),
           'memory_mb', nullif(coalesce(:memory_mb::int4?, (pending_spec->>'memory_mb')::int), memory_mb),
           'disk_size_mb', nullif(greatest((pending_spec->>'disk_size_mb')::int, :disk_size_mb::int4?, disk_size_mb),
             greatest(:disk_size_mb::int4?, disk_size_mb)))), '{}') END,
       disk_size_mb = greatest(:disk_size_mb::int4?, disk_size_mb)
 WHERE id = :id::uuid AND generation = :generation::int8 AND observed_state NOT IN ('stopping','stopped');

-- name: life_back :exec
-- A rollback that the host did not do: as before, at the epoch that it holds.
UPDATE capsules SET observed_state = :to::text, epoch = :held::int8, wake_from = NULL, wake_cold = false,
       residency = CASE WHEN :to::text = 'paused' THEN 'ram' END
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state = 'resuming';

-- name: life_image_drop :exec
-- The image of a start that was not to be.
DELETE FROM capsule_images WHERE capsule_id = :id::uuid AND epoch = :epoch::int8;

-- row: life_child
--   id uuid, epoch int8, observed_state text

-- name: life_children :many life_child
-- The children that a fork's job has still to make.
SELECT id, epoch, observed_state FROM capsules WHERE parent_id = :parent::uuid AND op_job_id = :job::uuid
   AND observed_state IN ('pending','starting') AND wake_from = 'parent' ORDER BY created_at, id;

-- name: life_child_of :exec
-- Which job makes this child.
UPDATE capsules SET op_job_id = :job::uuid WHERE id = :id::uuid AND observed_state IN ('pending','starting') AND wake_from = 'parent';

-- name: life_child_apart :exec
-- It starts from what its parent's host has sealed, there or elsewhere.
UPDATE capsules SET wake_from = 'image', wake_cold = :cold::bool, op_job_id = NULL
 WHERE id = :id::uuid AND epoch = :epoch::int8 AND observed_state IN ('pending','starting') AND wake_from = 'parent';

-- row: activity
--   id uuid, type text, category text, capsule_id uuid, actor_type text, actor_id text?, actor_name text?, data jsonb,
--   at timestamptz, since_ms int8?

-- name: activity_list :many activity
-- What happened to a capsule, newest first.
SELECT id, type, category, capsule_id, actor_type, actor_id, actor_name, data, at, NULL::int8 AS since_ms FROM events
 WHERE capsule_id = :capsule::uuid AND team_id = current_team() AND (:type::text? IS NULL OR type = :type::text?)
   AND (:category::text? IS NULL OR category = :category::text?)
   AND (:actor::text? IS NULL OR actor_id = :actor::text? OR actor_type = :actor::text?)
   AND (:after::timestamptz? IS NULL OR at > :after::timestamptz?) AND (:until::timestamptz? IS NULL OR at < :until::timestamptz?)
   AND (at, id) < (coalesce(:before::timestamptz?, 'infinity'), coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY at DESC, id DESC LIMIT :limit::int4;

-- name: activity_last :one activity
-- The event that this transaction has just added.
SELECT id, type, category, capsule_id, actor_type, actor_id, actor_name, data, at, NULL::int8 AS since_ms FROM events
 WHERE capsule_id = :capsule::uuid AND team_id = current_team() AND type = :type::text ORDER BY pos DESC LIMIT 1;
