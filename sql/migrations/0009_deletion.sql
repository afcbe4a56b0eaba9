-- 0009_deletion.sql - what the ends of accounts and teams need (spec 01 §6, §7.2, spec 05 §5.4).

-- A restored account is what it was before; a purge that has begun cannot be stopped.
ALTER TABLE users ADD deleted_from text CHECK (deleted_from IN ('inactive','active','disabled')),
	ADD purge_started_at timestamptz;

-- Buckets of others that objects lie in. The secret is sealed by the program; it goes when its owner goes, after the objects.
CREATE TABLE storage_connections (
	id uuid PRIMARY KEY,
	team_id uuid REFERENCES teams, user_id uuid REFERENCES users ON DELETE RESTRICT,
	name text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
	endpoint text NOT NULL, region text NOT NULL, bucket text NOT NULL, prefix text NOT NULL DEFAULT '',
	path_style bool NOT NULL DEFAULT true,
	access_key_id text NOT NULL, secret_enc bytea NOT NULL,
	status text NOT NULL DEFAULT 'unknown' CHECK (status IN ('ok','failing','unknown')),
	checked_at timestamptz, last_error text,
	deleting_at timestamptz, delete_objects bool NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
	CHECK ((team_id IS NULL) <> (user_id IS NULL)));
CREATE UNIQUE INDEX storage_connections_name ON storage_connections (coalesce(team_id, user_id), name);
CREATE INDEX ON storage_connections (team_id, created_at DESC, id DESC) WHERE team_id IS NOT NULL;
CREATE INDEX ON storage_connections (user_id, created_at DESC, id DESC) WHERE user_id IS NOT NULL;

-- What lies in them; the key in the bucket is prefix/team/id, so names never get there.
CREATE TABLE objects (
	id uuid PRIMARY KEY,
	team_id uuid NOT NULL REFERENCES teams, owner_id uuid REFERENCES users ON DELETE SET NULL,
	connection_id uuid NOT NULL REFERENCES storage_connections ON DELETE CASCADE,
	name text NOT NULL, kind text NOT NULL DEFAULT 'file' CHECK (kind IN ('file','artifact','export','recording','backup')),
	content_type text NOT NULL DEFAULT 'application/octet-stream', size_bytes bigint NOT NULL DEFAULT 0,
	state text NOT NULL DEFAULT 'ready' CHECK (state IN ('pending','verifying','ready','corrupt','deleting')),
	created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz);
CREATE INDEX ON objects (team_id, created_at DESC, id DESC);
CREATE INDEX ON objects (connection_id, id);
CREATE INDEX ON objects (owner_id) WHERE owner_id IS NOT NULL;

-- A person's own connections are seen in no team: the routes name the person with set_config('hutch.user').
CREATE FUNCTION current_person() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT nullif(current_setting('hutch.user', true), '')::uuid $$;
ALTER TABLE storage_connections ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON storage_connections TO hutch_app USING (team_id = current_team() OR user_id = current_person())
	WITH CHECK (team_id = current_team() OR user_id = current_person());
CREATE POLICY platform ON storage_connections TO hutch_work USING (true) WITH CHECK (true);
ALTER TABLE objects ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON objects TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON objects TO hutch_work USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON storage_connections, objects TO hutch_app, hutch_work;

-- What a deleted team had.
GRANT UPDATE ON templates TO hutch_work;
GRANT SELECT, INSERT, UPDATE, DELETE ON quotas TO hutch_work;

-- An item of a job is found by its target, too.
CREATE INDEX ON job_items (job_id, target);
CREATE INDEX ON job_items (job_id, state) WHERE state IN ('queued','running');

-- The wire form of an id (spec 00 §2), for rows that name people in text.
CREATE FUNCTION wire_id(prefix text, id uuid) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
	n numeric := 0;
	out text := '';
BEGIN
	FOR i IN 0..15 LOOP n := n * 256 + get_byte(uuid_send(id), i); END LOOP;
	FOR i IN 1..25 LOOP
		out := substr('0123456789abcdefghijklmnopqrstuvwxyz', (n % 36)::int + 1, 1) || out;
		n := div(n, 36);
	END LOOP;
	RETURN prefix || out;
