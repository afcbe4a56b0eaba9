-- 0011_forgotten.sql - audit rows of which a person was taken out still verify; live keys of a person in all teams.

-- What an anonymised row says since. The digest over a batch stands in the chain: in the Platform's row audit/anonymise
-- that names the batch. So a later change of such a row is found, too.
CREATE SEQUENCE audit_batches;
CREATE TABLE audit_forgotten (
	batch bigint, team_id uuid, seq bigint, digest bytea NOT NULL CHECK (octet_length(digest) = 32),
	PRIMARY KEY (team_id, seq, batch));
CREATE INDEX ON audit_forgotten (batch);
ALTER TABLE audit_forgotten ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_forgotten FOR SELECT TO hutch_app USING (team_id = current_team());
CREATE POLICY platform ON audit_forgotten FOR SELECT TO hutch_work USING (true);
CREATE POLICY forget ON audit_forgotten TO hutch_forget USING (true) WITH CHECK (true);
GRANT SELECT ON audit_forgotten TO hutch_app, hutch_work;
GRANT SELECT, INSERT ON audit_forgotten TO hutch_forget;
GRANT USAGE ON SEQUENCE audit_batches TO hutch_forget;

-- The digest of a batch: of its rows' digests, in order.
CREATE FUNCTION audit_batch_digest(b bigint) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT encode(sha256(coalesce(string_agg(uuid_send(f.team_id) || int8send(f.seq) || f.digest, ''::bytea ORDER BY f.team_id, f.seq),
	''::bytea)), 'hex') FROM audit_forgotten f WHERE f.batch = b $$;

-- As in 0009; besides, it writes down what the rows say now. batch: its number, for the row audit/anonymise.
GRANT hutch_forget TO CURRENT_USER;
DROP FUNCTION audit_anonymise(uuid, int);
CREATE FUNCTION audit_anonymise(who uuid, most int) RETURNS TABLE (n bigint, digest text, batch bigint) LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE
	wire text := wire_id('usr-', who);
	addr text := (SELECT u.email FROM users u WHERE u.id = who);
	b bigint := nextval('audit_batches');
BEGIN
	WITH pick AS (
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
		RETURNING a.*
	)
	INSERT INTO audit_forgotten (batch, team_id, seq, digest)
	SELECT b, c.team_id, c.seq, audit_pii(''::bytea, c.actor_id, c.actor_name, c.actor_user, c.subject_user, c.resource_id, c.metadata,
		c.ip, c.user_agent) FROM changed c;
	GET DIAGNOSTICS n = ROW_COUNT;
	digest := audit_batch_digest(b);
	batch := b;
	RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION audit_anonymise(uuid, int), audit_batch_digest(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_anonymise(uuid, int) TO hutch_work;
GRANT EXECUTE ON FUNCTION audit_batch_digest(bigint) TO hutch_work, hutch_forget;
GRANT EXECUTE ON FUNCTION audit_pii(bytea, text, text, uuid, uuid, text, jsonb, inet, text), audit_field(bytea), audit_field(text) TO hutch_forget;
-- To give the function away, its present owner must be a member of the new one for a moment.
GRANT CREATE ON SCHEMA public TO hutch_forget;
ALTER FUNCTION audit_anonymise(uuid, int) OWNER TO hutch_forget;
REVOKE ALL ON FUNCTION audit_anonymise(uuid, int) FROM PUBLIC, CURRENT_USER;
REVOKE hutch_forget FROM CURRENT_USER;
REVOKE CREATE ON SCHEMA public FROM hutch_forget;

-- Batches that the Platform's chain does not confirm, and rows of that chain whose batch is not there.
CREATE FUNCTION audit_batches_verify() RETURNS TABLE (seq bigint, reason text) LANGUAGE sql STABLE AS $$
	SELECT a.seq, 'the rows of its batch differ from its digest' FROM audit_logs a
	 WHERE a.team_id = '00000000-0000-0000-0000-000000000000' AND a.resource_type = 'audit' AND a.action = 'anonymise'
	   AND a.metadata->>'digest' IS DISTINCT FROM audit_batch_digest((a.metadata->>'batch')::bigint)
	UNION ALL
	SELECT (SELECT h.seq FROM audit_heads h WHERE h.team_id = '00000000-0000-0000-0000-000000000000'),
	       'a batch of anonymised rows is in no row of the log'
	 WHERE EXISTS (SELECT FROM audit_forgotten f WHERE NOT EXISTS (SELECT FROM audit_logs a
	   WHERE a.team_id = '00000000-0000-0000-0000-000000000000' AND a.resource_type = 'audit' AND a.action = 'anonymise'
	     AND (a.metadata->>'batch')::bigint = f.batch))
	ORDER BY 1 LIMIT 100 $$;
REVOKE ALL ON FUNCTION audit_batches_verify() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_batches_verify() TO hutch_work;

-- As in 0008; an anonymised row must say what anonymising left of it.
CREATE OR REPLACE FUNCTION audit_verify(v_team uuid, v_from bigint, v_to bigint)
	RETURNS TABLE (checked bigint, first_bad bigint, reason text) LANGUAGE plpgsql STABLE AS $$
DECLARE
	r audit_logs;
	want bigint := v_from;
	prev bytea := decode(repeat('00', 32), 'hex');
	mark record;
	said bytea;
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
		IF r.anonymised_at IS NOT NULL THEN
			SELECT f.digest INTO said FROM audit_forgotten f WHERE f.team_id = v_team AND f.seq = r.seq ORDER BY f.batch DESC LIMIT 1;
			IF said IS DISTINCT FROM audit_pii(''::bytea, r.actor_id, r.actor_name, r.actor_user, r.subject_user,
				r.resource_id, r.metadata, r.ip, r.user_agent) THEN
				reason := 'fields differ from what anonymising left'; RETURN NEXT; RETURN;
			END IF;
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

-- Live personal keys of a person in all teams: the limit holds for all of them together.
CREATE FUNCTION live_keys(who uuid) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS
$$ SELECT count(*) FROM api_keys WHERE created_by = who AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) $$;
REVOKE ALL ON FUNCTION live_keys(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_keys(uuid) TO hutch_app, hutch_work;
