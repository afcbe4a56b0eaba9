# audit.sh - the audit chain: what even the superuser cannot change without being found.
# shellcheck shell=bash

# Five more rows in team A's chain.
for i in 1 2 3 4 5; do
	sql -U hutch_app -c "SELECT audit_append(gen_random_uuid(), '$A', 'user', 'usr-x', 'Ann', NULL, NULL, 'team', 't$i', 'update', NULL, 'team', 'info', '{\"n\": $i}', '192.0.2.1', 'curl', 'r$i')" >/dev/null
done

sql -c "DELETE FROM audit_forgotten" # of tenants.sh: in no batch

good() { ctl audit verify | grep -q ' 0 chains broken'; }

# found WORDS STATEMENT: done by the superuser with the trigger off, it is found; then all is put back.
found() {
	local rc=0

	sql -c 'CREATE TABLE kept AS SELECT * FROM audit_logs' -c 'CREATE TABLE kept_heads AS SELECT * FROM audit_heads' \
		-c 'CREATE TABLE kept_forgotten AS SELECT * FROM audit_forgotten' -c "SET session_replication_role = replica" -c "$2"
	ctl audit verify >"$DIR/verify" 2>&1 && echo "it was not found" && rc=1
	grep -q "^team-.*: row .*$1" "$DIR/verify" || { cat "$DIR/verify" && rc=1; }
	sql -c "SET session_replication_role = replica" -c 'DELETE FROM audit_logs' -c 'INSERT INTO audit_logs SELECT * FROM kept' \
		-c 'DELETE FROM audit_heads' -c 'INSERT INTO audit_heads SELECT * FROM kept_heads' \
		-c 'DELETE FROM audit_forgotten' -c 'INSERT INTO audit_forgotten SELECT * FROM kept_forgotten' -c 'DROP TABLE kept, kept_heads, kept_forgotten'
	good && return $rc
}

check "an honest chain verifies" good
check "the owner cannot change a row" refused 'append-only' sql -U hutch_owner -c "UPDATE audit_logs SET action = 'x'"
check "the owner cannot remove a row" refused 'append-only' sql -U hutch_owner -c 'DELETE FROM audit_logs'
check "the owner cannot empty the log" refused 'append-only' sql -U hutch_owner -c 'TRUNCATE audit_logs'
mine="team_id = '$A' AND seq"
check "found: a changed action" found 'hash differs' "UPDATE audit_logs SET action = 'delete' WHERE $mine = 3"
check "found: a changed status" found 'hash differs' "UPDATE audit_logs SET status = 'error' WHERE $mine = 3"
check "found: a changed time" found 'hash differs' "UPDATE audit_logs SET created_at = created_at + interval '1 microsecond' WHERE $mine = 3"
check "found: another actor" found 'differ' "UPDATE audit_logs SET actor_name = 'Bob' WHERE $mine = 3"
check "found: changed metadata" found 'differ' "UPDATE audit_logs SET metadata = '{\"n\": 9}' WHERE $mine = 3"
check "found: another address" found 'differ' "UPDATE audit_logs SET ip = '192.0.2.2' WHERE $mine = 3"
check "found: a digest and fields changed together" found 'hash differs' "UPDATE audit_logs SET actor_name = 'Bob', pii_digest = audit_pii(salt, actor_id, 'Bob', actor_user, subject_user, resource_id, metadata, ip, user_agent) WHERE $mine = 3"
check "found: a row removed" found 'not dense' "DELETE FROM audit_logs WHERE $mine = 3"
check "found: the first row removed" found 'not dense' "DELETE FROM audit_logs WHERE $mine = 1"
check "found: the tail cut" found 'tail' "DELETE FROM audit_logs WHERE $mine > 4"
check "found: two rows exchanged" found 'differs' "UPDATE audit_logs SET seq = CASE seq WHEN 2 THEN 3 ELSE 2 END WHERE $mine IN (2, 3)"
check "found: a row given to another team" found 'not dense\|differs\|tail' "UPDATE audit_logs SET team_id = '$B', seq = 2 WHERE $mine = 6"
check "found: a hash made anew without those behind it" found 'prev_hash differs' "UPDATE audit_logs SET action = 'x', hash = audit_hash(prev_hash, team_id, seq, created_at, id, actor_type, resource_type, 'x', event, scope, status, request_id, pii_digest) WHERE $mine = 3"
check "found: the head set back with the tail" found 'tail' "UPDATE audit_heads SET seq = seq - 1 WHERE team_id = '$A'"

