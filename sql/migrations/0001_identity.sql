-- 0001_identity.sql - people, teams, sessions, keys, audit (spec 01 §5).
--
-- Roles: the owner of this schema runs migrations and owns the functions below; hutch_app is what API
-- and gateway log in as (row-level security binds it); hutch_work is what workers and the routes that
-- act across teams log in as. Both are made by hutchctl migrate before this file.

CREATE FUNCTION current_team() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT nullif(current_setting('hutch.team', true), '')::uuid $$;

CREATE TABLE platform_state (
	one bool PRIMARY KEY DEFAULT true CHECK (one),
	cluster_id uuid NOT NULL DEFAULT gen_random_uuid(),
	admin_bootstrapped_at timestamptz);
INSERT INTO platform_state DEFAULT VALUES;

CREATE TABLE users (
	id uuid PRIMARY KEY,
	source text NOT NULL CHECK (source IN ('signup','oauth','sso','scim','admin','cli')),
	email text NOT NULL UNIQUE CHECK (email = lower(email) AND octet_length(email) BETWEEN 3 AND 254
		AND email ~ '^[!-?A-~]+@[!-?A-~]+$' AND email !~ '[<>&"\\,;:()\[\]]'),
	email_verified_at timestamptz,
	name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100 AND name !~ '[[:cntrl:]<>&"]'),
	status text NOT NULL CHECK (status IN ('inactive','active','disabled','deleted')),
	platform_role text NOT NULL DEFAULT 'user' CHECK (platform_role IN ('user','operator','admin')),
	password_hash text,
	password_changed_at timestamptz,
	must_change_password bool NOT NULL DEFAULT false,
	webauthn_handle bytea NOT NULL UNIQUE CHECK (octet_length(webauthn_handle) = 64),
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	activated_at timestamptz, disabled_at timestamptz, last_login_at timestamptz,
	deleted_at timestamptz, purge_after timestamptz,
	CHECK ((status = 'deleted') = (deleted_at IS NOT NULL)),
	CHECK ((deleted_at IS NULL) = (purge_after IS NULL)));
CREATE INDEX ON users (created_at DESC, id DESC);
CREATE INDEX ON users (email text_pattern_ops) WHERE status = 'active';
CREATE INDEX ON users (platform_role) WHERE platform_role <> 'user';
CREATE INDEX ON users (purge_after) WHERE status = 'deleted';
CREATE INDEX ON users (created_at) WHERE status = 'inactive';

CREATE TABLE teams (
	id uuid PRIMARY KEY,
	name text NOT NULL CHECK (name ~ '^[A-Za-z0-9 _\-@'']{1,128}$'),
	slug text NOT NULL UNIQUE CHECK (slug ~ '^[0-9a-f]{6}-[0-9a-f]{6}$' OR slug = 'platform'),
	kind text NOT NULL DEFAULT 'team' CHECK (kind IN ('team','department','project','organization')),
	parent_id uuid REFERENCES teams ON DELETE SET NULL,
	is_byoc bool NOT NULL DEFAULT false,
	require_mfa bool NOT NULL DEFAULT false,
	settings jsonb NOT NULL DEFAULT '{}',
	created_by uuid REFERENCES users ON DELETE SET NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	deleted_at timestamptz, purged_at timestamptz);
CREATE INDEX ON teams (created_at DESC, id DESC);
INSERT INTO teams (id, name, slug) VALUES ('00000000-0000-0000-0000-000000000000', 'Platform', 'platform');

-- The permission dictionary (spec 01 §2.6); seeded by the program from lib/permissions.def and compared at start.
CREATE TABLE permissions (name text PRIMARY KEY, description text NOT NULL, roles text[] NOT NULL);

CREATE TABLE users_teams (
	team_id uuid REFERENCES teams ON DELETE RESTRICT,
	user_id uuid REFERENCES users ON DELETE CASCADE,
	role text NOT NULL CHECK (role IN ('owner','admin','member','viewer','auditor')),
	is_default bool NOT NULL DEFAULT false,
	source text NOT NULL CHECK (source IN ('created','added','invitation','sso','scim','admin')),
	added_by uuid REFERENCES users ON DELETE SET NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (team_id, user_id));
