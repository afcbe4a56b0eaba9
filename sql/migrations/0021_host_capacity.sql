-- 0021_host_capacity.sql - what a host can take, in one place (spec 02 §5.5): an emulated processor is not promised more than once.
CREATE FUNCTION host_capacity(h hosts, mem_percent bigint, cpu_percent bigint, tcg_percent bigint)
	RETURNS TABLE (memory_mb bigint, vcpus bigint, disk_mb bigint) LANGUAGE sql IMMUTABLE AS $$
	SELECT floor((h.memory_mb - greatest(1024, h.memory_mb / 12) - h.reserve_memory_mb) * coalesce(h.overcommit_memory, mem_percent / 100.0))::bigint,
		floor(h.cpu_cores * coalesce(h.overcommit_cpu, CASE WHEN h.accel = 'tcg' THEN tcg_percent ELSE cpu_percent END / 100.0))::bigint,
		h.disk_gb::bigint * 1024 - greatest(10240, h.disk_gb::bigint * 1024 / 20) - h.reserve_disk_mb $$;
REVOKE ALL ON FUNCTION host_capacity(hosts, bigint, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION host_capacity(hosts, bigint, bigint, bigint) TO hutch_app, hutch_work;
