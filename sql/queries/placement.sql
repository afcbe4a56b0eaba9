-- placement.sql - what the scheduler knows of hosts (spec 02 §5.5).

-- row: place_host
--   id uuid, address text, accel text, weight float8, cpu_cores int4, all_memory_mb int8, all_vcpus int8, all_disk_mb int8,
--   memory_mb int8, vcpus int8, disk_mb int8, free_disk_mb int8, starting int8, has_template bool, is_warm bool, has_copy bool,
--   last_placed_at timestamptz?

-- name: place_hosts :many place_host
-- Hosts that may take the team's capsules, with what they have and what is promised. One only: with its row locked, the reservation.
SELECT h.id, h.address, h.accel, h.weight, h.cpu_cores,
       k.memory_mb AS all_memory_mb, k.vcpus AS all_vcpus, k.disk_mb AS all_disk_mb,
       u.memory_mb, u.vcpus, u.disk_mb, coalesce(h.free_disk_mb, 0)::int8 - h.reserve_disk_mb AS free_disk_mb, u.starting,
       coalesce(:template::text? = ANY (h.holds), false) AS has_template,
       coalesce('warm:' || :template::text? = ANY (h.holds), false) AS is_warm,
       (SELECT count(*) = cardinality(:artifacts::text[]) FROM artifact_copies c WHERE c.holder = h.id AND c.state = 'ready'
          AND encode(c.artifact_id, 'hex') = ANY (:artifacts::text[])) AS has_copy, h.last_placed_at
  FROM hosts h, LATERAL host_used(h.id) u, LATERAL host_capacity(h, :mem_percent::int8, :cpu_percent::int8, :tcg_percent::int8) k
 WHERE h.deleted_at IS NULL AND h.status = 'online' AND h.schedulable
   AND h.last_heartbeat_at > now() - make_interval(secs => :suspect::int8)
   AND CASE WHEN (SELECT t.is_byoc FROM teams t WHERE t.id = :team::uuid) THEN h.team_id = :team::uuid ELSE h.type = 'regular' END
   AND (SELECT count(*) FROM host_tags g WHERE g.host_id = h.id AND g.tag = ANY (:tags::text[])) = (SELECT count(DISTINCT t) FROM unnest(:tags::text[]) t)
   AND (:arch::text? IS NULL OR h.arch = :arch::text?)
   AND (:cpu_class::text? IS NULL OR :cpu_class::text? = ANY (h.cpu_classes))
   AND (:only::uuid? IS NULL OR h.id = :only::uuid?) AND (:avoid::uuid? IS NULL OR h.id <> :avoid::uuid?);

-- name: place_lock :exec
-- Reservations on a host come one after the other.
SELECT 1 FROM hosts WHERE id = :id::uuid FOR UPDATE;

-- name: place_lock_of :exec
-- The same for the host that has a capsule.
SELECT 1 FROM hosts WHERE id = (SELECT c.host_id FROM capsules c WHERE c.id = :capsule::uuid) FOR UPDATE;

-- row: place_left
--   disk_mb int8, all_disk_mb int8, free_disk_mb int8

-- name: place_disk :one place_left
-- The disk of the host that has a capsule: promised, in all, free.
SELECT u.disk_mb, k.disk_mb AS all_disk_mb, coalesce(h.free_disk_mb, 0)::int8 - h.reserve_disk_mb AS free_disk_mb
  FROM hosts h, LATERAL host_used(h.id) u, LATERAL host_capacity(h, :mem_percent::int8, :cpu_percent::int8, :tcg_percent::int8) k
 WHERE h.id = (SELECT c.host_id FROM capsules c WHERE c.id = :capsule::uuid);

-- name: place_note :exec
-- The round robin's memory.
UPDATE hosts SET last_placed_at = clock_timestamp() WHERE id = :id::uuid;
