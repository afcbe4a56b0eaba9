-- 0017_cli.sql - keys of CLI logins (spec 06 §13): one per login and team, derived, so that they can be told again.

-- 2: the key is new; 1: it was there and is good; 0: there is none to tell, because the login is no living one of kind cli, the
-- member may have no keys in the team, or somebody ended the key.
CREATE FUNCTION cli_key_make(key uuid, login uuid, member uuid, in_team uuid, hash bytea, prefix text, scopes text[]) RETURNS int
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE until timestamptz;
BEGIN
	SELECT s.expires_at INTO until FROM login_sessions s WHERE s.id = login AND s.user_id = member AND s.kind = 'cli'
		AND s.revoked_at IS NULL AND s.expires_at > now() FOR SHARE;
	IF NOT FOUND OR NOT EXISTS (SELECT FROM users_teams m JOIN teams t ON t.id = m.team_id WHERE m.team_id = in_team
			AND m.user_id = member AND m.role IN ('owner', 'admin', 'member') AND t.deleted_at IS NULL) THEN
		RETURN 0;
	END IF;
	INSERT INTO api_keys (id, team_id, kind, created_by, session_id, name, key_hash, key_prefix, scopes, expires_at)
		VALUES (key, in_team, 'cli', member, login, 'cli', hash, prefix, scopes, until) ON CONFLICT (key_hash) DO NOTHING;
	IF FOUND THEN RETURN 2; END IF;
	RETURN (SELECT count(*) FROM api_keys k WHERE k.key_hash = hash AND k.team_id = in_team AND k.revoked_at IS NULL
		AND k.expires_at > now())::int;
END $$;
REVOKE ALL ON FUNCTION cli_key_make(uuid, uuid, uuid, uuid, bytea, text, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION cli_key_make(uuid, uuid, uuid, uuid, bytea, text, text[]) TO hutch_app, hutch_work;

-- Whatever ends a login ends its keys.
CREATE FUNCTION cli_keys_end() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
	UPDATE api_keys SET revoked_at = NEW.revoked_at WHERE session_id = NEW.id AND revoked_at IS NULL;
	RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION cli_keys_end() FROM PUBLIC;
CREATE TRIGGER cli_keys_end AFTER UPDATE OF revoked_at ON login_sessions FOR EACH ROW
	WHEN (NEW.kind = 'cli' AND NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL) EXECUTE FUNCTION cli_keys_end();
