-- 0002_capsules.sql - hosts, templates, capsules, quotas (spec 02 §8, as far as it is built).

CREATE TABLE hosts (
	id uuid PRIMARY KEY,
	type text NOT NULL DEFAULT 'regular' CHECK (type IN ('regular','byoc')),
	team_id uuid REFERENCES teams,
	name text NOT NULL DEFAULT '', address text NOT NULL DEFAULT '',
	arch text NOT NULL DEFAULT '', accel text NOT NULL DEFAULT '', agent_version text NOT NULL DEFAULT '',
	cpu_cores int NOT NULL DEFAULT 0, memory_mb int NOT NULL DEFAULT 0, disk_gb int NOT NULL DEFAULT 0,
	status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending','online','unreachable','draining')),
	schedulable bool NOT NULL DEFAULT true,
	boot_id text, heartbeat_seq bigint NOT NULL DEFAULT 0, inventory_hash text, report_seq bigint NOT NULL DEFAULT 0,
	last_heartbeat_at timestamptz, conditions jsonb NOT NULL DEFAULT '[]',
	free_memory_mb int, free_disk_mb bigint,
	created_by uuid REFERENCES users ON DELETE SET NULL,
	created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz,
	CHECK ((type = 'byoc') = (team_id IS NOT NULL)));
CREATE INDEX ON hosts (status, schedulable) WHERE deleted_at IS NULL;
CREATE TABLE host_tokens (
	id uuid PRIMARY KEY, host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
	token_hash bytea NOT NULL UNIQUE, created_by uuid REFERENCES users ON DELETE SET NULL,
	created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, used_at timestamptz);
CREATE TABLE host_refresh_tokens (
	id uuid PRIMARY KEY, host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
	token_hash bytea NOT NULL UNIQUE, replaced_by uuid,
	created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, used_at timestamptz, revoked_at timestamptz);
CREATE INDEX ON host_refresh_tokens (host_id);

CREATE TABLE templates (
	id uuid PRIMARY KEY, team_id uuid NOT NULL REFERENCES teams,
	name text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
	description text NOT NULL DEFAULT '',
	visibility text NOT NULL DEFAULT 'team' CHECK (visibility IN ('private','team','public')),
	current_version int,
	created_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz);
CREATE UNIQUE INDEX ON templates (team_id, name) WHERE deleted_at IS NULL;
CREATE TABLE template_versions (
	template_id uuid NOT NULL REFERENCES templates, version int NOT NULL CHECK (version > 0),
	digest text NOT NULL, size_bytes bigint NOT NULL, disk_size_mb int NOT NULL,
	default_user text NOT NULL DEFAULT 'root', workdir text NOT NULL DEFAULT '/root', env jsonb NOT NULL DEFAULT '{}',
	kernel_version text NOT NULL DEFAULT '',
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (template_id, version));

