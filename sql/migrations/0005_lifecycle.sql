-- 0005_lifecycle.sql - sleep, wake, fork, snapshots (spec 02 §1, §8, as far as it is built).

-- What hosts hold of capsules' and templates' disks and memory. The id is the SHA-256 of the manifest; a child needs its
-- parent wherever it is opened. Contents belong to whoever names them: capsule_images, snapshots. Who names it is counted
-- when it matters (artifact.gc), not stored.
CREATE TABLE artifacts (
	id bytea PRIMARY KEY CHECK (octet_length(id) = 32),
	kind text NOT NULL CHECK (kind IN ('memory','disk','image','template')),
	parent_id bytea, bytes bigint NOT NULL DEFAULT 0, cpu_class text,
	created_at timestamptz NOT NULL DEFAULT now(), named_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON artifacts (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX ON artifacts (named_at);
-- holder: the host's id; all zero is the object store.
CREATE TABLE artifact_copies (
	artifact_id bytea NOT NULL REFERENCES artifacts ON DELETE CASCADE,
	holder uuid NOT NULL,
	state text NOT NULL DEFAULT 'ready' CHECK (state IN ('copying','ready','corrupt','deleting')),
	created_at timestamptz NOT NULL DEFAULT now(), verified_at timestamptz,
	PRIMARY KEY (artifact_id, holder));
CREATE INDEX ON artifact_copies (holder);

CREATE TABLE snapshots (
	id uuid PRIMARY KEY,
	team_id uuid NOT NULL REFERENCES teams,
	capsule_id uuid REFERENCES capsules ON DELETE SET NULL,
	name text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
	description text NOT NULL DEFAULT '',
	kind text NOT NULL DEFAULT 'manual' CHECK (kind IN ('manual','scheduled','pre_op','last')),
	memory bool NOT NULL,
	state text NOT NULL DEFAULT 'creating' CHECK (state IN ('creating','ready','failed','deleting')),
	error jsonb,
	memory_artifact bytea REFERENCES artifacts, disk_artifact bytea REFERENCES artifacts, cpu_class text,
	parent_id uuid REFERENCES snapshots ON DELETE SET NULL,
	bytes_logical bigint NOT NULL DEFAULT 0, bytes_unique bigint NOT NULL DEFAULT 0,
	spec jsonb NOT NULL, envs_enc bytea, metadata jsonb NOT NULL DEFAULT '{}',
	pinned bool NOT NULL DEFAULT false, expires_at timestamptz,
	created_by uuid REFERENCES users ON DELETE SET NULL,
	created_at timestamptz NOT NULL DEFAULT now(), ready_at timestamptz,
	CHECK (state <> 'ready' OR disk_artifact IS NOT NULL));
CREATE UNIQUE INDEX snapshots_name ON snapshots (team_id, capsule_id, name);
CREATE INDEX ON snapshots (team_id, created_at DESC, id DESC);
CREATE INDEX ON snapshots (expires_at) WHERE expires_at IS NOT NULL AND NOT pinned;
CREATE INDEX ON snapshots (capsule_id);
CREATE INDEX ON snapshots (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX ON snapshots (memory_artifact) WHERE memory_artifact IS NOT NULL;
CREATE INDEX ON snapshots (disk_artifact) WHERE disk_artifact IS NOT NULL;
CREATE INDEX ON snapshots (state, created_at) WHERE state IN ('creating','deleting');
ALTER TABLE snapshots ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON snapshots TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON snapshots TO hutch_work USING (true) WITH CHECK (true);

-- The sealed image of a sleeping capsule, per start. The newest one is what it wakes from.
CREATE TABLE capsule_images (
	capsule_id uuid NOT NULL REFERENCES capsules ON DELETE CASCADE, epoch bigint NOT NULL,
	team_id uuid NOT NULL REFERENCES teams,
	memory_artifact bytea REFERENCES artifacts, disk_artifact bytea NOT NULL REFERENCES artifacts,
	cpu_class text NOT NULL DEFAULT '', bytes bigint NOT NULL DEFAULT 0, sealed_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (capsule_id, epoch));
CREATE INDEX ON capsule_images (memory_artifact) WHERE memory_artifact IS NOT NULL;
CREATE INDEX ON capsule_images (disk_artifact);
ALTER TABLE capsule_images ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON capsule_images TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON capsule_images TO hutch_work USING (true) WITH CHECK (true);

ALTER TABLE capsules
	ADD parent_id uuid REFERENCES capsules ON DELETE SET NULL,
	ADD snapshot_id uuid REFERENCES snapshots ON DELETE SET NULL,
	ADD residency text CHECK (residency IN ('ram','disk')),
	ADD paused_by text CHECK (paused_by IN ('user','idle','lifetime','snapshot','host','drain','schedule')),
	-- what the start under way begins with: the instance that the host holds, the newest image, the disk that the host
	-- kept, its parent (by the parent's fork); NULL: its template
	ADD wake_from text CHECK (wake_from IN ('held','image','disk','parent')),
	ADD wake_cold bool NOT NULL DEFAULT false, -- … without its memory
	ADD host_tags text[] NOT NULL DEFAULT '{}',
	ADD failures int NOT NULL DEFAULT 0, -- wakes that failed, one after the other
	ADD restarts int NOT NULL DEFAULT 0, ADD restarts_since timestamptz, -- by restart_policy, in this hour
	ADD reboots int NOT NULL DEFAULT 0, ADD reboots_since timestamptz, -- of the guest, in these 10 minutes
	ADD lost_note text, -- what a recovery cost
	ADD pending_spec jsonb, -- sizes that the next cold boot takes
	ADD timeout_sec int NOT NULL DEFAULT 0 CHECK (timeout_sec BETWEEN 0 AND 2592000),
	ADD timeout_mode text NOT NULL DEFAULT 'idle' CHECK (timeout_mode IN ('idle','fixed')),
	ADD deadline_at timestamptz,
	ADD idle_action text NOT NULL DEFAULT 'pause' CHECK (idle_action IN ('pause','hibernate','destroy')),
	ADD idle_signals text[] NOT NULL DEFAULT '{api,exec,input,port}'
		CHECK (idle_signals <@ '{api,exec,input,port,process,cpu}'),
	ADD auto_resume text NOT NULL DEFAULT 'all' CHECK (auto_resume IN ('all','ports','off')),
	ADD max_lifetime_sec int NOT NULL DEFAULT 0 CHECK (max_lifetime_sec >= 0),
	ADD on_max_lifetime text NOT NULL DEFAULT 'hibernate' CHECK (on_max_lifetime IN ('hibernate','destroy')),
	ADD restart_policy text NOT NULL DEFAULT 'never' CHECK (restart_policy IN ('never','on_failure')),
	ADD network jsonb NOT NULL DEFAULT '{"internet":true}',
	ADD idle_since timestamptz, -- since when nobody used it, as the host says; NULL: in use, or not running
	ADD warned int NOT NULL DEFAULT 0, -- bits of the warnings sent: idle 1 and 2, expiring 4 and 8
	ADD CHECK (op IN ('snapshot','rollback','fork','resize','transfer'));
UPDATE capsules SET residency = 'ram' WHERE observed_state = 'paused';
CREATE INDEX ON capsules (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX ON capsules (snapshot_id) WHERE snapshot_id IS NOT NULL;
CREATE INDEX ON capsules USING gin (metadata jsonb_path_ops);
CREATE INDEX ON capsules (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX capsules_timed ON capsules (id) WHERE observed_state = 'running' AND (timeout_sec > 0 OR max_lifetime_sec > 0);
CREATE INDEX capsules_ops ON capsules (id) WHERE op IS NOT NULL;

-- What a capsule's change does besides: op ends with the capsule, warnings and idleness with a stretch of running.
CREATE OR REPLACE FUNCTION capsule_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.change_no := OLD.change_no + 1;
	NEW.updated_at := now();
	IF NEW.observed_state <> OLD.observed_state THEN
		NEW.state_since := now();
		IF NEW.observed_state = 'running' THEN
			NEW.paused_by := NULL;
			NEW.residency := NULL;
			NEW.warned := 0;
			NEW.idle_since := NULL;
		END IF;
		IF NEW.observed_state IN ('stopping','stopped') THEN NEW.op := NULL; END IF;
	END IF;
	RETURN NEW;
END $$;

-- A capsule that is paused on disk holds no memory of its host.
CREATE OR REPLACE FUNCTION host_used(h uuid) RETURNS TABLE (memory_mb bigint, vcpus bigint, starting bigint)
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
	SELECT coalesce(sum(c.memory_mb + 64 + CASE WHEN c.accel = 'kvm' THEN 0 ELSE 64 END), 0)::bigint,
		coalesce(sum(c.vcpus), 0)::bigint, count(*) FILTER (WHERE c.observed_state IN ('starting','resuming'))
	FROM capsules c WHERE c.host_id = h
		AND c.observed_state IN ('starting','running','pausing','resuming','hibernating','paused','missing','stopping')
		AND NOT (coalesce(c.missing_from, c.observed_state) = 'paused' AND c.residency IS NOT DISTINCT FROM 'disk') $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON artifacts, artifact_copies, capsule_images, snapshots TO hutch_app, hutch_work;
