-- 0008_teams.sql - members, invitations, keys, audit: what spec 01 §2.5-2.9 and §5 have beyond 0001.

-- Custom roles: the tables only, no route makes one yet. A membership or invitation with role 'custom' names its row.
CREATE TABLE team_roles (
	id uuid PRIMARY KEY, team_id uuid NOT NULL REFERENCES teams ON DELETE CASCADE,
	name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,31}$'
		AND name NOT IN ('owner','admin','member','viewer','auditor','custom')),
	description text NOT NULL DEFAULT '', created_by uuid REFERENCES users ON DELETE SET NULL,
	created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (team_id, name), UNIQUE (team_id, id));
CREATE TABLE role_permissions (
	role_id uuid REFERENCES team_roles ON DELETE CASCADE, permission text REFERENCES permissions, PRIMARY KEY (role_id, permission));
ALTER TABLE team_roles ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON team_roles TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON team_roles TO hutch_work USING (true) WITH CHECK (true);
ALTER TABLE users_teams DROP CONSTRAINT users_teams_role_check, ADD COLUMN role_id uuid,
	ADD CONSTRAINT users_teams_role_check CHECK (role IN ('owner','admin','member','viewer','auditor','custom')),
	ADD CHECK ((role = 'custom') = (role_id IS NOT NULL)),
	ADD FOREIGN KEY (team_id, role_id) REFERENCES team_roles (team_id, id) ON DELETE RESTRICT;
CREATE INDEX ON teams (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE team_invitations (
	id uuid PRIMARY KEY, team_id uuid NOT NULL REFERENCES teams ON DELETE CASCADE,
	email text, token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
	role text NOT NULL CHECK (role IN ('admin','member','viewer','auditor','custom')), role_id uuid,
	max_uses int NOT NULL DEFAULT 1 CHECK (max_uses BETWEEN 1 AND 1000),
	use_count int NOT NULL DEFAULT 0 CHECK (use_count <= max_uses),
	invited_by uuid REFERENCES users ON DELETE SET NULL,
	created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL,
	revoked_at timestamptz, declined_at timestamptz, accepted_at timestamptz,
	CHECK (email IS NULL OR max_uses = 1),
	CHECK ((role = 'custom') = (role_id IS NOT NULL)),
	FOREIGN KEY (team_id, role_id) REFERENCES team_roles (team_id, id) ON DELETE CASCADE);
CREATE INDEX ON team_invitations (team_id, created_at DESC, id DESC);
CREATE INDEX ON team_invitations (email) WHERE revoked_at IS NULL;
CREATE INDEX ON team_invitations (invited_by);
ALTER TABLE team_invitations ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON team_invitations TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON team_invitations TO hutch_work USING (true) WITH CHECK (true);

ALTER TABLE api_keys
	ADD COLUMN rate_limit int CHECK (rate_limit BETWEEN 1 AND 10000000),
	ADD COLUMN allowed_ips cidr[] NOT NULL DEFAULT '{}' CHECK (cardinality(allowed_ips) <= 32),
	ADD COLUMN rotated_to uuid REFERENCES api_keys ON DELETE SET NULL,
	ADD COLUMN last_used_ip inet;
CREATE INDEX ON api_keys (rotated_to) WHERE rotated_to IS NOT NULL;
CREATE INDEX ON api_keys (session_id) WHERE session_id IS NOT NULL;

-- Requests by key, hour, route and status: counted in the processes, added here every 30 s.
CREATE TABLE api_key_usage (
	key_id uuid REFERENCES api_keys ON DELETE CASCADE, team_id uuid NOT NULL, hour timestamptz, route text, status smallint,
	requests bigint NOT NULL, PRIMARY KEY (key_id, hour, route, status)) PARTITION BY RANGE (hour);
CREATE INDEX ON api_key_usage (hour);
CREATE TABLE api_key_usage_rest PARTITION OF api_key_usage DEFAULT;
ALTER TABLE api_key_usage ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON api_key_usage FOR SELECT TO hutch_app USING (team_id = current_team());
CREATE POLICY platform ON api_key_usage TO hutch_work USING (true) WITH CHECK (true);

-- When the last row api_key/use_denied of a key and reason was written, and how many were not since.
CREATE TABLE api_key_denials (
	key_id uuid REFERENCES api_keys ON DELETE CASCADE, reason text, at timestamptz NOT NULL, suppressed int NOT NULL DEFAULT 0,
	PRIMARY KEY (key_id, reason));

-- How many denials went unwritten since the last row; -1: there was a row within ten minutes, this one is counted only.
CREATE FUNCTION key_denied(k uuid, why text) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE
	d api_key_denials;
BEGIN
	IF NOT EXISTS (SELECT FROM api_keys WHERE id = k) THEN RETURN -1; END IF;
	INSERT INTO api_key_denials (key_id, reason, at) VALUES (k, why, now()) ON CONFLICT DO NOTHING;
	IF FOUND THEN RETURN 0; END IF;
	SELECT * INTO d FROM api_key_denials WHERE key_id = k AND reason = why FOR UPDATE;
	IF d.at > now() - interval '10 minutes' THEN
		UPDATE api_key_denials SET suppressed = suppressed + 1 WHERE key_id = k AND reason = why;
		RETURN -1;
	END IF;
	UPDATE api_key_denials SET suppressed = 0, at = now() WHERE key_id = k AND reason = why;
	RETURN coalesce(d.suppressed, 0);
END $$;

-- Partitions of audit_logs and api_key_usage for this month and the next three, where the default partition has no row
-- of that month yet; usage goes after keep_days. Returns how many were made and dropped. A timer calls it each day.
CREATE FUNCTION month_partitions(keep_days int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE
	first timestamptz;
	last timestamptz;
	part text;
	parent text;
	col text;
	taken bool;
	n int := 0;
BEGIN
	FOREACH parent IN ARRAY ARRAY['audit_logs','api_key_usage'] LOOP
		col := CASE parent WHEN 'audit_logs' THEN 'created_at' ELSE 'hour' END;
		FOR i IN 0..3 LOOP
			first := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
			last := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i + 1)) AT TIME ZONE 'UTC';
			part := parent || '_' || to_char(first AT TIME ZONE 'UTC', 'YYYY_MM');
			EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %I >= %L AND %I < %L)', parent || '_rest', col, first, col, last)
				INTO taken;
			IF to_regclass(part) IS NULL AND NOT taken THEN
				EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', part, parent, first, last);
				n := n + 1;
			END IF;
		END LOOP;
	END LOOP;
	FOR part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'api_key_usage'::regclass AND c.relname ~ '^api_key_usage_\d{4}_\d{2}$'
		AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' < now() - make_interval(days => keep_days) LOOP
		EXECUTE format('DROP TABLE %I', part);
		n := n + 1;
	END LOOP;
	DELETE FROM api_key_usage_rest WHERE hour < now() - make_interval(days => keep_days);
	RETURN n;
