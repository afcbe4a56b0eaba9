-- 0003_events_jobs.sql - outbox, relay, jobs, timers, mails (spec 04 §8, as far as it is built).
--
-- How hutch_app (which row-level security binds) writes here:
--   events are only ever appended, often before a tenant is known (sign-up, activation) or for the Platform
--   team: a permissive INSERT policy lets it write any team's fact, the SELECT policy lets it read its own only.
--   A job or a mail needs more than an insert: it looks for rows that no tenant may see (the same unique key,
--   the lock, the address's share of this hour). That is done by SECURITY DEFINER functions, which give back an id.

CREATE SEQUENCE events_pos_seq;
CREATE TABLE events (
	pos bigint NOT NULL DEFAULT nextval('events_pos_seq'), -- identity columns of partitions came with PostgreSQL 17
	id uuid NOT NULL, at timestamptz NOT NULL DEFAULT now(),
	team_id uuid NOT NULL, user_id uuid, capsule_id uuid,
	seq bigint, gpos bigint,
	type text NOT NULL, category text NOT NULL, v smallint NOT NULL DEFAULT 1,
	actor_type text NOT NULL CHECK (actor_type IN ('user','api_key','host','guest','system')),
	actor_id text, actor_name text, resource_type text, resource_id text,
	data jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(data::text) <= 16384),
	request_id text,
	PRIMARY KEY (id, at),
	CHECK ((seq IS NULL) = (gpos IS NULL))) PARTITION BY RANGE (at);
ALTER SEQUENCE events_pos_seq OWNED BY events.pos;
CREATE INDEX events_new ON events (pos) WHERE seq IS NULL;
CREATE INDEX ON events (team_id, seq);
CREATE INDEX ON events (capsule_id, at) WHERE capsule_id IS NOT NULL;
CREATE INDEX ON events (user_id, at) WHERE user_id IS NOT NULL;
CREATE INDEX ON events (gpos);
CREATE TABLE events_rest PARTITION OF events DEFAULT;
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON events FOR SELECT TO hutch_app USING (team_id = current_team());
CREATE POLICY append ON events FOR INSERT TO hutch_app WITH CHECK (true);
CREATE POLICY platform ON events TO hutch_work USING (true) WITH CHECK (true);

-- Partitions of this month and the next three; those that ended keep_days ago go, but never with an event that
-- the relay has not taken. Returns how many were made and dropped. A timer calls it each day.
CREATE FUNCTION events_partitions(keep_days int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE
	month timestamptz;
	part text;
	waiting bool;
	n int := 0;
BEGIN
	FOR i IN 0..3 LOOP
		month := date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
		month := (month AT TIME ZONE 'UTC' + make_interval(months => i)) AT TIME ZONE 'UTC';
		part := 'events_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
		IF to_regclass(part) IS NULL THEN
			EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)', part, month,
				(month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
			n := n + 1;
		END IF;
	END LOOP;
	FOR part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_\d{4}_\d{2}$'
		AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' < now() - make_interval(days => keep_days) LOOP
		EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE seq IS NULL)', part) INTO waiting;
		IF NOT waiting THEN
			EXECUTE format('DROP TABLE %I', part);
			n := n + 1;
		END IF;
	END LOOP;
	RETURN n;
END $$;
SELECT events_partitions(90);

-- The last number given, per team and over all. The lock on event_relay's row makes one relay the active one.
CREATE TABLE event_heads (team_id uuid PRIMARY KEY, seq bigint NOT NULL);
CREATE TABLE event_relay (one bool PRIMARY KEY DEFAULT true CHECK (one), gpos bigint NOT NULL DEFAULT 0);
INSERT INTO event_relay DEFAULT VALUES;

CREATE TABLE queues (name text PRIMARY KEY, paused bool NOT NULL DEFAULT false);