CREATE INDEX ON users_teams (user_id, created_at);
CREATE UNIQUE INDEX ON users_teams (user_id) WHERE is_default;
CREATE INDEX ON users_teams (team_id) WHERE role = 'owner';

CREATE TABLE login_sessions (
	id uuid PRIMARY KEY,
	user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
	team_id uuid REFERENCES teams ON DELETE SET NULL,
	kind text NOT NULL CHECK (kind IN ('web','cli')),
	method text NOT NULL CHECK (method IN ('password','activation','oauth','oidc','saml')),
	generation int NOT NULL DEFAULT 1,
	refresh_hash bytea NOT NULL, prev_hash bytea, successor_enc bytea, rotated_at timestamptz,
	device_hash bytea, auth_at timestamptz NOT NULL, mfa_at timestamptz,
	ip inet, user_agent text CHECK (length(user_agent) <= 512),
	created_at timestamptz NOT NULL DEFAULT now(), last_seen_at timestamptz NOT NULL DEFAULT now(),
	idle_expires_at timestamptz NOT NULL, expires_at timestamptz NOT NULL,
	revoked_at timestamptz, revoke_reason text);
CREATE INDEX ON login_sessions (user_id) WHERE revoked_at IS NULL;
CREATE INDEX ON login_sessions (expires_at);

CREATE TABLE api_keys (
	id uuid PRIMARY KEY,
	team_id uuid NOT NULL REFERENCES teams ON DELETE CASCADE,
	kind text NOT NULL CHECK (kind IN ('personal','team','cli')),
	created_by uuid REFERENCES users ON DELETE SET NULL,
	session_id uuid REFERENCES login_sessions ON DELETE CASCADE,
	name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
	description text NOT NULL DEFAULT '' CHECK (char_length(description) <= 500),
	key_hash bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),
	key_prefix text NOT NULL,
	scopes text[] NOT NULL CHECK (cardinality(scopes) BETWEEN 1 AND 64),
	created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz,
	last_used_at timestamptz, revoked_at timestamptz,
	CHECK ((kind = 'cli') = (session_id IS NOT NULL)));
CREATE INDEX ON api_keys (team_id, created_at DESC, id DESC);
CREATE INDEX ON api_keys (created_by);
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON api_keys TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON api_keys TO hutch_work USING (true) WITH CHECK (true);

CREATE TABLE one_time_tokens (
	token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
	id uuid NOT NULL UNIQUE,
	user_id uuid REFERENCES users ON DELETE CASCADE,
	purpose text NOT NULL CHECK (purpose IN ('activation','password_reset','password_set','email_change',
		'mfa_challenge','webauthn_register','login_state','saml_assertion','exchange')),
	payload jsonb NOT NULL DEFAULT '{}', secret_enc bytea, attempts smallint NOT NULL DEFAULT 0, ip inet,
	created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, used_at timestamptz);
CREATE UNIQUE INDEX ON one_time_tokens (user_id, purpose)
	WHERE used_at IS NULL AND purpose IN ('password_reset','password_set','email_change');
CREATE INDEX ON one_time_tokens (expires_at);

CREATE TABLE auth_throttle (
	subject bytea, kind text, failures int NOT NULL, window_start timestamptz NOT NULL,
	month_failures int NOT NULL, month_start timestamptz NOT NULL, PRIMARY KEY (subject, kind));

CREATE TABLE idempotency_keys (
	scope_id uuid, route text, key text CHECK (length(key) BETWEEN 1 AND 255),
	body_hash bytea NOT NULL, status smallint NOT NULL, headers jsonb NOT NULL DEFAULT '{}', response_enc bytea,
	created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL,
	PRIMARY KEY (scope_id, route, key));
CREATE INDEX ON idempotency_keys (expires_at);

