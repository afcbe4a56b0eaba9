# audit.sh - the audit chain: what even the superuser cannot change without being found.
# shellcheck shell=bash

# Five more rows in team A's chain.
for i in 1 2 3 4 5; do
	sql -U hutch_app -c "SELECT audit_append(gen_random_uuid(), '$A', 'user', 'usr-x', 'Ann', NULL, NULL, 'team', 't$i', 'update', NULL, 'team', 'info', '{\"n\": $i}', '192.0.2.1', 'curl', 'r$i')" >/dev/null
done

good() { ctl audit verify | grep -q ' 0 chains broken'; }

# found WORDS STATEMENT: done by the superuser with the trigger off, it is found; then all is put back.
found() {
	local rc=0

	sql -c 'CREATE TABLE kept AS SELECT * FROM audit_logs' -c 'CREATE TABLE kept_heads AS SELECT * FROM audit_heads' \
		-c "SET session_replication_role = replica" -c "$2"
	ctl audit verify >"$DIR/verify" 2>&1 && echo "it was not found" && rc=1
	grep -q "^team-.*: row .*$1" "$DIR/verify" || { cat "$DIR/verify" && rc=1; }
	sql -c "SET session_replication_role = replica" -c 'DELETE FROM audit_logs' -c 'INSERT INTO audit_logs SELECT * FROM kept' \
		-c 'DELETE FROM audit_heads' -c 'INSERT INTO audit_heads SELECT * FROM kept_heads' -c 'DROP TABLE kept, kept_heads'
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