END $$;
SELECT month_partitions(90);

-- Audit: what the reader's role may see stands under every query as a second wall. The authentication functions set
-- hutch.role beside hutch.team.
CREATE FUNCTION sees_admin_rows() RETURNS bool LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS
$$ SELECT EXISTS (SELECT FROM permissions WHERE name = 'audit.view'
	AND current_setting('hutch.role', true) = ANY (roles)) $$;
DROP POLICY tenant ON audit_logs;
CREATE POLICY tenant ON audit_logs FOR SELECT TO hutch_app
	USING (team_id = current_team() AND (scope = 'team' OR (SELECT sees_admin_rows())));
CREATE INDEX ON audit_logs (team_id, resource_type, action, created_at DESC);

-- Signed marks: who can change the database cannot make one. Also appended to a file that is copied off the machine.
CREATE TABLE audit_checkpoints (
	team_id uuid, seq bigint, hash bytea NOT NULL, at timestamptz NOT NULL, key_id text NOT NULL, signature bytea NOT NULL,
	PRIMARY KEY (team_id, seq));
ALTER TABLE audit_checkpoints ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_checkpoints FOR SELECT TO hutch_app USING (team_id = current_team());
CREATE POLICY platform ON audit_checkpoints TO hutch_work USING (true) WITH CHECK (true);
ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_heads FOR SELECT TO hutch_app USING (team_id = current_team());
CREATE POLICY platform ON audit_heads FOR SELECT TO hutch_work USING (true);