-- Audit: one dense, hash-chained log per team. The application may read it and call audit_append(),
-- nothing else; a trigger refuses changes to everybody but the anonymiser.
CREATE TABLE audit_logs (
	id uuid NOT NULL, team_id uuid NOT NULL, seq bigint NOT NULL, created_at timestamptz NOT NULL,
	actor_type text NOT NULL CHECK (actor_type IN ('user','api_key','system','host','scim')),
	actor_id text, actor_name text NOT NULL DEFAULT '', actor_user uuid, subject_user uuid,
	resource_type text NOT NULL, resource_id text, action text NOT NULL, event text,
	scope text NOT NULL CHECK (scope IN ('team','admin')),
	status text NOT NULL CHECK (status IN ('success','info','warning','error')),
	metadata jsonb NOT NULL DEFAULT '{}' CHECK (octet_length(metadata::text) <= 8192),
	ip inet, user_agent text, request_id text,
	salt bytea, pii_digest bytea NOT NULL, anonymised_at timestamptz,
	prev_hash bytea NOT NULL, hash bytea NOT NULL,
	PRIMARY KEY (team_id, seq, created_at)) PARTITION BY RANGE (created_at);
CREATE INDEX ON audit_logs (team_id, created_at DESC, id DESC);
CREATE INDEX ON audit_logs (actor_user, created_at DESC) WHERE actor_user IS NOT NULL;
CREATE INDEX ON audit_logs (subject_user, created_at DESC) WHERE subject_user IS NOT NULL;
CREATE TABLE audit_logs_rest PARTITION OF audit_logs DEFAULT;
ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_logs FOR SELECT TO hutch_app USING (team_id = current_team());
CREATE POLICY platform ON audit_logs FOR SELECT TO hutch_work USING (true);

