-- hosts.sql - machines that run the host agent.

-- row: host
--   id uuid, type text, team_id uuid?, name text, arch text, accel text, cpu_cores int4, memory_mb int4, disk_gb int4, status text,
--   schedulable bool, last_heartbeat_at timestamptz?, agent_version text, conditions jsonb, created_by uuid?, created_at timestamptz,
--   updated_at timestamptz

-- name: host_list :many host
-- All hosts, newest first.
SELECT id, type, team_id, name, arch, accel, cpu_cores, memory_mb, disk_gb, status, schedulable, last_heartbeat_at, agent_version,
       conditions, created_by, created_at, updated_at FROM hosts
 WHERE deleted_at IS NULL AND (created_at, id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY created_at DESC, id DESC LIMIT :limit::int4;

-- name: host_get :one host
-- One host.
SELECT id, type, team_id, name, arch, accel, cpu_cores, memory_mb, disk_gb, status, schedulable, last_heartbeat_at, agent_version,
       conditions, created_by, created_at, updated_at FROM hosts WHERE id = :id::uuid AND deleted_at IS NULL;

-- name: host_insert :exec
-- A host that shall register.
INSERT INTO hosts (id, name, created_by) VALUES (:id::uuid, :name::text, :user::uuid?);

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
       agent_version = :agent_version::text, status = 'online', last_heartbeat_at = now(), free_disk_mb = :disk_gb::int4::int8 * 1024,
       free_memory_mb = :memory_mb::int4, updated_at = now()
 WHERE id = :id::uuid;

-- name: host_refresh_insert :exec
-- A refresh token of a host.
INSERT INTO host_refresh_tokens (id, host_id, token_hash, expires_at)
VALUES (:id::uuid, :host::uuid, :hash::bytea, now() + make_interval(secs => :ttl::int8));

-- row: host_refresh
--   id uuid, host_id uuid, live bool, revoked bool

-- name: host_refresh_get :one host_refresh
-- A refresh token, locked.
SELECT t.id, t.host_id, (t.revoked_at IS NULL AND t.expires_at > now() AND h.deleted_at IS NULL) AS live,
       t.revoked_at IS NOT NULL AS revoked
  FROM host_refresh_tokens t JOIN hosts h ON h.id = t.host_id WHERE t.token_hash = :hash::bytea FOR UPDATE OF t;

-- name: host_refresh_used :exec
-- The new token is in use: all earlier ones of the host end now (issue, then revoke: never none is good).
UPDATE host_refresh_tokens SET revoked_at = now() WHERE host_id = :host::uuid AND id <> :id::uuid AND revoked_at IS NULL
   AND created_at < (SELECT created_at FROM host_refresh_tokens WHERE id = :id::uuid);

-- name: host_refresh_revoke_all :exec
-- A token came back that was replaced: nothing of this host is trusted any more.
UPDATE host_refresh_tokens SET revoked_at = now() WHERE host_id = :host::uuid AND revoked_at IS NULL;

-- row: host_beat
--   was text, known_hash text?

-- name: host_heartbeat :one host_beat
-- The host lives; tells what it was before.
UPDATE hosts h SET last_heartbeat_at = now(), heartbeat_seq = :seq::int8, boot_id = :boot_id::text?, agent_version = :agent_version::text,
       free_memory_mb = :free_memory_mb::int4, free_disk_mb = :free_disk_mb::int8, conditions = :conditions::jsonb,
       inventory_hash = :inventory_hash::text?, status = CASE WHEN h.status IN ('unreachable','pending') THEN 'online' ELSE h.status END
  FROM (SELECT id, status, inventory_hash FROM hosts WHERE id = :id::uuid AND deleted_at IS NULL FOR UPDATE) o
 WHERE h.id = o.id RETURNING o.status AS was, o.inventory_hash AS known_hash;

-- row: host_seen
--   id uuid, name text, address text, status text, silent_s int8

-- name: hosts_watched :many host_seen
-- All hosts that registered, with the seconds since their last heartbeat.
SELECT id, name, address, status, extract(epoch FROM now() - last_heartbeat_at)::int8 AS silent_s FROM hosts
 WHERE deleted_at IS NULL AND last_heartbeat_at IS NOT NULL;

-- name: host_mark_down :exec
-- online -> unreachable.
UPDATE hosts SET status = 'unreachable', updated_at = now() WHERE id = :id::uuid AND status = 'online'
   AND last_heartbeat_at < now() - make_interval(secs => :silent::int8);

-- name: host_reported :exec
-- Reports up to this number were applied.
UPDATE hosts SET report_seq = :seq::int8 WHERE id = :id::uuid AND report_seq < :seq::int8;

-- name: template_upsert :one host_ref
-- A platform template by name.
INSERT INTO templates (id, team_id, name, description, visibility) VALUES (:id::uuid, '00000000-0000-0000-0000-000000000000', :name::text, :description::text, 'public')
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
