-- 0007_accounts.sql - second factors, identities of other providers, and what sign-in counts (spec 01 §2.2, §3, §5).

-- Providers and the identities they vouch for. Reached by sign-in only, which has no tenant yet: no row-level security.
CREATE TABLE identity_providers (
	id uuid PRIMARY KEY,
	slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z][a-z0-9-]{0,31}$'),
	type text NOT NULL CHECK (type IN ('github','gitlab','google','oidc','saml')),
	name text NOT NULL,
	enabled bool NOT NULL DEFAULT true,
	managed_by text NOT NULL CHECK (managed_by IN ('config','api')),
	config jsonb NOT NULL, secret_enc bytea,
	domains text[] NOT NULL DEFAULT '{}',
	link_by_email bool NOT NULL DEFAULT false,
	jit bool NOT NULL DEFAULT true,
	trust_mfa bool NOT NULL DEFAULT false,
	enforce bool NOT NULL DEFAULT false,
	group_map jsonb NOT NULL DEFAULT '[]',
	default_team_id uuid REFERENCES teams ON DELETE SET NULL,
	created_by uuid REFERENCES users ON DELETE SET NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now());

CREATE TABLE external_identities (
	idp_id uuid REFERENCES identity_providers ON DELETE CASCADE,
	subject text,
	user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
	scim_external_id text, email text,
	profile jsonb NOT NULL DEFAULT '{}',
	created_at timestamptz NOT NULL DEFAULT now(), last_login_at timestamptz,
	PRIMARY KEY (idp_id, subject), UNIQUE (idp_id, user_id));
CREATE INDEX ON external_identities (user_id);

ALTER TABLE login_sessions ADD COLUMN idp_id uuid REFERENCES identity_providers ON DELETE SET NULL,
	ADD COLUMN idp_session text;
CREATE INDEX ON login_sessions (user_id, device_hash);

-- Second factors. The columns of WebAuthn stay empty until that exists.
CREATE TABLE mfa_factors (
	id uuid PRIMARY KEY,
	user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
	type text NOT NULL CHECK (type IN ('totp','webauthn')),
	name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
	secret_enc bytea, last_step bigint,
	credential_id bytea UNIQUE, public_key bytea, sign_count bigint, aaguid uuid, transports text[],
	created_at timestamptz NOT NULL DEFAULT now(), verified_at timestamptz, last_used_at timestamptz,
	CHECK ((type = 'totp') = (secret_enc IS NOT NULL)));
CREATE INDEX ON mfa_factors (user_id);

CREATE TABLE mfa_backup_codes (
	user_id uuid REFERENCES users ON DELETE CASCADE,
	idx smallint CHECK (idx BETWEEN 0 AND 9),
	code_hash text NOT NULL, used_at timestamptz,
	PRIMARY KEY (user_id, idx));

-- A failed sign-in is one audit row per account and 10 minutes; the others are counted here until then.
ALTER TABLE auth_throttle ADD COLUMN logged_at timestamptz, ADD COLUMN unlogged int NOT NULL DEFAULT 0;

-- What is known of a signed-in caller, in the one statement of each request: now also whether he has a second
-- factor, and whether the team of his token wants one.
CREATE TYPE principal_session AS (
	type text, user_id uuid, session_id uuid, team_id uuid, role text, platform_role text, user_status text,
	email text, name text, team_live bool, key_state text, must_change_password bool, has_factor bool, team_mfa bool);

DROP FUNCTION auth_session(uuid, uuid, uuid);
CREATE FUNCTION auth_session(sid uuid, uid uuid, tid uuid) RETURNS SETOF principal_session LANGUAGE plpgsql
	SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE nobody text;
BEGIN
	RETURN QUERY SELECT
		CASE WHEN set_config('hutch.team', CASE WHEN q.state = 'live' AND q.status = 'active' AND q.team_live
			AND q.role IS NOT NULL THEN q.team_id::text ELSE '' END, false) IS NOT NULL THEN 'user' END,
		q.user_id, q.session_id, q.team_id, q.role, q.platform_role, q.status, q.email, q.name,
		q.team_live, q.state, q.must_change_password, q.has_factor, q.team_mfa
	FROM (SELECT u.id AS user_id, s.id AS session_id, t.id AS team_id, m.role, u.platform_role, u.status, u.email, u.name,
			t.id IS NOT NULL AND t.deleted_at IS NULL AS team_live,
			CASE WHEN s.revoked_at IS NOT NULL THEN 'revoked' WHEN s.expires_at <= now() THEN 'expired' ELSE 'live' END AS state,
			u.must_change_password,
			EXISTS (SELECT FROM mfa_factors f WHERE f.user_id = u.id AND f.verified_at IS NOT NULL) AS has_factor,
			coalesce(t.require_mfa, false) AS team_mfa
		FROM login_sessions s JOIN users u ON u.id = s.user_id
			LEFT JOIN teams t ON t.id = tid
			LEFT JOIN users_teams m ON m.team_id = tid AND m.user_id = u.id
		WHERE s.id = sid AND s.user_id = uid) q;
	IF NOT FOUND THEN nobody := set_config('hutch.team', '', false); END IF;
END $$;

-- How many mails of a template an address was sent within the hour; the API's role may not read mails.
CREATE FUNCTION email_recent(m_hash bytea, m_template text) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
	SET search_path = public, pg_temp AS
$$ SELECT count(*) FROM emails WHERE to_hash = m_hash AND template = m_template AND state <> 'suppressed'
	AND created_at > now() - interval '1 hour' $$;

REVOKE ALL ON FUNCTION auth_session(uuid, uuid, uuid), email_recent(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_session(uuid, uuid, uuid), email_recent(bytea, text) TO hutch_app, hutch_work;
GRANT SELECT, INSERT, UPDATE, DELETE ON identity_providers, external_identities, mfa_factors, mfa_backup_codes
	TO hutch_app, hutch_work;
