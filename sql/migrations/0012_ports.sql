-- 0012_ports.sql - ports of capsules that are reached from outside (spec 02 §2.8, §8; 06 §4).

-- A port without a row is private, plain HTTP, and gets the Host that the client sent.
CREATE TABLE capsule_ports (
	capsule_id uuid NOT NULL REFERENCES capsules ON DELETE CASCADE, port int NOT NULL CHECK (port BETWEEN 1 AND 65535),
	team_id uuid NOT NULL REFERENCES teams,
	visibility text NOT NULL DEFAULT 'private' CHECK (visibility IN ('private','public')),
	protocol text NOT NULL DEFAULT 'http' CHECK (protocol IN ('http','https')),
	label text CHECK (length(label) <= 64), host_header text NOT NULL DEFAULT 'keep' CHECK (length(host_header) BETWEEN 1 AND 253),
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (capsule_id, port));
CREATE INDEX ON capsule_ports (team_id);
ALTER TABLE capsule_ports ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON capsule_ports TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON capsule_ports TO hutch_work USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON capsule_ports TO hutch_app, hutch_work;

-- public_traffic: ports without a row are public. ingress: {mask_host, https_ports}: the Host that services see, and which
-- of them speak TLS.
ALTER TABLE capsules ADD COLUMN public_traffic boolean NOT NULL DEFAULT false,
	ADD COLUMN ingress jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(ingress) = 'object');

-- What the data plane must know of a capsule whose client shows no credential of ours: the team is not known before.
CREATE FUNCTION capsule_door(c uuid) RETURNS TABLE (team_id uuid, owner_id uuid, visibility text, state text, epoch bigint,
	change_no bigint, address text, paused_by text, auto_resume text, public_traffic boolean, ingress text, ports text)
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
	SELECT c.team_id, c.owner_id, c.visibility, c.observed_state, c.epoch, c.change_no, coalesce(h.dial, ''), c.paused_by, c.auto_resume,
		c.public_traffic, c.ingress::text,
		coalesce((SELECT jsonb_object_agg(p.port, jsonb_build_object('visibility', p.visibility, 'protocol', p.protocol,
			'host_header', p.host_header)) FROM capsule_ports p WHERE p.capsule_id = c.id), '{}')::text
	FROM capsules c LEFT JOIN hosts h ON h.id = c.host_id WHERE c.id = capsule_door.c $$;

-- Capsules that a signed URL may mean (spec 06 §11.3): running, newest first.
CREATE FUNCTION capsules_running(most int) RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
	SELECT c.id FROM capsules c WHERE c.observed_state = 'running' ORDER BY c.created_at DESC LIMIT most $$;
REVOKE ALL ON FUNCTION capsule_door(uuid), capsules_running(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION capsule_door(uuid), capsules_running(int) TO hutch_app, hutch_work;