CREATE TABLE jobs (
	id uuid PRIMARY KEY,
	kind text NOT NULL, queue text NOT NULL, priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 100),
	team_id uuid NOT NULL,
	actor_type text NOT NULL, actor_id text, actor_name text, request_id text, traceparent text,
	args jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(args::text) <= 65536),
	unique_key text, lock_key text,
	state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued','running','succeeded','partial','cancelled','failed')),
	attempts int NOT NULL DEFAULT 0, crashes int NOT NULL DEFAULT 0, waits int NOT NULL DEFAULT 0,
	run_at timestamptz NOT NULL DEFAULT now(), deadline_at timestamptz,
	lease_until timestamptz, worker text, epoch bigint NOT NULL DEFAULT 0, announced_at timestamptz,
	phase text, checkpoint jsonb, total int NOT NULL DEFAULT 0, done int NOT NULL DEFAULT 0, failed int NOT NULL DEFAULT 0,
	cancel_requested_at timestamptz, result jsonb, error_code text, error_text text,
	visible bool NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz, finished_at timestamptz,
	CHECK ((state = 'running') = (lease_until IS NOT NULL)),
	CHECK ((state IN ('queued','running')) = (finished_at IS NULL)));
CREATE UNIQUE INDEX jobs_unique ON jobs (kind, unique_key) WHERE state IN ('queued','running') AND unique_key IS NOT NULL;
CREATE UNIQUE INDEX jobs_lock ON jobs (lock_key) WHERE state = 'running' AND lock_key IS NOT NULL;
CREATE INDEX ON jobs (queue, priority, run_at) WHERE state = 'queued';
CREATE INDEX ON jobs (lock_key) WHERE state = 'queued' AND lock_key IS NOT NULL;
CREATE INDEX ON jobs (queue, team_id) WHERE state = 'running';
CREATE INDEX ON jobs (lease_until) WHERE state = 'running';
CREATE INDEX ON jobs (deadline_at) WHERE state = 'queued' AND deadline_at IS NOT NULL;
CREATE INDEX ON jobs (team_id, created_at DESC, id DESC);
CREATE INDEX ON jobs (finished_at) WHERE finished_at IS NOT NULL;
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON jobs TO hutch_work USING (true) WITH CHECK (true);

CREATE TABLE job_items (
	job_id uuid REFERENCES jobs ON DELETE CASCADE, n int, target text NOT NULL,
	state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued','running','succeeded','failed','skipped','cancelled')),
	attempts int NOT NULL DEFAULT 0, error_code text, error_text text, result jsonb,
	PRIMARY KEY (job_id, n));
CREATE TABLE timer_slots (name text, slot timestamptz, job_id uuid, PRIMARY KEY (name, slot));
CREATE INDEX ON timer_slots (slot);

-- A new job, or the one of the same kind and unique key that is queued or running. A claimed job starts as running
-- at epoch 1; when its lock is taken, it waits as queued.
CREATE FUNCTION job_insert(j_id uuid, j_kind text, j_queue text, j_priority int, j_team uuid, j_actor_type text,
	j_actor_id text, j_actor_name text, j_request text, j_trace text, j_args jsonb, j_unique text, j_lock text,
	j_run_at timestamptz, j_deadline timestamptz, j_visible bool, j_worker text, j_lease_sec int)
	RETURNS TABLE (id uuid, inserted bool, claimed bool) LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
	first uuid;
	mine bool := j_worker IS NOT NULL;
BEGIN
	LOOP
		INSERT INTO jobs (id, kind, queue, priority, team_id, actor_type, actor_id, actor_name, request_id,
			traceparent, args, unique_key, lock_key, run_at, deadline_at, visible, announced_at,
			state, worker, lease_until, epoch, attempts, started_at)
		VALUES (j_id, j_kind, j_queue, j_priority, j_team, j_actor_type, j_actor_id, j_actor_name, j_request,
			j_trace, j_args, j_unique, j_lock, coalesce(j_run_at, now()), j_deadline, j_visible,
			CASE WHEN j_run_at IS NULL OR j_run_at <= now() THEN now() END,
			CASE WHEN mine THEN 'running' ELSE 'queued' END, CASE WHEN mine THEN j_worker END,
			CASE WHEN mine THEN now() + make_interval(secs => j_lease_sec) END,
			CASE WHEN mine THEN 1 ELSE 0 END, CASE WHEN mine THEN 1 ELSE 0 END, CASE WHEN mine THEN now() END)
		ON CONFLICT DO NOTHING;
		IF FOUND THEN
			RETURN QUERY SELECT j_id, true, mine;
			RETURN;
		END IF;
		SELECT j.id INTO first FROM jobs j
			WHERE j.kind = j_kind AND j.unique_key = j_unique AND j.state IN ('queued','running');
		IF FOUND THEN
			RETURN QUERY SELECT first, false, false;
			RETURN;
		END IF;
		mine := false; -- the lock was taken; or the other one has just ended, then the next round succeeds
	END LOOP;