END $$;

-- The one way in which an audit row changes: a person is taken out of it (spec 01 §7.2). Salt and fields go, both digests
-- stay, the chain still verifies. Its owner is a role of its own, which nobody can log in as.
CREATE INDEX ON audit_logs ((metadata->>'email')) WHERE metadata ? 'email';
CREATE INDEX ON audit_logs (resource_id) WHERE resource_id LIKE 'usr-%';
CREATE OR REPLACE FUNCTION audit_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'UPDATE' AND current_user = 'hutch_forget' THEN RETURN NEW; END IF;
	RAISE EXCEPTION 'audit_logs is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
-- At most `most` rows a call; n = 0: nobody is left in any row. digest: of what the rows say now.
CREATE FUNCTION audit_anonymise(who uuid, most int) RETURNS TABLE (n bigint, digest text) LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE
	wire text := wire_id('usr-', who);
	addr text := (SELECT u.email FROM users u WHERE u.id = who);
BEGIN
	RETURN QUERY WITH pick AS (
		SELECT a.team_id, a.seq, a.created_at FROM audit_logs a WHERE a.actor_user = who
		UNION SELECT a.team_id, a.seq, a.created_at FROM audit_logs a WHERE a.subject_user = who
		UNION SELECT a.team_id, a.seq, a.created_at FROM audit_logs a WHERE a.resource_id = wire AND a.resource_id LIKE 'usr-%'
		UNION SELECT a.team_id, a.seq, a.created_at FROM audit_logs a WHERE a.metadata->>'email' = addr AND a.metadata ? 'email'
		LIMIT most
	), changed AS (
		UPDATE audit_logs a SET
			actor_name = CASE WHEN a.actor_user = who THEN 'deleted-user' ELSE a.actor_name END,
			actor_id = CASE WHEN a.actor_user = who THEN NULL ELSE a.actor_id END,
			ip = CASE WHEN a.actor_user = who THEN NULL ELSE a.ip END,
			user_agent = CASE WHEN a.actor_user = who THEN NULL ELSE a.user_agent END,
			actor_user = nullif(a.actor_user, who),
			resource_id = nullif(a.resource_id, wire),
			metadata = CASE WHEN a.subject_user = who OR a.resource_id = wire OR a.metadata->>'email' = addr
				THEN a.metadata - '{email,name,old_name,new_name,user,address_hash}'::text[]
				WHEN a.resource_type = 'team' THEN a.metadata - '{name,old_name,new_name}'::text[] ELSE a.metadata END,
			subject_user = nullif(a.subject_user, who),
			salt = NULL, anonymised_at = now()
		FROM pick WHERE a.team_id = pick.team_id AND a.seq = pick.seq AND a.created_at = pick.created_at
		RETURNING a.team_id, a.seq, a.actor_type, a.actor_name, a.metadata, a.hash
	)
	SELECT count(*), encode(sha256(convert_to(coalesce(string_agg(c::text, E'\n' ORDER BY c.team_id, c.seq), ''), 'UTF8')), 'hex')
	FROM changed c;
END $$;

REVOKE ALL ON FUNCTION audit_anonymise(uuid, int), current_person(), wire_id(text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_anonymise(uuid, int) TO hutch_work;
GRANT EXECUTE ON FUNCTION current_person(), wire_id(text, uuid) TO hutch_app, hutch_work, hutch_forget;
CREATE POLICY forget ON audit_logs TO hutch_forget USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE ON audit_logs TO hutch_forget;
GRANT SELECT (id, email) ON users TO hutch_forget;
-- To give the function away, its present owner must be a member of the new one for a moment.
GRANT CREATE ON SCHEMA public TO hutch_forget;
GRANT hutch_forget TO CURRENT_USER;
ALTER FUNCTION audit_anonymise(uuid, int) OWNER TO hutch_forget;
REVOKE ALL ON FUNCTION audit_anonymise(uuid, int) FROM PUBLIC, CURRENT_USER;
REVOKE hutch_forget FROM CURRENT_USER;
REVOKE CREATE ON SCHEMA public FROM hutch_forget;
