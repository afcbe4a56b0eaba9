-- 0010_metrics.sql - what capsules used, and what teams held (spec 02 §8).

-- One row per capsule, tier and chunk of time; a second of it that nobody measured is NULL in the arrays. The host sends
-- chunks as they fill, and again: series_join() keeps what either knows.
CREATE TABLE capsule_metrics (
	team_id uuid NOT NULL REFERENCES teams, capsule_id uuid NOT NULL REFERENCES capsules ON DELETE CASCADE,
	tier text NOT NULL CHECK (tier IN ('10m','2h','24h')),
	from_at timestamptz NOT NULL, step_ms int NOT NULL CHECK (step_ms > 0),
	cpu real[] NOT NULL, mem bigint[] NOT NULL, mem_guest bigint[] NOT NULL, disk bigint[] NOT NULL,
	rx bigint[] NOT NULL, tx bigint[] NOT NULL, rd bigint[] NOT NULL, wr bigint[] NOT NULL,
	CHECK (cardinality(cpu) <= 600),
	PRIMARY KEY (capsule_id, tier, from_at)) PARTITION BY RANGE (from_at);
CREATE TABLE capsule_metrics_rest PARTITION OF capsule_metrics DEFAULT;
CREATE INDEX ON capsule_metrics (team_id);
CREATE INDEX ON capsule_metrics (from_at);
ALTER TABLE capsule_metrics ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON capsule_metrics FOR SELECT TO hutch_app USING (team_id = current_team());
CREATE POLICY platform ON capsule_metrics TO hutch_work USING (true) WITH CHECK (true);

-- One row per 10 s slot and team that holds something; the first slot in which it holds nothing is zeros.
CREATE TABLE team_metric_snapshots (
	team_id uuid NOT NULL REFERENCES teams ON DELETE CASCADE, sampled_at timestamptz NOT NULL,
	running_count int NOT NULL, vcpus_reserved int NOT NULL, memory_mb_reserved bigint NOT NULL,
	PRIMARY KEY (team_id, sampled_at));
CREATE INDEX ON team_metric_snapshots (sampled_at);
ALTER TABLE team_metric_snapshots ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON team_metric_snapshots FOR SELECT TO hutch_app USING (team_id = current_team());
CREATE POLICY platform ON team_metric_snapshots TO hutch_work USING (true) WITH CHECK (true);

-- Element by element the newer one, where there is one.
CREATE FUNCTION series_join(older anyarray, newer anyarray) RETURNS anyarray LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT array_agg(coalesce(n, o) ORDER BY i) FROM unnest(newer, older) WITH ORDINALITY AS t(n, o, i) $$;

-- Partitions of this month and the next; those that ended keep_days ago go. Returns how many were made and dropped.
CREATE FUNCTION metrics_partitions(keep_days int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
	month timestamptz;
	part text;
	n int := 0;
BEGIN
	FOR i IN 0..1 LOOP
		month := date_trunc('month', now()) + make_interval(months => i);
		part := 'capsule_metrics_' || to_char(month, 'YYYY_MM');
		IF to_regclass(part) IS NULL THEN
			-- what came for a month without a partition moves into it
			EXECUTE format('CREATE TABLE %I (LIKE capsule_metrics INCLUDING ALL)', part);
			EXECUTE format('WITH moved AS (DELETE FROM capsule_metrics_rest WHERE from_at >= %L AND from_at < %L RETURNING *)
				INSERT INTO %I SELECT * FROM moved', month, month + interval '1 month', part);
			EXECUTE format('ALTER TABLE capsule_metrics ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, month,
				month + interval '1 month');
			n := n + 1;
		END IF;
	END LOOP;
	FOR part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'capsule_metrics'::regclass AND c.relname ~ '^capsule_metrics_\d{4}_\d{2}$'
		AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' < now() - make_interval(days => keep_days) LOOP
		EXECUTE format('DROP TABLE %I', part);
		n := n + 1;
	END LOOP;
	RETURN n;
END $$;
SELECT metrics_partitions(30);

REVOKE ALL ON FUNCTION metrics_partitions(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION metrics_partitions(int) TO hutch_work;
GRANT SELECT ON capsule_metrics, team_metric_snapshots TO hutch_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON capsule_metrics, team_metric_snapshots TO hutch_work;