END $$;

-- Mails. vars holds no secrets: a mailed token is derived again from token_id (spec 04 §3).
CREATE TABLE emails (
	id uuid PRIMARY KEY,
	template text NOT NULL, locale text NOT NULL DEFAULT 'en', vars jsonb NOT NULL DEFAULT '{}',
	class text NOT NULL CHECK (class IN ('anybody','notice','other')),
	user_id uuid REFERENCES users ON DELETE SET NULL,
	to_hash bytea NOT NULL, to_addr text, to_name text,
	token_id uuid, token_purpose text,
	state text NOT NULL CHECK (state IN ('queued','sent','bounced','suppressed','expired')),
	reason text, smtp_code int,
	created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, sent_at timestamptz,
	CHECK ((token_id IS NULL) = (token_purpose IS NULL)));
CREATE INDEX ON emails (to_hash, created_at);
CREATE INDEX ON emails (created_at) WHERE to_addr IS NOT NULL;
CREATE TABLE mail_suppressions (
	to_hash bytea PRIMARY KEY, reason text NOT NULL, until timestamptz NOT NULL, times int NOT NULL DEFAULT 1,
	created_at timestamptz NOT NULL DEFAULT now());

-- Records a mail; true when it is to be sent. What strangers can cause is limited to 5 an hour and address, all
-- to 30; security notices are only stopped by an address that bounces.
CREATE FUNCTION email_insert(m_id uuid, m_template text, m_vars jsonb, m_class text, m_user uuid, m_hash bytea,
	m_addr text, m_name text, m_token uuid, m_purpose text, m_expires timestamptz)
	RETURNS bool LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
	why text;
BEGIN
	PERFORM pg_advisory_xact_lock(hashtextextended('mail' || encode(m_hash, 'hex'), 0));
	IF EXISTS (SELECT FROM mail_suppressions WHERE to_hash = m_hash AND until > now()) THEN
		why := 'suppressed';
	ELSIF m_class <> 'notice' THEN
		SELECT CASE WHEN count(*) >= 30 OR (m_class = 'anybody' AND count(*) FILTER (WHERE class = 'anybody') >= 5)
			THEN 'throttled' END
		INTO why FROM emails
		WHERE to_hash = m_hash AND created_at > now() - interval '1 hour' AND state <> 'suppressed';
	END IF;
	INSERT INTO emails (id, template, vars, class, user_id, to_hash, to_addr, to_name, token_id, token_purpose,
		state, reason, expires_at)
	VALUES (m_id, m_template, m_vars, m_class, m_user, m_hash, m_addr, m_name, m_token, m_purpose,
		CASE WHEN why IS NULL THEN 'queued' ELSE 'suppressed' END, why, coalesce(m_expires, now() + interval '24 hours'));
	RETURN why IS NULL;
END $$;

REVOKE ALL ON FUNCTION events_partitions(int), email_insert(uuid, text, jsonb, text, uuid, bytea, text, text, uuid, text, timestamptz),
	job_insert(uuid, text, text, int, uuid, text, text, text, text, text, jsonb, text, text, timestamptz, timestamptz, bool, text, int)
	FROM PUBLIC;
GRANT EXECUTE ON FUNCTION events_partitions(int) TO hutch_work;
GRANT EXECUTE ON FUNCTION email_insert(uuid, text, jsonb, text, uuid, bytea, text, text, uuid, text, timestamptz),
	job_insert(uuid, text, text, int, uuid, text, text, text, text, text, jsonb, text, text, timestamptz, timestamptz, bool, text, int)
	TO hutch_app, hutch_work;
GRANT USAGE ON SEQUENCE events_pos_seq TO hutch_app, hutch_work;
GRANT SELECT, INSERT ON events TO hutch_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON events TO hutch_work;
GRANT SELECT, UPDATE ON jobs TO hutch_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs, job_items, timer_slots, event_heads, event_relay, emails, mail_suppressions TO hutch_work;
GRANT SELECT ON queues TO hutch_app;
GRANT SELECT, INSERT, UPDATE ON queues TO hutch_work;
