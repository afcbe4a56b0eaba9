# migrations.sh - hutchctl migrate: from nothing, again, four at once, and with a changed file.
# shellcheck shell=bash

four_at_once() {
	local i pids='' bad=0

	for i in 1 2 3 4; do
		ctl migrate >"$DIR/migrate.$i" 2>&1 &
		pids="$pids $!"
	done
	for i in $pids; do
		wait "$i" || bad=1
	done
	cat "$DIR"/migrate.?
	[ $bad = 0 ] && [ "$(cat "$DIR"/migrate.? | grep -c '^applied 0001')" = 1 ]
}

schema() {
	as_server "$PG/pg_dump" -h "$DIR" -U hutch_super -s hutch | grep -v '^.restrict\|^.unrestrict'
}

again() {
	schema >"$DIR/schema.1"
	ctl migrate | grep -q 'up to date' && schema >"$DIR/schema.2" && cmp "$DIR/schema.1" "$DIR/schema.2"
}

all_applied() { ctl migrate --status | awk '$1 != "applied" { print; bad = 1 } END { exit bad || NR < 3 }'; }

changed() {
	local rc=0

	sql -c "UPDATE schema_migrations SET sha256 = 'x' || substr(sha256, 2) WHERE number = 2"
	refused 'changed after it was applied' ctl migrate || rc=1
	sql -c "UPDATE schema_migrations SET sha256 = '$1' WHERE number = 2"
	ctl migrate >/dev/null && return $rc
}

check "migrate, four at once on an empty database" four_at_once
check "migrate again changes nothing" again
check "migrate --status" all_applied
check "a migration changed after it was applied is refused" changed "$(sql -c 'SELECT sha256 FROM schema_migrations WHERE number = 2')"
check "the schema belongs to the owner, not to the programs" equals hutch_owner \
	sql -c "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
check "the programs' roles are members of nothing" equals 0 \
	sql -c "SELECT count(*) FROM pg_auth_members WHERE member IN ('hutch_app'::regrole, 'hutch_work'::regrole)"
check "the programs' roles have no special rights" equals 0 \
	sql -c "SELECT count(*) FROM pg_roles WHERE rolname IN ('hutch_app','hutch_work') AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)"
check "functions that run as the owner have their own search_path" equals '' \
	sql -c "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef AND NOT coalesce(array_to_string(proconfig, ' ') ~ 'search_path=', false)"
check "functions that run as the owner are not for everybody" equals '' \
	sql -c "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef AND has_function_privilege('public', oid, 'EXECUTE') AND prorettype <> 'trigger'::regtype"