CREATE TABLE audit_heads (
	team_id uuid PRIMARY KEY REFERENCES teams ON DELETE RESTRICT,
	seq bigint NOT NULL DEFAULT 0, at timestamptz NOT NULL,
	hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'));
INSERT INTO audit_heads (team_id, at) SELECT id, now() FROM teams;

CREATE FUNCTION audit_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'audit_logs is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER frozen BEFORE UPDATE OR DELETE ON audit_logs FOR EACH ROW EXECUTE FUNCTION audit_frozen();
CREATE TRIGGER frozen_whole BEFORE TRUNCATE ON audit_logs FOR EACH STATEMENT EXECUTE FUNCTION audit_frozen();

-- A field of the hashed text: 4 bytes of length, then the bytes; NULL is ffffffff (spec 01 §5).
CREATE FUNCTION audit_field(v bytea) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN v IS NULL THEN '\xffffffff'::bytea ELSE int4send(octet_length(v)) || v END $$;
CREATE FUNCTION audit_field(v text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT audit_field(convert_to(v, 'UTF8')) $$;

CREATE FUNCTION audit_pii(salt bytea, actor_id text, actor_name text, actor_user uuid, subject_user uuid,
	resource_id text, metadata jsonb, ip inet, user_agent text) RETURNS bytea LANGUAGE sql STABLE AS
$$ SELECT sha256(salt || audit_field(actor_id) || audit_field(actor_name) || audit_field(actor_user::text)
	|| audit_field(subject_user::text) || audit_field(resource_id) || audit_field(metadata::text)
	|| audit_field(host(ip)) || audit_field(user_agent)) $$;

CREATE FUNCTION audit_hash(prev bytea, team uuid, seq bigint, at timestamptz, id uuid, actor_type text,
	resource_type text, action text, event text, scope text, status text, request_id text, pii bytea)
	RETURNS bytea LANGUAGE sql STABLE AS
$$ SELECT sha256(convert_to('hutch-audit-1', 'UTF8') || prev || audit_field(team::text) || int8send(seq)
	|| int8send((extract(epoch FROM at) * 1000000)::bigint) || audit_field(id::text) || audit_field(actor_type)
	|| audit_field(resource_type) || audit_field(action) || audit_field(event) || audit_field(scope)
	|| audit_field(status) || audit_field(request_id) || pii) $$;

-- The only way in. Called as the last statement of the transaction whose change it records.
CREATE FUNCTION audit_append(a_id uuid, a_team uuid, a_actor_type text, a_actor_id text, a_actor_name text,
	a_actor_user uuid, a_subject_user uuid, a_resource_type text, a_resource_id text, a_action text, a_event text,
	a_scope text, a_status text, a_metadata jsonb, a_ip text, a_user_agent text, a_request_id text)
	RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
	head audit_heads;
	a_at timestamptz;
	a_salt bytea := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
	pii bytea;
	h bytea;
BEGIN
	SELECT * INTO STRICT head FROM audit_heads WHERE team_id = a_team FOR UPDATE;
	a_at := greatest(clock_timestamp(), head.at + interval '1 microsecond');
	pii := audit_pii(a_salt, a_actor_id, a_actor_name, a_actor_user, a_subject_user, a_resource_id,
		a_metadata, a_ip::inet, a_user_agent);
	h := audit_hash(head.hash, a_team, head.seq + 1, a_at, a_id, a_actor_type, a_resource_type, a_action,
		a_event, a_scope, a_status, a_request_id, pii);
	INSERT INTO audit_logs (id, team_id, seq, created_at, actor_type, actor_id, actor_name, actor_user,
		subject_user, resource_type, resource_id, action, event, scope, status, metadata, ip, user_agent,
		request_id, salt, pii_digest, prev_hash, hash)
	VALUES (a_id, a_team, head.seq + 1, a_at, a_actor_type, a_actor_id, a_actor_name, a_actor_user,
		a_subject_user, a_resource_type, a_resource_id, a_action, a_event, a_scope, a_status, a_metadata,
		a_ip::inet, a_user_agent, a_request_id, a_salt, pii, head.hash, h);
	UPDATE audit_heads SET seq = head.seq + 1, at = a_at, hash = h WHERE team_id = a_team;
	RETURN head.seq + 1;
END $$;

-- The first row of a team's chain that does not verify, or none (hutchctl audit verify).
CREATE FUNCTION audit_verify(v_team uuid) RETURNS TABLE (checked bigint, first_bad bigint, reason text)
	LANGUAGE plpgsql STABLE AS $$
DECLARE
	r audit_logs;
	want bigint := 1;
	prev bytea := decode(repeat('00', 32), 'hex');
	head audit_heads;
BEGIN
	checked := 0;
	FOR r IN SELECT * FROM audit_logs WHERE team_id = v_team ORDER BY seq, created_at LOOP
		first_bad := r.seq;
		IF r.seq <> want THEN reason := 'seq is not dense'; RETURN NEXT; RETURN; END IF;
		IF r.prev_hash <> prev THEN reason := 'prev_hash differs'; RETURN NEXT; RETURN; END IF;
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
	SELECT * INTO head FROM audit_heads WHERE team_id = v_team;
	first_bad := NULL;
	IF head.seq <> checked OR head.hash <> prev THEN
		first_bad := checked + 1; reason := 'the tail was cut';
	END IF;
	RETURN NEXT;
END $$;

-- Every team has a head of its audit chain from the start.
CREATE FUNCTION team_born() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
	INSERT INTO audit_heads (team_id, at) VALUES (NEW.id, now());
	RETURN NEW;
END $$;
CREATE TRIGGER born AFTER INSERT ON teams FOR EACH ROW EXECUTE FUNCTION team_born();

-- Who is asking, by API key: one row when the key is known, whatever its state; the caller judges.
-- Sets the tenant of row-level security for what follows on this connection, '' when the key is no good. Every request
-- runs one of the two, so each is a single statement that sets the tenant while it reads, and asks nothing that few
-- requests need.
CREATE TYPE principal AS (
	type text, key_id uuid, user_id uuid, session_id uuid, team_id uuid, role text, platform_role text,
	user_status text, email text, name text, scopes text[], team_live bool, key_state text,
	must_change_password bool);

CREATE FUNCTION auth_key(hash bytea) RETURNS SETOF principal LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE nobody text;
BEGIN
	RETURN QUERY SELECT
		CASE WHEN set_config('hutch.team', CASE WHEN q.state = 'live' THEN q.team_id::text ELSE '' END, false) IS NOT NULL
			THEN 'api_key' END,
		q.id, q.created_by, q.session_id, q.team_id, q.role, q.platform_role, q.status, q.email, q.name, q.scopes,
		q.team_live, q.state, false
	FROM (SELECT k.id, k.created_by, k.session_id, k.team_id,
			CASE WHEN k.kind = 'team' THEN 'admin' ELSE m.role END AS role,
			coalesce(u.platform_role, 'user') AS platform_role, u.status, u.email, k.name, k.scopes,
			t.deleted_at IS NULL AS team_live,
			CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired'
				WHEN t.deleted_at IS NOT NULL THEN 'team' WHEN k.kind <> 'team' AND m.role IS NULL THEN 'creator'
				WHEN u.status IS DISTINCT FROM 'active' THEN 'creator' ELSE 'live' END AS state
		FROM api_keys k JOIN teams t ON t.id = k.team_id
			LEFT JOIN users u ON u.id = k.created_by
			LEFT JOIN users_teams m ON m.team_id = k.team_id AND m.user_id = k.created_by
		WHERE k.key_hash = hash) q;
	IF NOT FOUND THEN nobody := set_config('hutch.team', '', false); END IF;
END $$;

CREATE FUNCTION auth_session(sid uuid, uid uuid, tid uuid) RETURNS SETOF principal LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE nobody text;
BEGIN
	RETURN QUERY SELECT
		CASE WHEN set_config('hutch.team', CASE WHEN q.state = 'live' AND q.status = 'active' AND q.team_live
			AND q.role IS NOT NULL THEN q.team_id::text ELSE '' END, false) IS NOT NULL THEN 'user' END,
		NULL::uuid, q.user_id, q.session_id, q.team_id, q.role, q.platform_role, q.status, q.email, q.name, NULL::text[],
		q.team_live, q.state, q.must_change_password
	FROM (SELECT u.id AS user_id, s.id AS session_id, t.id AS team_id, m.role, u.platform_role, u.status, u.email, u.name,
			t.id IS NOT NULL AND t.deleted_at IS NULL AS team_live,
			CASE WHEN s.revoked_at IS NOT NULL THEN 'revoked' WHEN s.expires_at <= now() THEN 'expired' ELSE 'live' END AS state,
			u.must_change_password
		FROM login_sessions s JOIN users u ON u.id = s.user_id
			LEFT JOIN teams t ON t.id = tid
			LEFT JOIN users_teams m ON m.team_id = tid AND m.user_id = u.id
		WHERE s.id = sid AND s.user_id = uid) q;
	IF NOT FOUND THEN nobody := set_config('hutch.team', '', false); END IF;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT EXECUTE ON FUNCTION current_team() TO hutch_app, hutch_work;
GRANT EXECUTE ON FUNCTION auth_key(bytea), auth_session(uuid, uuid, uuid),
	audit_append(uuid, uuid, text, text, text, uuid, uuid, text, text, text, text, text, text, jsonb, text, text, text)
	TO hutch_app, hutch_work;
GRANT EXECUTE ON FUNCTION audit_verify(uuid), audit_field(bytea), audit_field(text),
	audit_pii(bytea, text, text, uuid, uuid, text, jsonb, inet, text),
	audit_hash(bytea, uuid, bigint, timestamptz, uuid, text, text, text, text, text, text, text, bytea) TO hutch_app, hutch_work;
GRANT SELECT, UPDATE ON platform_state TO hutch_app, hutch_work;
GRANT SELECT, INSERT, UPDATE, DELETE ON users, teams, users_teams, login_sessions, api_keys, one_time_tokens,
	auth_throttle, idempotency_keys TO hutch_app, hutch_work;
GRANT SELECT ON audit_logs, permissions TO hutch_app, hutch_work;
