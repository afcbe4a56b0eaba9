-- 0016_snapshot_policies.sql - snapshots of a capsule that are taken by the clock (spec 02 §2.4).
CREATE TABLE snapshot_policies (
	capsule_id uuid PRIMARY KEY REFERENCES capsules ON DELETE CASCADE,
	team_id uuid NOT NULL REFERENCES teams,
	cron text NOT NULL CHECK (length(cron) BETWEEN 9 AND 200), -- UTC
	keep_last int NOT NULL DEFAULT 10 CHECK (keep_last BETWEEN 1 AND 1000),
	keep_days int NOT NULL DEFAULT 30 CHECK (keep_days BETWEEN 1 AND 3650),
	memory bool NOT NULL DEFAULT true,
	next_at timestamptz NOT NULL,
	last_error text,
	updated_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON snapshot_policies (next_at);
CREATE INDEX ON snapshot_policies (team_id);
ALTER TABLE snapshot_policies ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON snapshot_policies TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON snapshot_policies TO hutch_work USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON snapshot_policies TO hutch_app, hutch_work;
CREATE INDEX ON snapshots (capsule_id, created_at DESC, id DESC) WHERE kind = 'scheduled';