-- What a team may hold: its own row, else the row of the Platform team, which is the default.
CREATE TABLE quotas (
	team_id uuid PRIMARY KEY REFERENCES teams,
	capsules int NOT NULL, vcpus int NOT NULL, memory_mb bigint NOT NULL, disk_mb bigint NOT NULL,
	updated_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE capsules (
	id uuid PRIMARY KEY,
	team_id uuid NOT NULL REFERENCES teams,
	owner_id uuid REFERENCES users ON DELETE SET NULL,
	created_by_key uuid REFERENCES api_keys ON DELETE SET NULL,
	purpose text NOT NULL DEFAULT 'user' CHECK (purpose IN ('user','build','warmup','test')),
	visibility text NOT NULL DEFAULT 'team' CHECK (visibility IN ('team','private')),
	name text CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
	template_id uuid NOT NULL REFERENCES templates, template_name text NOT NULL, template_version int NOT NULL,
	host_id uuid REFERENCES hosts,
	desired_state text NOT NULL DEFAULT 'running' CHECK (desired_state IN ('running','paused','hibernated','stopped')),
	observed_state text NOT NULL CHECK (observed_state IN ('pending','starting','running','pausing','paused','resuming',
		'hibernating','hibernated','stopping','stopped','missing','error')),
	missing_from text, state_since timestamptz NOT NULL DEFAULT now(), state_reason text NOT NULL DEFAULT '',
	error jsonb,
	generation bigint NOT NULL DEFAULT 1, epoch bigint NOT NULL DEFAULT 1, change_no bigint NOT NULL DEFAULT 1,
	op text, op_job_id uuid,
	vcpus int NOT NULL CHECK (vcpus BETWEEN 1 AND 16), memory_mb int NOT NULL CHECK (memory_mb BETWEEN 128 AND 65536),
	disk_size_mb int NOT NULL CHECK (disk_size_mb BETWEEN 1024 AND 262144),
	guest_user text, workdir text, boot text NOT NULL DEFAULT 'warm' CHECK (boot IN ('warm','cold')),
	envs_enc bytea, env_names text[] NOT NULL DEFAULT '{}',
	metadata jsonb NOT NULL DEFAULT '{}', tags text[] NOT NULL DEFAULT '{}',
	start_mode text, accel text, starts int NOT NULL DEFAULT 0,
	created_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz, last_active_at timestamptz,
	updated_at timestamptz NOT NULL DEFAULT now(), stopped_at timestamptz,
	CHECK (host_id IS NOT NULL OR observed_state NOT IN ('starting','running','pausing','paused','resuming','hibernating')));
CREATE INDEX capsules_live ON capsules (team_id, created_at DESC, id DESC) WHERE observed_state <> 'stopped';
CREATE INDEX capsules_all ON capsules (team_id, created_at DESC, id DESC);
CREATE INDEX ON capsules (host_id, observed_state);
CREATE INDEX ON capsules (observed_state, state_since) WHERE observed_state NOT IN ('running','paused','hibernated','stopped');
CREATE INDEX ON capsules (desired_state) WHERE desired_state = 'stopped' AND observed_state <> 'stopped';
CREATE UNIQUE INDEX capsules_name ON capsules (team_id, name) WHERE observed_state <> 'stopped';
CREATE INDEX ON capsules USING gin (tags);
CREATE INDEX ON capsules (stopped_at) WHERE stopped_at IS NOT NULL;
ALTER TABLE capsules ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON capsules TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON capsules TO hutch_work USING (true) WITH CHECK (true);

-- change_no lets an inventory that was read before a change be told from one read after it (spec 02 §5.3).
CREATE FUNCTION capsule_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.change_no := OLD.change_no + 1;
	NEW.updated_at := now();
	IF NEW.observed_state <> OLD.observed_state THEN NEW.state_since := now(); END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER changed BEFORE UPDATE ON capsules FOR EACH ROW EXECUTE FUNCTION capsule_changed();

-- What a host holds: sums over its capsules, which row-level security must not hide from the scheduler.
CREATE FUNCTION host_used(h uuid) RETURNS TABLE (memory_mb bigint, vcpus bigint, starting bigint)
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
	SELECT coalesce(sum(c.memory_mb + 64 + CASE WHEN c.accel = 'kvm' THEN 0 ELSE 64 END), 0)::bigint,
		coalesce(sum(c.vcpus), 0)::bigint, count(*) FILTER (WHERE c.observed_state = 'starting')
	FROM capsules c WHERE c.host_id = h
		AND c.observed_state IN ('starting','running','pausing','resuming','hibernating','paused','missing','stopping') $$;

REVOKE ALL ON FUNCTION host_used(uuid), capsule_changed() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION host_used(uuid) TO hutch_app, hutch_work;
GRANT SELECT, INSERT, UPDATE, DELETE ON hosts, host_tokens, host_refresh_tokens, capsules TO hutch_app, hutch_work;
GRANT SELECT ON templates, template_versions, quotas TO hutch_app, hutch_work;

-- What inventories and rows disagree about, and since when: an orphan is proven by two sightings (spec 02 §5.3).
CREATE TABLE host_sightings (
	host_id uuid NOT NULL REFERENCES hosts ON DELETE CASCADE, capsule text NOT NULL, what text NOT NULL,
	first_at timestamptz NOT NULL DEFAULT now(), last_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (host_id, capsule, what));
GRANT SELECT, INSERT, UPDATE, DELETE ON host_sightings TO hutch_work;

-- Templates of others are seen when they are the platform's or public; limits are one's own or the default.
ALTER TABLE templates ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON templates FOR SELECT TO hutch_app USING (team_id = current_team() OR visibility = 'public'
	OR team_id = '00000000-0000-0000-0000-000000000000');
CREATE POLICY platform ON templates TO hutch_work USING (true) WITH CHECK (true);
ALTER TABLE quotas ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON quotas FOR SELECT TO hutch_app USING (team_id IN (current_team(), '00000000-0000-0000-0000-000000000000'));
CREATE POLICY platform ON quotas TO hutch_work USING (true) WITH CHECK (true);
