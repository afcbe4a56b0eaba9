-- 0006_hosts.sql - many hosts: certificates, tags, placement, proof of orphans (spec 02 §5, §8).

ALTER TABLE hosts
	ADD provider text NOT NULL DEFAULT '' CHECK (length(provider) <= 64),
	ADD availability_zone text NOT NULL DEFAULT '' CHECK (length(availability_zone) <= 64),
	ADD cpu_classes text[] NOT NULL DEFAULT '{}', -- kinds of memory images it can load
	ADD holds text[] NOT NULL DEFAULT '{}', -- names of templates that are there; warm:NAME where memory is ready
	ADD weight float8 NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 10),
	ADD overcommit_cpu float8 CHECK (overcommit_cpu BETWEEN 0.1 AND 64), -- NULL: the platform's
	ADD overcommit_memory float8 CHECK (overcommit_memory BETWEEN 0.1 AND 10),
	ADD reserve_memory_mb int NOT NULL DEFAULT 0 CHECK (reserve_memory_mb >= 0), -- beside what is always kept
	ADD reserve_disk_mb int NOT NULL DEFAULT 0 CHECK (reserve_disk_mb >= 0),
	ADD last_placed_at timestamptz, -- kept by the round robin
	-- SHA-256 of the certificate; the one before stays good until the host used its new credentials
	ADD cert_fingerprint text CHECK (cert_fingerprint ~ '^[0-9a-f]{64}$'),
	ADD cert_previous text CHECK (cert_previous ~ '^[0-9a-f]{64}$'),
	ADD cert_expires_at timestamptz,
	ADD decommissioned_at timestamptz; -- a deleted host confirmed that it is empty
-- What programs connect to: a new certificate makes another address, which no kept connection has.
ALTER TABLE hosts ADD dial text NOT NULL GENERATED ALWAYS AS (CASE WHEN starts_with(address, 'https:')
	THEN address || '#' || coalesce(cert_fingerprint, '') || coalesce(',' || cert_previous, '') ELSE address END) STORED;
CREATE UNIQUE INDEX hosts_address ON hosts (address) WHERE deleted_at IS NULL AND starts_with(address, 'https:');
CREATE INDEX ON hosts (team_id) WHERE team_id IS NOT NULL;

CREATE TABLE host_tags (
	host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
	tag text NOT NULL CHECK (tag ~ '^[a-z0-9][a-z0-9._/-]{0,62}$'),
	PRIMARY KEY (host_id, tag));
GRANT SELECT, INSERT, DELETE ON host_tags TO hutch_app, hutch_work;

-- Which database this is: a host obeys "discard" only from the one it registered with.
CREATE TABLE cluster (id uuid NOT NULL DEFAULT gen_random_uuid(), one bool PRIMARY KEY DEFAULT true CHECK (one));
INSERT INTO cluster DEFAULT VALUES;
GRANT SELECT ON cluster TO hutch_app, hutch_work;

-- What a host holds, promised disk too: half of what is not written yet counts (spec 02 §5.5).
DROP FUNCTION host_used(uuid);
CREATE FUNCTION host_used(h uuid) RETURNS TABLE (memory_mb bigint, vcpus bigint, starting bigint, disk_mb bigint, capsules bigint)
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
	SELECT coalesce(sum(c.memory_mb + CASE WHEN c.accel = 'kvm' THEN 64 ELSE 128 END) FILTER (WHERE alive), 0)::bigint,
		coalesce(sum(c.vcpus) FILTER (WHERE alive), 0)::bigint,
		count(*) FILTER (WHERE c.observed_state IN ('starting','resuming')),
		coalesce(sum(c.disk_size_mb) / 2, 0)::bigint, count(*)
	FROM (SELECT *, observed_state IN ('starting','running','pausing','resuming','hibernating','paused','missing','stopping')
			AND NOT (coalesce(missing_from, observed_state) = 'paused' AND residency IS NOT DISTINCT FROM 'disk') AS alive
		FROM capsules WHERE host_id = h AND observed_state <> 'stopped') c $$;
REVOKE ALL ON FUNCTION host_used(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION host_used(uuid) TO hutch_app, hutch_work;
