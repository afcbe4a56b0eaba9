-- hosts.sql - machines that run the host agent.

-- row: host
--   id uuid, type text, team_id uuid?, team_name text?, name text, provider text, availability_zone text, arch text, accel text,
--   cpu_classes text[], cpu_cores int4, memory_mb int4, disk_gb int4, address text, status text, schedulable bool, weight float8,
--   overcommit_cpu jsonb?, overcommit_memory jsonb?, reserve_memory_mb int4, reserve_disk_mb int4, last_heartbeat_at timestamptz?,
--   agent_version text, conditions jsonb, tags text[], capacity jsonb, used jsonb, cert_expires_at timestamptz?, created_by uuid?,
--   created_at timestamptz, updated_at timestamptz

-- name: host_list :many host
-- Hosts, newest first; orphans: those of deleted teams, too.
SELECT h.id, h.type, h.team_id, t.name AS team_name, h.name, h.provider, h.availability_zone, h.arch, h.accel, h.cpu_classes,
       h.cpu_cores, h.memory_mb, h.disk_gb, h.address, h.status, h.schedulable, h.weight, to_jsonb(h.overcommit_cpu) AS overcommit_cpu, to_jsonb(h.overcommit_memory) AS overcommit_memory,
       h.reserve_memory_mb, h.reserve_disk_mb, h.last_heartbeat_at, h.agent_version, h.conditions,
       ARRAY(SELECT g.tag FROM host_tags g WHERE g.host_id = h.id ORDER BY g.tag) AS tags,
       jsonb_build_object('memory_mb', k.memory_mb, 'vcpus', k.vcpus, 'disk_mb', k.disk_mb) AS capacity,
       jsonb_build_object('memory_mb', u.memory_mb, 'vcpus', u.vcpus, 'disk_mb', u.disk_mb, 'capsules', u.capsules) AS used,
       h.cert_expires_at, h.created_by, h.created_at, h.updated_at
  FROM hosts h LEFT JOIN teams t ON t.id = h.team_id, LATERAL host_used(h.id) u,
       LATERAL host_capacity(h, :mem_percent::int8, :cpu_percent::int8, :tcg_percent::int8) k
 WHERE h.deleted_at IS NULL AND (:status::text? IS NULL OR h.status = :status::text?) AND (:type::text? IS NULL OR h.type = :type::text?)
   AND (:team::uuid? IS NULL OR h.team_id = :team::uuid?) AND (:owner::uuid? IS NULL OR h.team_id = :owner::uuid?)
   AND (:orphans::bool OR t.deleted_at IS NULL)
   AND (:tag::text? IS NULL OR EXISTS (SELECT FROM host_tags g WHERE g.host_id = h.id AND g.tag = :tag::text?))
   AND (h.created_at, h.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY h.created_at DESC, h.id DESC LIMIT :limit::int4;

-- name: host_get :one host
-- One host.
SELECT h.id, h.type, h.team_id, t.name AS team_name, h.name, h.provider, h.availability_zone, h.arch, h.accel, h.cpu_classes,
       h.cpu_cores, h.memory_mb, h.disk_gb, h.address, h.status, h.schedulable, h.weight, to_jsonb(h.overcommit_cpu) AS overcommit_cpu, to_jsonb(h.overcommit_memory) AS overcommit_memory,
       h.reserve_memory_mb, h.reserve_disk_mb, h.last_heartbeat_at, h.agent_version, h.conditions,
       ARRAY(SELECT g.tag FROM host_tags g WHERE g.host_id = h.id ORDER BY g.tag) AS tags,
       jsonb_build_object('memory_mb', k.memory_mb, 'vcpus', k.vcpus, 'disk_mb', k.disk_mb) AS capacity,
       jsonb_build_object('memory_mb', u.memory_mb, 'vcpus', u.vcpus, 'disk_mb', u.disk_mb, 'capsules', u.capsules) AS used,
       h.cert_expires_at, h.created_by, h.created_at, h.updated_at
  FROM hosts h LEFT JOIN teams t ON t.id = h.team_id, LATERAL host_used(h.id) u,
       LATERAL host_capacity(h, :mem_percent::int8, :cpu_percent::int8, :tcg_percent::int8) k
 WHERE h.id = :id::uuid AND h.deleted_at IS NULL AND (:owner::uuid? IS NULL OR h.team_id = :owner::uuid?) AND (:orphans::bool OR t.deleted_at IS NULL);

-- name: host_insert :exec
-- A host that shall register.
INSERT INTO hosts (id, name, type, team_id, provider, availability_zone, created_by) VALUES (:id::uuid, :name::text,
       CASE WHEN :team::uuid? IS NULL THEN 'regular' ELSE 'byoc' END, :team::uuid?, :provider::text, :zone::text, :user::uuid?);

-- name: host_token_insert :exec
-- A one-time registration token.
INSERT INTO host_tokens (id, host_id, token_hash, created_by, expires_at)
VALUES (:id::uuid, :host::uuid, :hash::bytea, :user::uuid?, now() + interval '1 hour');

-- name: host_tokens_kill :exec
-- Earlier registration tokens of a host die with a new one.
DELETE FROM host_tokens WHERE host_id = :host::uuid AND used_at IS NULL;

-- row: host_ref
--   id uuid

-- name: host_token_use :one host_ref
-- Takes a registration token: once.
UPDATE host_tokens t SET used_at = now() FROM hosts h
 WHERE t.token_hash = :hash::bytea AND t.used_at IS NULL AND t.expires_at > now() AND h.id = t.host_id AND h.deleted_at IS NULL
RETURNING h.id;

-- name: host_register :exec
-- What a host says of itself.
UPDATE hosts SET name = CASE WHEN :name::text = '' THEN name ELSE :name::text END, address = :address::text, arch = :arch::text,
       accel = :accel::text, cpu_cores = :cpu_cores::int4, memory_mb = :memory_mb::int4, disk_gb = :disk_gb::int4,
       agent_version = :agent_version::text, cpu_classes = :cpu_classes::text[], status = 'online', last_heartbeat_at = now(),
       cert_fingerprint = :fingerprint::text?, cert_previous = NULL, cert_expires_at = :cert_expires_at::timestamptz?, free_disk_mb = :disk_gb::int4::int8 * 1024,
       free_memory_mb = :memory_mb::int4, updated_at = now()
 WHERE id = :id::uuid;

-- name: host_refresh_insert :exec
-- A refresh token of a host.
INSERT INTO host_refresh_tokens (id, host_id, token_hash, expires_at)
VALUES (:id::uuid, :host::uuid, :hash::bytea, now() + make_interval(secs => :ttl::int8));

-- row: host_refresh
--   id uuid, host_id uuid, live bool, revoked bool, address text, team_id uuid?

-- name: host_refresh_get :one host_refresh
-- A refresh token, locked. One that was used ends when the next is used, or after ten minutes.
SELECT t.id, t.host_id, (t.revoked_at IS NULL AND coalesce(t.used_at > now() - interval '10 minutes', true)
         AND t.expires_at > now() AND h.deleted_at IS NULL) AS live,
       t.revoked_at IS NOT NULL OR coalesce(t.used_at <= now() - interval '10 minutes', false) AS revoked, h.address, h.team_id
  FROM host_refresh_tokens t JOIN hosts h ON h.id = t.host_id WHERE t.token_hash = :hash::bytea FOR UPDATE OF t;

-- name: host_refresh_touch :exec
-- The token was used for the first time.
UPDATE host_refresh_tokens SET used_at = now() WHERE id = :id::uuid AND used_at IS NULL;

-- name: host_cert_renewed :exec
-- A new certificate; the one before stays good: the answer may be lost on its way.
UPDATE hosts SET cert_previous = cert_fingerprint, cert_fingerprint = :fingerprint::text, cert_expires_at = :cert_expires_at::timestamptz
 WHERE id = :id::uuid;

-- row: cluster
--   id uuid

-- name: cluster_id :one cluster
-- Which database this is.
SELECT id FROM cluster;

-- name: host_refresh_used :exec
-- The new token is in use: all earlier ones of the host end now (issue, then revoke: never none is good).
UPDATE host_refresh_tokens SET revoked_at = now() WHERE host_id = :host::uuid AND id <> :id::uuid AND revoked_at IS NULL
   AND created_at < (SELECT created_at FROM host_refresh_tokens WHERE id = :id::uuid);

-- name: host_refresh_revoke_all :exec
-- A token came back that was replaced: nothing of this host is trusted any more.
UPDATE host_refresh_tokens SET revoked_at = now() WHERE host_id = :host::uuid AND revoked_at IS NULL;

-- row: host_beat
--   was text, known_hash text?, team_id uuid?

-- name: host_heartbeat :one host_beat
-- The host lives; tells what it was before.
UPDATE hosts h SET last_heartbeat_at = now(), heartbeat_seq = :seq::int8, boot_id = :boot_id::text?, agent_version = :agent_version::text,
       free_memory_mb = :free_memory_mb::int4, free_disk_mb = :free_disk_mb::int8, conditions = :conditions::jsonb,
       inventory_hash = :inventory_hash::text?, holds = :holds::text[], status = CASE WHEN h.status IN ('unreachable','pending') THEN 'online' ELSE h.status END
  FROM (SELECT id, status, inventory_hash FROM hosts WHERE id = :id::uuid AND deleted_at IS NULL FOR UPDATE) o
 WHERE h.id = o.id RETURNING o.status AS was, o.inventory_hash AS known_hash, h.team_id;

-- row: host_seen
--   id uuid, team_id uuid?, name text, address text, status text, regular bool, scaling text, silent_s int8

-- name: hosts_watched :many host_seen
-- All hosts that registered, with the seconds since their last heartbeat.
SELECT id, team_id, name, dial AS address, status, type = 'regular' AS regular, scaling, extract(epoch FROM now() - last_heartbeat_at)::int8 AS silent_s FROM hosts
 WHERE deleted_at IS NULL AND last_heartbeat_at IS NOT NULL;

-- name: host_mark_down :exec
-- online, draining -> unreachable.
UPDATE hosts SET status = 'unreachable', updated_at = now() WHERE id = :id::uuid AND status IN ('online','draining')
   AND last_heartbeat_at < now() - make_interval(secs => :silent::int8);

-- name: host_reported :exec
-- Reports up to this number were applied.
UPDATE hosts SET report_seq = :seq::int8 WHERE id = :id::uuid AND report_seq < :seq::int8;

-- name: template_team :one host_ref
-- A live team, by the name space of its templates.
SELECT id FROM teams WHERE slug = :slug::text AND deleted_at IS NULL;

-- row: name_holder
--   what text

-- name: template_holder :one name_holder
-- Who keeps a team from the name: hosts hold one build of each, so nobody else may have it or anything made of it; nor may a snapshot of its own.
SELECT 'a template of ' || m.slug || CASE WHEN t.deleted_at IS NULL THEN '' ELSE ', deleted, but capsules or snapshots were made of it' END AS what
  FROM templates t JOIN teams m ON m.id = t.team_id WHERE t.name = :name::text AND t.team_id <> :team::uuid
   AND (t.deleted_at IS NULL OR EXISTS (SELECT FROM capsules c WHERE c.template_id = t.id AND c.observed_state <> 'stopped')
     OR EXISTS (SELECT FROM snapshots s WHERE s.spec->>'template' = t.name AND s.state <> 'deleting'))
UNION ALL
SELECT 'a snapshot of its own' FROM snapshots WHERE team_id = :team::uuid AND alias = :name::text AND state <> 'deleting'
 LIMIT 1;

-- name: template_upsert :one host_ref
-- A team's template by name; the platform's are for all teams.
INSERT INTO templates (id, team_id, name, description, visibility)
VALUES (:id::uuid, :team::uuid, :name::text, :description::text, CASE WHEN :team::uuid = '00000000-0000-0000-0000-000000000000' THEN 'public' ELSE 'team' END)
    ON CONFLICT (team_id, name) WHERE deleted_at IS NULL DO UPDATE SET description = excluded.description RETURNING id;

-- row: version
--   version int4, digest text

-- name: template_current :one version
-- The current version of a template.
SELECT v.version, v.digest FROM templates t JOIN template_versions v ON v.template_id = t.id AND v.version = t.current_version WHERE t.id = :id::uuid;

-- name: template_version_add :exec
-- The next version becomes the current one.
WITH n AS (SELECT coalesce(max(version), 0) + 1 AS version FROM template_versions WHERE template_id = :id::uuid),
     v AS (INSERT INTO template_versions (template_id, version, digest, size_bytes, disk_size_mb, default_user, workdir, kernel_version)
           SELECT :id::uuid, n.version, :digest::text, :size_bytes::int8, :disk_size_mb::int4, :user::text, :workdir::text, :kernel::text FROM n RETURNING version)
UPDATE templates SET current_version = v.version FROM v WHERE id = :id::uuid;

-- row: host_dial
--   dial text

-- name: host_dial_by_address :one host_dial
-- What is connected to at an address: with the certificates that are good there now.
SELECT dial FROM hosts WHERE address = :address::text AND deleted_at IS NULL;

-- row: host_team
--   is_byoc bool

-- name: host_team_get :one host_team
-- A team that lives.
SELECT is_byoc FROM teams WHERE id = :id::uuid AND deleted_at IS NULL;

-- name: host_tag_add :exec
-- A tag of a host; again: nothing.
INSERT INTO host_tags (host_id, tag) VALUES (:host::uuid, :tag::text) ON CONFLICT DO NOTHING;

-- name: host_tag_remove :exec
-- One tag less.
DELETE FROM host_tags WHERE host_id = :host::uuid AND tag = :tag::text;

-- name: host_update :exec
-- What an operator says of a host; draining ends when it may be placed on again.
UPDATE hosts SET name = :name::text, schedulable = :schedulable::bool, weight = :weight::float8,
       overcommit_cpu = (:overcommit_cpu::jsonb?)::float8, overcommit_memory = (:overcommit_memory::jsonb?)::float8,
       reserve_memory_mb = :reserve_memory_mb::int4, reserve_disk_mb = :reserve_disk_mb::int4, provider = :provider::text,
       availability_zone = :zone::text, updated_at = now(),
       status = CASE WHEN status = 'draining' AND :schedulable::bool THEN 'online' ELSE status END
 WHERE id = :id::uuid;

-- row: host_locked
--   id uuid, team_id uuid?, name text, status text, schedulable bool, dial text

-- name: host_lock_get :one host_locked
-- A host, locked: its capsules do not change places.
SELECT id, team_id, name, status, schedulable, dial FROM hosts WHERE id = :id::uuid AND deleted_at IS NULL
   AND (:owner::uuid? IS NULL OR team_id = :owner::uuid?) FOR UPDATE;

-- name: host_draining :exec
-- Nothing is placed there any more.
UPDATE hosts SET schedulable = false, status = CASE WHEN status = 'online' THEN 'draining' ELSE status END, updated_at = now()
 WHERE id = :id::uuid;

-- row: host_only
--   id uuid, team_id uuid

-- name: host_only_capsules :many host_only
-- Capsules whose only copy is there: those that it runs or keeps, and sleeping ones whose image is nowhere else.
SELECT c.id, c.team_id FROM capsules c WHERE c.host_id = :host::uuid AND c.observed_state <> 'stopped'
UNION ALL
SELECT c.id, c.team_id FROM capsules c JOIN capsule_images i ON i.capsule_id = c.id AND i.epoch = (SELECT max(epoch) FROM capsule_images m WHERE m.capsule_id = c.id)
 WHERE c.host_id IS NULL AND c.observed_state <> 'stopped'
   AND EXISTS (SELECT FROM artifact_copies a WHERE a.artifact_id = i.disk_artifact AND a.holder = :host::uuid)
   AND NOT EXISTS (SELECT FROM artifact_copies a WHERE a.artifact_id = i.disk_artifact AND a.holder <> :host::uuid AND a.state = 'ready')
 ORDER BY 1;

-- name: host_only_snapshots :many host_only
-- Snapshots whose only copy is there.
SELECT s.id, s.team_id FROM snapshots s WHERE s.state = 'ready'
   AND EXISTS (SELECT FROM artifact_copies a WHERE a.artifact_id = s.disk_artifact AND a.holder = :host::uuid)
   AND NOT EXISTS (SELECT FROM artifact_copies a WHERE a.artifact_id = s.disk_artifact AND a.holder <> :host::uuid AND a.state = 'ready')
 ORDER BY 1;

-- row: host_template
--   name text

-- name: host_only_templates :many host_template
-- Templates that no other host has.
SELECT t.name FROM templates t WHERE t.deleted_at IS NULL AND t.current_version IS NOT NULL
   AND EXISTS (SELECT FROM hosts h WHERE h.id = :host::uuid AND t.name = ANY (h.holds))
   AND NOT EXISTS (SELECT FROM hosts h WHERE h.id <> :host::uuid AND h.deleted_at IS NULL AND t.name = ANY (h.holds))
 ORDER BY 1;

-- name: host_capsule_ends :exec
-- Its host is gone for good: a tombstone remains.
UPDATE capsules SET observed_state = 'stopped', desired_state = 'stopped', generation = generation + 1, stopped_at = now(), envs_enc = NULL,
       host_id = NULL, missing_from = NULL, state_reason = 'host_deleted' WHERE id = :id::uuid AND observed_state <> 'stopped';

-- name: host_snapshots_end :exec
-- Snapshots that were there alone.
UPDATE snapshots s SET state = 'deleting' WHERE s.state = 'ready'
   AND EXISTS (SELECT FROM artifact_copies a WHERE a.artifact_id = s.disk_artifact AND a.holder = :host::uuid)
   AND NOT EXISTS (SELECT FROM artifact_copies a WHERE a.artifact_id = s.disk_artifact AND a.holder <> :host::uuid AND a.state = 'ready');

-- name: host_delete :exec
-- The row stays for who refers to it; what it holds is nowhere any more.
WITH t AS (UPDATE host_refresh_tokens SET revoked_at = now() WHERE host_id = :id::uuid AND revoked_at IS NULL),
     k AS (DELETE FROM host_tokens WHERE host_id = :id::uuid AND used_at IS NULL),
     c AS (DELETE FROM artifact_copies WHERE holder = :id::uuid)
UPDATE hosts SET deleted_at = now(), schedulable = false, updated_at = now() WHERE id = :id::uuid;

-- row: host_gone
--   id uuid, dial text, done bool

-- name: host_gone_get :one host_gone
-- A deleted host that may not know it yet.
SELECT id, dial, decommissioned_at IS NOT NULL AS done FROM hosts WHERE id = :id::uuid AND deleted_at IS NOT NULL;

-- name: host_decommissioned :exec
-- The agent confirmed that it is empty.
UPDATE hosts SET decommissioned_at = now() WHERE id = :id::uuid;

-- row: host_capsule
--   id uuid, team_id uuid, name text?, state text, template text, vcpus int4, memory_mb int4, disk_size_mb int4, created_at timestamptz

-- name: host_capsule_list :many host_capsule
-- What the rows say that a host holds.
SELECT id, team_id, name, observed_state AS state, template_name AS template, vcpus, memory_mb, disk_size_mb, created_at FROM capsules
 WHERE host_id = :host::uuid AND observed_state <> 'stopped'
   AND (created_at, id) < (coalesce(:before::timestamptz?, 'infinity'), coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY created_at DESC, id DESC LIMIT :limit::int4;

-- name: capsules_go_missing :many host_only
-- The host is silent: what it holds is not known any more.
UPDATE capsules SET missing_from = observed_state, observed_state = 'missing'
 WHERE host_id = :host::uuid AND observed_state IN ('starting','running','pausing','paused','resuming','hibernating')
RETURNING id, team_id;
