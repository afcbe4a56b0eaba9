-- 0013_streams.sql - tickets that open one stream (spec 01 §4.3, 00 §4), and who may still look at open ones.

-- Unlogged: a ticket lives 30 s, a crash may take it. role: of screens, which are not built yet.
CREATE UNLOGGED TABLE stream_tickets (
	token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
	user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE, session_id uuid REFERENCES login_sessions ON DELETE CASCADE,
	key_id uuid REFERENCES api_keys ON DELETE CASCADE, team_id uuid NOT NULL REFERENCES teams ON DELETE CASCADE,
	capsule_id uuid REFERENCES capsules ON DELETE CASCADE,
	purpose text NOT NULL CHECK (purpose IN ('exec','pty','process','files','logs','port','events')),
	port int CHECK (port BETWEEN 1 AND 65535), role text, origin text CHECK (length(origin) <= 512),
	expires_at timestamptz NOT NULL,
	CHECK ((session_id IS NULL) <> (key_id IS NULL)), CHECK ((purpose = 'port') = (port IS NOT NULL)),
	CHECK ((purpose = 'events') = (capsule_id IS NULL)));
CREATE INDEX ON stream_tickets (user_id);
CREATE INDEX ON stream_tickets (session_id);
CREATE INDEX ON stream_tickets (key_id);
CREATE INDEX ON stream_tickets (team_id);
CREATE INDEX ON stream_tickets (capsule_id);
CREATE INDEX ON stream_tickets (expires_at);
ALTER TABLE stream_tickets ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON stream_tickets TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
CREATE POLICY platform ON stream_tickets TO hutch_work USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON stream_tickets TO hutch_app, hutch_work;

-- Whatever ends a login or a key ends its tickets: logout, disabling, an administrator, a change of the password.
CREATE FUNCTION tickets_end() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
	IF TG_TABLE_NAME = 'login_sessions' THEN
		DELETE FROM stream_tickets WHERE session_id = NEW.id;
	ELSE
		DELETE FROM stream_tickets WHERE key_id = NEW.id;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER tickets_end AFTER UPDATE OF revoked_at ON login_sessions FOR EACH ROW
	WHEN (NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL) EXECUTE FUNCTION tickets_end();
CREATE TRIGGER tickets_end AFTER UPDATE OF revoked_at ON api_keys FOR EACH ROW
	WHEN (NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL) EXECUTE FUNCTION tickets_end();

-- Uses a ticket up, whatever the caller then makes of it. Nothing when it is unknown, used or late. The team is not
-- known before; key_hash: of the API key that made it.
CREATE FUNCTION ticket_take(hash bytea) RETURNS TABLE (user_id uuid, session_id uuid, key_id uuid, key_hash bytea, team_id uuid,
	capsule_id uuid, purpose text, port int, origin text) LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
	WITH gone AS (DELETE FROM stream_tickets t WHERE t.token_hash = hash RETURNING t.*)
	SELECT g.user_id, g.session_id, g.key_id, k.key_hash, g.team_id, g.capsule_id, g.purpose, g.port, g.origin
	FROM gone g LEFT JOIN api_keys k ON k.id = g.key_id WHERE g.expires_at > now() $$;

-- Who stands behind open streams, and what they look at, as it is now: one row for each of asked, an array of
-- {user, session, key, team, capsule, ip}. The same columns and rules as auth_session() and auth_key().
CREATE FUNCTION stream_rights(asked jsonb) RETURNS TABLE (n int, user_id uuid, role text, platform_role text, user_status text,
	scopes text[], team_live bool, key_state text, must_change_password bool, has_factor bool, team_mfa bool,
	capsule_state text, epoch bigint, visibility text, owner_id uuid)
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
	WITH ask AS (SELECT (a.ord - 1)::int AS n, (v->>'user')::uuid AS u, (v->>'session')::uuid AS s, (v->>'key')::uuid AS k,
		(v->>'team')::uuid AS t, (v->>'capsule')::uuid AS c, v->>'ip' AS ip
		FROM jsonb_array_elements(asked) WITH ORDINALITY AS a(v, ord))
	SELECT ask.n, u.id, CASE WHEN k.kind = 'team' THEN 'admin' ELSE m.role END, coalesce(u.platform_role, 'user'), u.status,
		k.scopes, t.id IS NOT NULL AND t.deleted_at IS NULL,
		CASE WHEN ask.k IS NULL THEN
			CASE WHEN s.id IS NULL OR s.revoked_at IS NOT NULL THEN 'revoked' WHEN s.expires_at <= now() THEN 'expired' ELSE 'live' END
		ELSE
			CASE WHEN k.id IS NULL OR k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired'
				WHEN t.deleted_at IS NOT NULL THEN 'team' WHEN k.kind <> 'team' AND m.role IS NULL THEN 'creator'
				WHEN u.status IS DISTINCT FROM 'active' THEN 'creator'
				WHEN cardinality(k.allowed_ips) > 0 AND (ask.ip IS NULL OR NOT ask.ip::inet <<= ANY (k.allowed_ips)) THEN 'address'
				ELSE 'live' END
		END,
		ask.k IS NULL AND coalesce(u.must_change_password, false),
		ask.k IS NULL AND EXISTS (SELECT FROM mfa_factors f WHERE f.user_id = u.id AND f.verified_at IS NOT NULL),
		ask.k IS NULL AND coalesce(t.require_mfa, false),
		c.observed_state, c.epoch, c.visibility, c.owner_id
	FROM ask LEFT JOIN api_keys k ON k.id = ask.k AND k.team_id = ask.t
		LEFT JOIN login_sessions s ON ask.k IS NULL AND s.id = ask.s AND s.user_id = ask.u
		LEFT JOIN users u ON u.id = coalesce(k.created_by, s.user_id)
		LEFT JOIN teams t ON t.id = ask.t
		LEFT JOIN users_teams m ON m.team_id = ask.t AND m.user_id = u.id
		LEFT JOIN capsules c ON c.id = ask.c AND c.team_id = ask.t $$;

REVOKE ALL ON FUNCTION tickets_end(), ticket_take(bytea), stream_rights(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ticket_take(bytea), stream_rights(jsonb) TO hutch_app, hutch_work;