-- The first row of seq v_from to v_to (NULL: to the end, then the head must agree, too) of a team's chain that does not
-- verify; or none. A checkpoint within the range must find its row with its hash. Reads as its caller, so that row-level
-- security holds; `prev` of a later start is believed.
CREATE FUNCTION audit_verify(v_team uuid, v_from bigint, v_to bigint)
	RETURNS TABLE (checked bigint, first_bad bigint, reason text) LANGUAGE plpgsql STABLE AS $$
DECLARE
	r audit_logs;
	want bigint := v_from;
	prev bytea := decode(repeat('00', 32), 'hex');
	mark record;
	head audit_heads;
BEGIN
	checked := 0;
	IF v_from > 1 THEN
		SELECT a.hash INTO prev FROM audit_logs a WHERE a.team_id = v_team AND a.seq = v_from - 1;
		IF NOT FOUND THEN first_bad := v_from - 1; reason := 'seq is not dense'; RETURN NEXT; RETURN; END IF;
	END IF;
	FOR r IN SELECT * FROM audit_logs a WHERE a.team_id = v_team AND a.seq >= v_from AND (v_to IS NULL OR a.seq <= v_to)
		ORDER BY a.seq, a.created_at LOOP
		first_bad := r.seq;
		IF r.seq <> want THEN first_bad := want; reason := 'seq is not dense'; RETURN NEXT; RETURN; END IF;
		IF r.prev_hash <> prev THEN reason := 'prev_hash differs'; RETURN NEXT; RETURN; END IF;
		IF (r.salt IS NULL) <> (r.anonymised_at IS NOT NULL) THEN
			reason := 'salt and anonymised_at disagree'; RETURN NEXT; RETURN;
		END IF;
		IF r.salt IS NOT NULL AND r.pii_digest <> audit_pii(r.salt, r.actor_id, r.actor_name, r.actor_user,
			r.subject_user, r.resource_id, r.metadata, r.ip, r.user_agent) THEN
			reason := 'fields differ from their digest'; RETURN NEXT; RETURN;
		END IF;
		IF r.hash <> audit_hash(prev, r.team_id, r.seq, r.created_at, r.id, r.actor_type, r.resource_type,
			r.action, r.event, r.scope, r.status, r.request_id, r.pii_digest) THEN
			reason := 'hash differs'; RETURN NEXT; RETURN;
		END IF;
		prev := r.hash; want := want + 1; checked := checked + 1;
	END LOOP;
	FOR mark IN SELECT c.seq FROM audit_checkpoints c LEFT JOIN audit_logs a ON a.team_id = c.team_id AND a.seq = c.seq
		WHERE c.team_id = v_team AND c.seq >= v_from AND (v_to IS NULL OR c.seq <= v_to)
		AND a.hash IS DISTINCT FROM c.hash ORDER BY c.seq LIMIT 1 LOOP
		first_bad := mark.seq; reason := 'the row differs from its checkpoint'; RETURN NEXT; RETURN;
	END LOOP;
	first_bad := NULL;
	IF v_to IS NULL THEN
		SELECT * INTO head FROM audit_heads h WHERE h.team_id = v_team;
		IF NOT FOUND OR head.seq <> want - 1 OR head.hash <> prev THEN
			first_bad := want; reason := 'the tail was cut';
		END IF;
	END IF;
	RETURN NEXT;
END $$;

-- Who is asking, by API key: beside what auth_key() of 0001 says, which address it may come from and how often.
CREATE TYPE principal_key AS (
	key_id uuid, user_id uuid, session_id uuid, team_id uuid, role text, platform_role text, user_status text,
	email text, name text, scopes text[], team_live bool, key_state text, rate_limit int);

