-- 0022_scaling.sql - what stands ready on the platform's hosts, and how many of these there are to be (spec 02 §5.8).
CREATE TABLE scaling (
	one bool PRIMARY KEY DEFAULT true CHECK (one),
	generation bigint NOT NULL DEFAULT 0, -- of changes; 0: never set, hosts go by their own configuration
	pools jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(pools) = 'array'), -- {template, shape {vcpus, memory_mb}, hot, waiting}
	warm_memory_percent int CHECK (warm_memory_percent BETWEEN 1 AND 90), -- NULL: each host's own
	min_hosts int CHECK (min_hosts >= 0),
	max_hosts int CHECK (max_hosts >= 1),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CHECK (min_hosts <= max_hosts));
INSERT INTO scaling DEFAULT VALUES;
GRANT SELECT, UPDATE ON scaling TO hutch_work;

-- A condition that holds, and since when.
CREATE TABLE scaling_alerts (
	rule text PRIMARY KEY CHECK (rule IN ('hosts_below_min', 'no_room')),
	since timestamptz NOT NULL DEFAULT now(),
	told_at timestamptz, -- operators heard of it
	good bool NOT NULL DEFAULT false, -- it did not hold at the last look
	value bigint NOT NULL,
	threshold bigint NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON scaling_alerts TO hutch_work;

ALTER TABLE hosts ADD scaling text NOT NULL DEFAULT ''; -- version of the setting that it holds, as it said; '': none

-- The platform's hosts: how many take capsules, have room for a usual one (1 vCPU, 512 MB, 5 GB), hold what is placed and what waits, are wanted.
CREATE FUNCTION hosts_needed(mem_percent bigint, cpu_percent bigint, tcg_percent bigint)
	RETURNS TABLE (takes bigint, with_room bigint, needed bigint, wanted bigint) LANGUAGE sql STABLE AS $$
	WITH h AS (SELECT h.status = 'online' AND h.schedulable AS takes, k.memory_mb AS has_mb, k.vcpus AS has_vcpus, k.disk_mb AS has_disk,
			u.memory_mb, u.vcpus, u.disk_mb, CASE WHEN h.accel = 'kvm' THEN 64 ELSE 128 END AS beside, coalesce(h.free_disk_mb, 0) - h.reserve_disk_mb AS free_disk
		  FROM hosts h, LATERAL host_used(h.id) u, LATERAL host_capacity(h, mem_percent, cpu_percent, tcg_percent) k
		 WHERE h.deleted_at IS NULL AND h.type = 'regular'),
	     own AS (SELECT avg(has_mb) FILTER (WHERE h.takes) AS has_mb, avg(has_vcpus) FILTER (WHERE h.takes) AS has_vcpus, avg(has_disk) FILTER (WHERE h.takes) AS has_disk,
			coalesce(sum(memory_mb), 0) AS mb, coalesce(sum(vcpus), 0) AS vcpus, coalesce(sum(disk_mb), 0) AS disk, count(*) FILTER (WHERE h.takes) AS takes,
			count(*) FILTER (WHERE h.takes AND memory_mb + 512 + beside <= has_mb AND vcpus < has_vcpus AND disk_mb + 2560 <= has_disk AND free_disk > 1536) AS with_room
		  FROM h),
	     waits AS (SELECT coalesce(sum(c.memory_mb + 64), 0) AS mb, coalesce(sum(c.vcpus), 0) AS vcpus, coalesce(sum(c.disk_size_mb) / 2, 0) AS disk
		  FROM capsules c JOIN teams t ON t.id = c.team_id WHERE c.observed_state = 'pending' AND NOT t.is_byoc),
	     n AS (SELECT CASE WHEN own.has_mb > 0 AND own.has_vcpus > 0 AND own.has_disk > 0 THEN ceil(greatest((own.mb + waits.mb) / own.has_mb,
			(own.vcpus + waits.vcpus) / own.has_vcpus, (own.disk + waits.disk) / own.has_disk))::bigint END AS needed FROM own, waits)
	SELECT own.takes, own.with_room, n.needed,
	       CASE WHEN coalesce(n.needed, nullif(s.min_hosts, 0)) IS NULL THEN NULL
		    ELSE least(greatest(n.needed, s.min_hosts), s.max_hosts) END
	  FROM own, n, scaling s $$;
REVOKE ALL ON FUNCTION hosts_needed(bigint, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hosts_needed(bigint, bigint, bigint) TO hutch_work;
