-- snapshots.sql - disk, or disk and memory, of a capsule at a moment (spec 02 §2.4).

-- row: snapshot
--   id uuid, team_id uuid, capsule_id uuid?, name text, description text, kind text, memory bool, state text, error jsonb?,
--   bytes_logical int8, bytes_unique int8, parent_id uuid?, expires_at timestamptz?, pinned bool, metadata jsonb,
--   created_by uuid?, created_at timestamptz, memory_artifact bytea?, disk_artifact bytea?, cpu_class text?, spec jsonb,
--   envs_enc bytea?

-- name: snapshot_list :many snapshot
-- The tenant's snapshots, newest first.
SELECT id, team_id, capsule_id, name, description, kind, memory, state, error, bytes_logical, bytes_unique, parent_id, expires_at,
       pinned, metadata, created_by, created_at, memory_artifact, disk_artifact, cpu_class, spec, envs_enc FROM snapshots
 WHERE team_id = current_team() AND state <> 'deleting' AND (:capsule::uuid? IS NULL OR capsule_id = :capsule::uuid?)
   AND (:kind::text? IS NULL OR kind = :kind::text?) AND (:state::text? IS NULL OR state = :state::text?)
   AND (created_at, id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY created_at DESC, id DESC LIMIT :limit::int4;

-- name: snapshot_get :one snapshot
-- One snapshot of the tenant.
SELECT id, team_id, capsule_id, name, description, kind, memory, state, error, bytes_logical, bytes_unique, parent_id, expires_at,
       pinned, metadata, created_by, created_at, memory_artifact, disk_artifact, cpu_class, spec, envs_enc FROM snapshots
 WHERE id = :id::uuid AND team_id = current_team() AND state <> 'deleting';

-- name: snapshot_for_op :one snapshot
-- What an operation on it needs to know.
SELECT id, team_id, capsule_id, name, description, kind, memory, state, error, bytes_logical, bytes_unique, parent_id, expires_at,
       pinned, metadata, created_by, created_at, memory_artifact, disk_artifact, cpu_class, spec, envs_enc FROM snapshots
 WHERE id = :id::uuid;

-- name: snapshot_latest :one snapshot
-- The newest good snapshot of a capsule.
SELECT id, team_id, capsule_id, name, description, kind, memory, state, error, bytes_logical, bytes_unique, parent_id, expires_at,
       pinned, metadata, created_by, created_at, memory_artifact, disk_artifact, cpu_class, spec, envs_enc FROM snapshots
 WHERE capsule_id = :capsule::uuid AND state = 'ready' ORDER BY created_at DESC LIMIT 1;

-- name: snapshot_insert :exec
-- A snapshot about to be taken; its parent is the newest one before it.
INSERT INTO snapshots (id, team_id, capsule_id, name, description, kind, memory, spec, envs_enc, metadata, expires_at, created_by,
       parent_id)
VALUES (:id::uuid, :team::uuid, :capsule::uuid, :name::text, :description::text, :kind::text, :memory::bool, :spec::jsonb,
       :envs_enc::bytea?, :metadata::jsonb, CASE WHEN :expires_in_sec::int8? IS NOT NULL
         THEN now() + make_interval(secs => :expires_in_sec::int8?) END, :user::uuid?,
       (SELECT p.id FROM snapshots p WHERE p.capsule_id = :capsule::uuid AND p.state = 'ready' ORDER BY p.created_at DESC LIMIT 1));

-- name: snapshot_ready :exec
-- It is sealed.
UPDATE snapshots SET state = 'ready', ready_at = now(), memory_artifact = :memory::bytea?, disk_artifact = :disk::bytea,
       memory = :memory::bytea? IS NOT NULL, cpu_class = :cpu_class::text?, bytes_logical = :logical::int8,
       bytes_unique = :unique::int8 WHERE id = :id::uuid AND state = 'creating';

-- name: snapshot_failed :exec
-- It could not be taken.
UPDATE snapshots SET state = 'failed', error = jsonb_build_object('code', :code::text, 'message', :message::text)
 WHERE id = :id::uuid AND state = 'creating';

-- name: snapshot_update :exec
-- Name, description, expiry, pin; NULL leaves it.
UPDATE snapshots SET name = coalesce(:name::text?, name), description = coalesce(:description::text?, description),
       pinned = CASE WHEN :set_pin::bool THEN :pinned::bool ELSE pinned END,
       expires_at = CASE WHEN :set_expiry::bool THEN :expires_at::timestamptz? ELSE expires_at END
 WHERE id = :id::uuid AND team_id = current_team() AND state <> 'deleting';

-- name: snapshot_delete :exec
-- It is not there any more; its artifacts go when nothing else names them.
DELETE FROM snapshots WHERE id = :id::uuid AND team_id = current_team() AND state <> 'creating';

-- row: snapshot_due
--   id uuid, team_id uuid, capsule_id uuid?, kind text

-- name: snapshots_expire :many snapshot_due
-- Snapshots whose time is over.
DELETE FROM snapshots WHERE id IN (SELECT id FROM snapshots WHERE expires_at < now() AND NOT pinned
   AND state IN ('ready','failed') ORDER BY expires_at LIMIT 100) RETURNING id, team_id, capsule_id, kind;

-- row: snapshot_policy
--   cron text?, keep_last int4, keep_days int4, memory bool, next_at timestamptz?, last_error text?

-- name: snapshot_policy_get :one snapshot_policy
-- When snapshots of a capsule of the tenant are taken by the clock.
SELECT cron, keep_last, keep_days, memory, next_at, last_error FROM snapshot_policies
 WHERE capsule_id = :capsule::uuid AND team_id = current_team();

-- name: snapshot_policy_set :exec
-- From now on.
INSERT INTO snapshot_policies (capsule_id, team_id, cron, keep_last, keep_days, memory, next_at)
VALUES (:capsule::uuid, :team::uuid, :cron::text, :last::int4, :days::int4, :memory::bool, :next::timestamptz)
    ON CONFLICT (capsule_id) DO UPDATE SET cron = excluded.cron, keep_last = excluded.keep_last, keep_days = excluded.keep_days,
       memory = excluded.memory, next_at = excluded.next_at, last_error = NULL, updated_at = now();

-- name: snapshot_policy_off :exec
-- None any more; what was taken stays.
DELETE FROM snapshot_policies WHERE capsule_id = :capsule::uuid AND team_id = current_team();

-- row: snapshot_turn
--   capsule_id uuid, cron text, keep_last int4, keep_days int4, memory bool

-- name: snapshot_turns :many snapshot_turn
-- Policies whose time has come.
SELECT p.capsule_id, p.cron, p.keep_last, p.keep_days, p.memory FROM snapshot_policies p JOIN capsules c ON c.id = p.capsule_id
 WHERE p.next_at <= now() AND c.observed_state NOT IN ('stopping','stopped') ORDER BY p.next_at LIMIT 100;

-- name: snapshot_turned :exec
-- The next time; why this one was none.
UPDATE snapshot_policies SET next_at = :next::timestamptz, last_error = :error::text? WHERE capsule_id = :capsule::uuid;

-- name: snapshots_prune :many snapshot_due
-- Scheduled ones beyond the newest, or too old; pinned ones stay.
DELETE FROM snapshots WHERE id IN (
  SELECT s.id FROM (SELECT x.id, x.created_at, row_number() OVER (ORDER BY x.created_at DESC, x.id DESC) AS nth FROM snapshots x
                     WHERE x.capsule_id = :capsule::uuid AND x.kind = 'scheduled' AND NOT x.pinned AND x.state <> 'failed') s
   WHERE s.nth > :last::int4 OR s.created_at < now() - make_interval(days => :days::int4))
   AND state = 'ready' RETURNING id, team_id, capsule_id, kind;

-- name: snapshots_lost :exec
-- Snapshots whose job has ended without them.
UPDATE snapshots s SET state = 'failed', error = '{"code":"lost","message":"The snapshot was not finished"}'
 WHERE s.state = 'creating' AND s.created_at < now() - interval '10 minutes'
   AND NOT EXISTS (SELECT FROM jobs j WHERE j.state IN ('queued','running') AND j.kind IN ('capsule.snapshot','capsule.rollback')
     AND j.args->>'capsule' IS NOT NULL AND j.team_id = s.team_id);

-- row: snapshot_totals
--   count int8, with_memory int8, pinned int8, bytes_logical int8, bytes_unique int8

-- name: snapshot_stats :one snapshot_totals
-- How many, how large.
SELECT count(*) AS count, count(*) FILTER (WHERE memory) AS with_memory, count(*) FILTER (WHERE pinned) AS pinned,
       coalesce(sum(bytes_logical), 0)::int8 AS bytes_logical, coalesce(sum(bytes_unique), 0)::int8 AS bytes_unique
  FROM snapshots WHERE team_id = current_team() AND state = 'ready';

-- row: artifact_due
--   id bytea, holder uuid?, dial text?

-- name: artifacts_unnamed :many artifact_due
-- Copies of artifacts that nothing names: no image, no snapshot, no child.
SELECT a.id, c.holder, h.dial FROM artifacts a LEFT JOIN artifact_copies c ON c.artifact_id = a.id LEFT JOIN hosts h ON h.id = c.holder
 WHERE a.kind IN ('memory','disk') AND a.named_at < now() - make_interval(secs => :age::int8)
   AND NOT EXISTS (SELECT FROM capsule_images i WHERE i.memory_artifact = a.id)
   AND NOT EXISTS (SELECT FROM capsule_images i WHERE i.disk_artifact = a.id)
   AND NOT EXISTS (SELECT FROM snapshots s WHERE s.memory_artifact = a.id)
   AND NOT EXISTS (SELECT FROM snapshots s WHERE s.disk_artifact = a.id)
   AND NOT EXISTS (SELECT FROM artifacts k WHERE k.parent_id = a.id)
 ORDER BY a.named_at LIMIT 100;

-- name: artifact_copy_gone :exec
-- A holder has it no more.
DELETE FROM artifact_copies WHERE artifact_id = :id::bytea AND holder = :holder::uuid;

-- name: artifact_needed :exec
-- Its holder still needs it (something lies on it that has no row): others first.
UPDATE artifacts SET named_at = now() WHERE id = :id::bytea;

-- name: artifact_gone :exec
-- Nobody has it any more, nothing names it.
DELETE FROM artifacts a WHERE a.id = :id::bytea AND NOT EXISTS (SELECT FROM artifact_copies c WHERE c.artifact_id = a.id)
   AND NOT EXISTS (SELECT FROM capsule_images i WHERE i.memory_artifact = a.id OR i.disk_artifact = a.id)
   AND NOT EXISTS (SELECT FROM snapshots s WHERE s.memory_artifact = a.id OR s.disk_artifact = a.id);
