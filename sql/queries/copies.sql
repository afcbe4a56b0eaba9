-- copies.sql - which host has what, and where a second copy goes (spec 02 §5.6).

-- row: template_source
--   dial text, digest text

-- name: template_sources :many template_source
-- Who has a template that this host has not: nothing when it is there. A deleted one, too: what sleeps of it wakes somewhere.
SELECT s.dial, v.digest FROM hosts s, templates t JOIN template_versions v ON v.template_id = t.id AND v.version = t.current_version
 WHERE t.name = :name::text AND :name::text = ANY (s.holds) AND s.id <> :host::uuid AND s.deleted_at IS NULL AND s.status IN ('online','draining')
   AND EXISTS (SELECT FROM hosts h WHERE h.id = :host::uuid AND NOT :name::text = ANY (h.holds)
     AND (starts_with(s.address, 'https:') OR starts_with(h.address, 'unix:')))
 ORDER BY t.deleted_at DESC NULLS FIRST, s.last_heartbeat_at DESC LIMIT 1;

-- name: host_holds :exec
-- The host has it now; its next heartbeat says so, too.
UPDATE hosts SET holds = array_append(holds, :name::text) WHERE id = :host::uuid AND NOT :name::text = ANY (holds);

-- row: template_wanted
--   name text, target uuid, target_dial text

-- name: templates_wanted :many template_wanted
-- Templates that fewer regular hosts have than shall, with the emptiest host for each.
SELECT t.name, h.id AS target, h.dial AS target_dial FROM templates t,
       LATERAL (SELECT count(*) AS n FROM hosts s WHERE s.deleted_at IS NULL AND s.type = 'regular' AND t.name = ANY (s.holds)) have,
       LATERAL (SELECT g.id, g.dial FROM hosts g WHERE g.deleted_at IS NULL AND g.type = 'regular' AND g.status = 'online' AND g.schedulable
          AND NOT t.name = ANY (g.holds) ORDER BY g.free_disk_mb DESC NULLS LAST LIMIT 1) h
 WHERE t.deleted_at IS NULL AND t.current_version IS NOT NULL
   AND have.n BETWEEN 1 AND :copies::int4 - 1;

-- row: copy_wanted
--   id bytea, source_dial text, target uuid, target_dial text

-- name: copies_wanted :many copy_wanted
-- What sleeping capsules and snapshots need and fewer hosts have than shall: from whom, and to which host that may have it.
SELECT w.id, s.dial AS source_dial, h.id AS target, h.dial AS target_dial
  FROM (SELECT i.disk_artifact AS id, i.team_id FROM capsule_images i JOIN capsules c ON c.id = i.capsule_id AND c.observed_state = 'hibernated'
        UNION SELECT i.memory_artifact, i.team_id FROM capsule_images i JOIN capsules c ON c.id = i.capsule_id AND c.observed_state = 'hibernated'
        UNION SELECT disk_artifact, team_id FROM snapshots WHERE state = 'ready'
        UNION SELECT memory_artifact, team_id FROM snapshots WHERE state = 'ready') w
  JOIN teams t ON t.id = w.team_id,
       LATERAL (SELECT count(*) AS n FROM artifact_copies a JOIN hosts g ON g.id = a.holder AND g.deleted_at IS NULL WHERE a.artifact_id = w.id) have,
       LATERAL (SELECT g.dial, g.address FROM artifact_copies a JOIN hosts g ON g.id = a.holder AND g.deleted_at IS NULL AND g.status IN ('online','draining')
          WHERE a.artifact_id = w.id AND a.state = 'ready' ORDER BY g.last_heartbeat_at DESC LIMIT 1) s,
       LATERAL (SELECT g.id, g.dial FROM hosts g WHERE g.deleted_at IS NULL AND g.status = 'online' AND g.schedulable
          AND (starts_with(s.address, 'https:') OR starts_with(g.address, 'unix:'))
          AND CASE WHEN t.is_byoc THEN g.team_id = t.id ELSE g.type = 'regular' END
          AND NOT EXISTS (SELECT FROM artifact_copies a WHERE a.artifact_id = w.id AND a.holder = g.id)
          ORDER BY g.free_disk_mb DESC NULLS LAST LIMIT 1) h
 WHERE w.id IS NOT NULL AND have.n < :copies::int4 LIMIT 20;

-- row: drain_due
--   id uuid, team_id uuid, epoch int8, observed_state text, paused_by text?

-- name: drain_left :many drain_due
-- What still is on a host that drains, in whatever state.
SELECT id, team_id, epoch, observed_state, paused_by FROM capsules WHERE host_id = :host::uuid AND observed_state NOT IN ('stopped','error')
 ORDER BY id LIMIT 500;

-- name: drain_moving :many drain_due
-- What ran on the host, sleeps by the drain, and shall run elsewhere.
SELECT c.id, c.team_id, c.epoch, c.observed_state, c.paused_by FROM capsules c
  JOIN capsule_images i ON i.capsule_id = c.id AND i.epoch = c.epoch
  JOIN artifact_copies a ON a.artifact_id = i.disk_artifact AND a.holder = :host::uuid
 WHERE c.observed_state = 'hibernated' AND c.paused_by = 'drain' LIMIT 500;
