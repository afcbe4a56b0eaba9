-- tamper.sql - a thousand random tampers with the chain of team x.team, each judged by audit_verify() and rolled back;
-- x.found is how many were found. forge() is made by audit.sh. An anonymised row has no salt: there one is put in, so that
-- every tamper changes something.
CREATE FUNCTION tamper(t uuid, kind int, a bigint, b bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	r audit_logs;
	cols text[] := ARRAY['actor_type','actor_id','actor_name','resource_type','resource_id','action','event','scope','status',
		'metadata','ip','user_agent','request_id','salt','pii_digest','prev_hash','hash','actor_user','created_at','id'];
	c text := cols[1 + (b % 20)::int];
BEGIN
	IF kind IN (0, 1, 2) THEN
		EXECUTE format('UPDATE audit_logs SET %I = %s WHERE team_id = $1 AND seq = $2', c, CASE
			WHEN c IN ('salt','pii_digest','prev_hash','hash') THEN format('coalesce(set_bit(%1$I, %2$s, 1 - get_bit(%1$I, %2$s)), ''\x00'')', c, b % 200)
			WHEN c = 'metadata' THEN 'metadata || ''{"x": 1}''' WHEN c = 'ip' THEN 'coalesce(ip + 1, ''192.0.2.9'')'
			WHEN c IN ('actor_user','id') THEN 'gen_random_uuid()' WHEN c = 'created_at' THEN 'created_at + interval ''1 microsecond'''
			WHEN c = 'actor_type' THEN 'CASE actor_type WHEN ''user'' THEN ''system'' ELSE ''user'' END'
			WHEN c = 'scope' THEN '''admin''' WHEN c = 'status' THEN '''error''' ELSE format('coalesce(%I, '''') || ''x''', c) END) USING t, a;
	ELSIF kind = 3 THEN
		DELETE FROM audit_logs WHERE team_id = t AND seq = a;
	ELSIF kind = 4 THEN
		UPDATE audit_logs SET seq = CASE seq WHEN a THEN a % 41 + 1 ELSE a END WHERE team_id = t AND seq IN (a, a % 41 + 1);
	ELSIF kind = 5 THEN
		SELECT * INTO r FROM audit_logs WHERE team_id = t AND seq = a;
		UPDATE audit_logs SET seq = seq + 1 WHERE team_id = t AND seq > a;
		r.id := gen_random_uuid(); r.created_at := r.created_at + interval '1 microsecond'; r.seq := a + 1; r.prev_hash := r.hash;
		r.hash := audit_hash(r.prev_hash, t, r.seq, r.created_at, r.id, r.actor_type, r.resource_type, r.action, r.event, r.scope,
			r.status, r.request_id, r.pii_digest);
		INSERT INTO audit_logs SELECT r.*;
	ELSIF kind = 6 THEN
		DELETE FROM audit_logs WHERE team_id = t AND seq >= a;
	ELSIF kind = 7 THEN
		DELETE FROM audit_logs WHERE team_id = t AND seq >= a;
		UPDATE audit_heads SET seq = a - 1, hash = coalesce((SELECT l.hash FROM audit_logs l WHERE l.team_id = t AND l.seq = a - 1),
			decode(repeat('00', 32), 'hex')) WHERE team_id = t;
	ELSE
		PERFORM forge(t, a, 'forged');
	END IF;
END $$;
DO $$
DECLARE
	t uuid := current_setting('x.team');
	found int := 0;
	why text;
	a bigint;
	b bigint;
BEGIN
	IF (SELECT reason FROM audit_verify(t, 1, NULL)) IS NOT NULL THEN RAISE 'the chain is broken before'; END IF;
	FOR i IN 1..1000 LOOP
		a := 1 + floor(random() * 41);
		b := floor(random() * 1000);
		BEGIN
			PERFORM tamper(t, i % 9, a, b);
			SELECT reason INTO why FROM audit_verify(t, 1, NULL);
			RAISE EXCEPTION USING ERRCODE = 'XX999', MESSAGE = coalesce(why, 'missed');
		EXCEPTION WHEN SQLSTATE 'XX999' THEN
			IF SQLERRM = 'missed' THEN RAISE WARNING 'missed: kind %, row %, %', i % 9, a, b; ELSE found := found + 1; END IF;
		END;
	END LOOP;
	PERFORM set_config('x.found', found::text, false);
END $$;
DROP FUNCTION tamper(uuid, int, bigint, bigint);