# Signed checkpoints: a suffix that was computed again to the end, with its head, is whole in itself.
checkpoint() { ctl audit checkpoint >/dev/null; }
with_copy() { ctl audit verify --checkpoints "$DIR/copy" | grep -q ' 0 chains broken'; }
check "the ends of all chains are signed" checkpoint
check "… and nothing more until they grow" equals "0 checkpoints in $DIR/checkpoints" ctl audit checkpoint
cp "$DIR/checkpoints" "$DIR/copy"
check "chains and checkpoints verify" good
check "… also against a copy of the file" with_copy

# The whole suffix from a row on, as somebody would compute it who can do everything in the database.
sql <<'END'
CREATE FUNCTION forge(f_team uuid, f_from bigint, f_action text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	r audit_logs;
	prev bytea;
BEGIN
	SELECT hash INTO prev FROM audit_logs WHERE team_id = f_team AND seq = f_from - 1;
	prev := coalesce(prev, decode(repeat('00', 32), 'hex'));
	FOR r IN SELECT * FROM audit_logs WHERE team_id = f_team AND seq >= f_from ORDER BY seq LOOP
		IF r.seq = f_from THEN r.action := f_action; END IF;
		r.hash := audit_hash(prev, r.team_id, r.seq, r.created_at, r.id, r.actor_type, r.resource_type, r.action, r.event,
			r.scope, r.status, r.request_id, r.pii_digest);
		UPDATE audit_logs SET action = r.action, prev_hash = prev, hash = r.hash WHERE team_id = f_team AND seq = r.seq;
		prev := r.hash;
	END LOOP;
	UPDATE audit_heads SET hash = prev WHERE team_id = f_team;
END $$;
END
check "found: a suffix computed again" found 'checkpoint' "SELECT forge('$A', 3, 'forged')"

# in_copy WORDS STATEMENT: done to rows, heads and checkpoints, and verified with the copy of the file.
in_copy() {
	local rc=0

	sql -c 'CREATE TABLE kept AS SELECT * FROM audit_logs' -c 'CREATE TABLE kept_heads AS SELECT * FROM audit_heads' \
		-c 'CREATE TABLE kept_marks AS SELECT * FROM audit_checkpoints' -c "SET session_replication_role = replica" -c "$2" >/dev/null
	ctl audit verify --checkpoints "$DIR/copy" >"$DIR/verify" 2>&1 && echo "it was not found" && rc=1
	grep -q "^team-.*: row .*$1" "$DIR/verify" || { cat "$DIR/verify" && rc=1; }
	sql -c "SET session_replication_role = replica" -c 'DELETE FROM audit_logs' -c 'INSERT INTO audit_logs SELECT * FROM kept' \
		-c 'DELETE FROM audit_heads' -c 'INSERT INTO audit_heads SELECT * FROM kept_heads' -c 'DELETE FROM audit_checkpoints' \
		-c 'INSERT INTO audit_checkpoints SELECT * FROM kept_marks' -c 'DROP TABLE kept, kept_heads, kept_marks'
	good && return $rc
}
check "found by the copy: a suffix computed again, its checkpoints removed" in_copy 'differs from its checkpoint' \
	"SELECT forge('$A', 3, 'forged'); DELETE FROM audit_checkpoints"
check "found by the copy: the tail cut, head and checkpoints with it" in_copy 'no row' \
	"DELETE FROM audit_logs WHERE team_id = '$A' AND seq > 3; DELETE FROM audit_checkpoints; UPDATE audit_heads SET seq = 3, hash = (SELECT hash FROM audit_logs WHERE team_id = '$A' AND seq = 3) WHERE team_id = '$A'"
check "found by the copy: a whole chain emptied" in_copy 'no row' \
	"DELETE FROM audit_logs WHERE team_id = '$A'; DELETE FROM audit_checkpoints; UPDATE audit_heads SET seq = 0, hash = decode(repeat('00', 32), 'hex') WHERE team_id = '$A'"
check "found: a chain without its head" found 'tail' "DELETE FROM audit_heads WHERE team_id = '$A'"
check "found: a checkpoint that was changed" in_copy 'forged' "UPDATE audit_checkpoints SET hash = sha256('x') WHERE team_id = '$A' AND seq > 0"
check "found: a checkpoint of another signer" in_copy 'not believed' "UPDATE audit_checkpoints SET key_id = '00000000' WHERE team_id = '$A' AND seq > 0"
check "found: fields changed and half called anonymised" found 'disagree' "UPDATE audit_logs SET actor_name = 'Bob', salt = NULL WHERE $mine = 3"

# A person is taken out of rows; what they say since is in the log, too.
GONE='00000000-0000-7000-8000-0000000000cc'
GONE2='00000000-0000-7000-8000-0000000000cd'
append_as() {
	sql -U hutch_app -c "SELECT audit_append(gen_random_uuid(), '$1', 'user', 'usr-x', '$2', '$3', '$4', 'team', 't', 'rename', NULL, 'team', 'info', '{\"name\": \"n\", \"kept\": 1}', '192.0.2.1', 'curl', 'r')" >/dev/null
}
forget() {
	sql -U hutch_work -c "WITH f AS (SELECT * FROM audit_anonymise('$1', 100)) SELECT audit_append(gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 'system', NULL, '', NULL, NULL, 'audit', NULL, 'anonymise', NULL, 'admin', 'info', jsonb_build_object('rows', n, 'batch', batch, 'digest', digest), NULL, NULL, NULL) FROM f" >/dev/null
}
append_as "$A" Gone "$GONE" "$GONE2"
append_as "$B" Gone2 "$GONE2" "$GONE"
forget "$GONE"
gone="anonymised_at IS NOT NULL AND team_id"
check "rows of which a person was taken out verify" good
check "… his name is in none" equals 0 sql -c "SELECT count(*) FROM audit_logs WHERE actor_name = 'Gone' OR actor_user = '$GONE' OR subject_user = '$GONE'"
forget "$GONE2"
check "… also when another one goes out of the same rows" good
check "found: the name put back into an anonymised row" found 'anonymising left' "UPDATE audit_logs SET actor_name = 'Gone', actor_user = '$GONE' WHERE $gone = '$A'"
check "found: changed metadata of an anonymised row" found 'anonymising left' "UPDATE audit_logs SET metadata = '{}' WHERE $gone = '$A'"
check "found: a row called anonymised that nobody did" found 'anonymising left' "UPDATE audit_logs SET actor_name = 'Bob', salt = NULL, anonymised_at = now() WHERE $mine = 3"

said="audit_pii(''::bytea, a.actor_id, a.actor_name, a.actor_user, a.subject_user, a.resource_id, a.metadata, a.ip, a.user_agent)"
check "found: the same, with what anonymising wrote down" found 'differ from its digest' \
	"UPDATE audit_logs SET actor_name = 'Gone' WHERE $gone = '$A'; UPDATE audit_forgotten f SET digest = $said FROM audit_logs a WHERE a.team_id = f.team_id AND a.seq = f.seq AND a.team_id = '$A'"
check "found: the same, with a batch made up" found 'in no row' \
	"UPDATE audit_logs SET actor_name = 'Gone' WHERE $gone = '$A'; INSERT INTO audit_forgotten SELECT 99, a.team_id, a.seq, $said FROM audit_logs a WHERE a.anonymised_at IS NOT NULL AND a.team_id = '$A'"

# A thousand tampers of chance, each in a subtransaction that is rolled back.
sql -c "SELECT count(audit_append(gen_random_uuid(), '$B', 'user', 'usr-x', 'Ann', gen_random_uuid(), NULL, 'team', 't' || i, 'update', 'team.updated', 'team', 'info', jsonb_build_object('n', i), '192.0.2.1', 'curl', 'r' || i)) FROM generate_series(1, 40) i" >/dev/null
checkpoint
thousand() {
	sql -c "SET session_replication_role = replica" -c "SET x.team = '$B'" -f "$here/tamper.sql" -c "SELECT current_setting('x.found')"
}
check "found: 1000 of 1000 random edits, flipped bits, removals, swaps, insertions, cut tails and suffixes computed again" equals 1000 thousand
check "… and the chain is whole again" good
locked_head() {
	local rc=0

	sql -c 'BEGIN' -c "SELECT seq FROM audit_heads WHERE team_id = '$B' FOR UPDATE" -c 'SELECT pg_sleep(300)' >/dev/null 2>&1 &
	until [ "$(sql -c "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)'")" = 1 ]; do
		sleep 0.1
	done
	refused 'canceling statement' sql -U hutch_app -c "SET statement_timeout = 500" \
		-c "SELECT audit_append(gen_random_uuid(), '$B', 'user', 'usr-x', 'Ann', NULL, NULL, 'team', 't', 'update', NULL, 'team', 'info', '{}', NULL, NULL, NULL)" || rc=1
	sql -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)'" >/dev/null
	wait
	return $rc
}
check "a locked head: no row, and so no change" locked_head