CREATE FUNCTION auth_key(hash bytea, ip text) RETURNS SETOF principal_key LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE nobody text;
BEGIN
	RETURN QUERY SELECT
		CASE WHEN set_config('hutch.team', CASE WHEN q.state = 'live' THEN q.team_id::text ELSE '' END, false) IS NOT NULL
			AND set_config('hutch.role', CASE WHEN q.state = 'live' AND 'audit.view' = ANY (q.scopes) THEN q.role ELSE '' END, false)
			IS NOT NULL THEN q.id END,
		q.created_by, q.session_id, q.team_id, q.role, q.platform_role, q.status, q.email, q.name, q.scopes,
		q.team_live, q.state, q.rate_limit
	FROM (SELECT k.id, k.created_by, k.session_id, k.team_id, k.rate_limit,
			CASE WHEN k.kind = 'team' THEN 'admin' ELSE m.role END AS role,
			coalesce(u.platform_role, 'user') AS platform_role, u.status, u.email, k.name, k.scopes,
			t.deleted_at IS NULL AS team_live,
			CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired'
				WHEN t.deleted_at IS NOT NULL THEN 'team' WHEN k.kind <> 'team' AND m.role IS NULL THEN 'creator'
				WHEN u.status IS DISTINCT FROM 'active' THEN 'creator'
				WHEN cardinality(k.allowed_ips) > 0 AND (auth_key.ip IS NULL
					OR NOT auth_key.ip::inet <<= ANY (k.allowed_ips)) THEN 'address' ELSE 'live' END AS state
		FROM api_keys k JOIN teams t ON t.id = k.team_id
			LEFT JOIN users u ON u.id = k.created_by
			LEFT JOIN users_teams m ON m.team_id = k.team_id AND m.user_id = k.created_by
		WHERE k.key_hash = auth_key.hash) q;
	IF NOT FOUND THEN nobody := set_config('hutch.team', '', false) || set_config('hutch.role', '', false); END IF;
END $$;

-- As in 0007, and the role for row-level security.
CREATE OR REPLACE FUNCTION auth_session(sid uuid, uid uuid, tid uuid) RETURNS SETOF principal_session LANGUAGE plpgsql
	SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE nobody text;
BEGIN
	RETURN QUERY SELECT
		CASE WHEN set_config('hutch.team', CASE WHEN q.good THEN q.team_id::text ELSE '' END, false) IS NOT NULL
			AND set_config('hutch.role', CASE WHEN q.good THEN q.role ELSE '' END, false) IS NOT NULL THEN 'user' END,
		q.user_id, q.session_id, q.team_id, q.role, q.platform_role, q.status, q.email, q.name,
		q.team_live, q.state, q.must_change_password, q.has_factor, q.team_mfa
	FROM (SELECT p.*, p.state = 'live' AND p.status = 'active' AND p.team_live AND p.role IS NOT NULL AS good
		FROM (SELECT u.id AS user_id, s.id AS session_id, t.id AS team_id, m.role, u.platform_role, u.status, u.email, u.name,
				t.id IS NOT NULL AND t.deleted_at IS NULL AS team_live,
				CASE WHEN s.revoked_at IS NOT NULL THEN 'revoked' WHEN s.expires_at <= now() THEN 'expired' ELSE 'live' END AS state,
				u.must_change_password,
				EXISTS (SELECT FROM mfa_factors f WHERE f.user_id = u.id AND f.verified_at IS NOT NULL) AS has_factor,
				coalesce(t.require_mfa, false) AS team_mfa
			FROM login_sessions s JOIN users u ON u.id = s.user_id
				LEFT JOIN teams t ON t.id = tid
				LEFT JOIN users_teams m ON m.team_id = tid AND m.user_id = u.id
			WHERE s.id = sid AND s.user_id = uid) p) q;
	IF NOT FOUND THEN nobody := set_config('hutch.team', '', false) || set_config('hutch.role', '', false); END IF;
END $$;

REVOKE ALL ON FUNCTION key_denied(uuid, text), month_partitions(int), sees_admin_rows(), audit_verify(uuid, bigint, bigint),
	auth_key(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION key_denied(uuid, text), sees_admin_rows(), audit_verify(uuid, bigint, bigint),
	auth_key(bytea, text) TO hutch_app, hutch_work;
GRANT EXECUTE ON FUNCTION month_partitions(int) TO hutch_work;
GRANT SELECT, INSERT, UPDATE, DELETE ON team_roles, team_invitations TO hutch_app, hutch_work;
GRANT SELECT ON api_key_usage, audit_heads, audit_checkpoints TO hutch_app, hutch_work;
GRANT INSERT, UPDATE, DELETE ON api_key_usage TO hutch_work;
GRANT INSERT ON audit_checkpoints TO hutch_work;
