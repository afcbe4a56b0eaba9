-- cluster.sql - the platform as one machine, for those who run it (spec 02 §5.8).

-- row: cluster_sum
--   hosts jsonb, capacity jsonb, used jsonb, capsules jsonb, artifacts jsonb, hosts_wanted int8?

-- name: cluster_sum_get :one cluster_sum
-- Sums of all hosts, capsules and copies. Wanted: so many of the platform's hosts, of the size that they have now, hold what is placed on them and what waits for a place, within the bounds of the scaling.
WITH h AS (SELECT h.status, h.status = 'online' AND h.schedulable AS takes, k.memory_mb AS has_mb, k.vcpus AS has_vcpus, k.disk_mb AS has_disk,
		u.memory_mb, u.vcpus, u.disk_mb, u.capsules
	  FROM hosts h, LATERAL host_used(h.id) u, LATERAL host_capacity(h, :mem_percent::int8, :cpu_percent::int8, :tcg_percent::int8) k
	 WHERE h.deleted_at IS NULL),
     a AS (SELECT a.bytes, (SELECT count(*) FROM artifact_copies c WHERE c.artifact_id = a.id AND c.state = 'ready'
		AND (c.holder = '00000000-0000-0000-0000-000000000000' OR EXISTS (SELECT FROM hosts x WHERE x.id = c.holder AND x.deleted_at IS NULL))) AS copies
	  FROM artifacts a)
SELECT (SELECT jsonb_object_agg(s, (SELECT count(*) FROM h WHERE h.status = s)) FROM unnest(ARRAY['pending','online','draining','unreachable']) s) AS hosts,
       (SELECT jsonb_build_object('memory_mb', coalesce(sum(has_mb), 0), 'vcpus', coalesce(sum(has_vcpus), 0), 'disk_mb', coalesce(sum(has_disk), 0))
	  FROM h WHERE takes) AS capacity,
       (SELECT jsonb_build_object('memory_mb', coalesce(sum(memory_mb), 0), 'vcpus', coalesce(sum(vcpus), 0), 'disk_mb', coalesce(sum(disk_mb), 0),
		'capsules', coalesce(sum(capsules), 0)) FROM h) AS used,
       (SELECT coalesce(jsonb_object_agg(s.state, s.n), '{}') FROM (SELECT observed_state AS state, count(*) AS n FROM capsules
		WHERE observed_state <> 'stopped' GROUP BY 1) s) AS capsules,
       (SELECT jsonb_build_object('total', count(*), 'bytes', coalesce(sum(bytes), 0), 'one_copy', count(*) FILTER (WHERE copies = 1),
		'no_copy', count(*) FILTER (WHERE copies = 0)) FROM a) AS artifacts,
       (SELECT wanted FROM hosts_needed(:mem_percent::int8, :cpu_percent::int8, :tcg_percent::int8)) AS hosts_wanted;
