# tenants.sh - row-level security with the filter removed: SELECT * without WHERE, as the programs' role.
# shellcheck shell=bash

A=11111111-1111-7111-8111-111111111111 B=22222222-2222-7222-8222-222222222222
# Its rows of templates and quotas are everybody's: shipped templates, default limits.
PLATFORM=00000000-0000-0000-0000-000000000000

# as_team TEAM STATEMENT: as hutch_app with that team ('' is none).
as_team() { sql -U hutch_app -c "SET hutch.team = '$1'" -c "$2"; }

# One row per team in each tenant table.
sql <<END >/dev/null
INSERT INTO users (id, email, name, status, source, webauthn_handle) SELECT t::uuid, left(t, 8) || '@x.example', 'x', 'active', 'cli', decode(repeat('00', 32), 'hex') || decode(replace(t, '-', ''), 'hex') || decode(repeat('00', 16), 'hex')
	FROM unnest(ARRAY['$A', '$B']) t;
INSERT INTO teams (id, name, slug, created_by) VALUES ('$A', 'A', 'aaaaaa-aaaaaa', '$A'), ('$B', 'B', 'bbbbbb-bbbbbb', '$B');
INSERT INTO api_keys (id, team_id, kind, created_by, name, key_hash, key_prefix, scopes)
	SELECT t, t, 'personal', t, 'k', sha256(t::text::bytea), 'htc_', '{capsules.view}' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO templates (id, team_id, name) VALUES ('$A', '$A', 't'), ('$B', '$B', 't');
INSERT INTO quotas (team_id, capsules, vcpus, memory_mb, disk_mb) SELECT t, 1, 1, 1, 1 FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO capsules (id, team_id, template_id, template_name, template_version, observed_state, vcpus, memory_mb, disk_size_mb)
	SELECT t, t, '$A', 't', 1, 'stopped', 1, 128, 1024 FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO capsule_ports (capsule_id, port, team_id) SELECT t, 8080, t FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO stream_tickets (token_hash, user_id, key_id, team_id, capsule_id, purpose, expires_at) SELECT sha256(t::text::bytea), t, t, t, t, 'exec', now() + interval '1 hour' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO artifacts (id, kind) VALUES (decode(repeat('ab', 32), 'hex'), 'disk');
INSERT INTO snapshots (id, team_id, name, memory, spec) SELECT t, t, 's', false, '{}' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO snapshot_policies (capsule_id, team_id, cron, next_at) SELECT t, t, '0 0 * * *', now() FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO capsule_images (capsule_id, epoch, team_id, disk_artifact) SELECT t, 1, t, decode(repeat('ab', 32), 'hex') FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO storage_connections (id, team_id, name, endpoint, region, bucket, access_key_id, secret_enc)
	SELECT t, t, 's', 'https://s.example', 'r', 'b', 'k', 'x' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO objects (id, team_id, connection_id, name) SELECT t, t, t, 'o' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO team_roles (id, team_id, name) SELECT t, t, 'r' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO team_invitations (id, team_id, token_hash, role, expires_at) SELECT t, t, sha256(t::text::bytea), 'member', now() FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO api_key_usage (key_id, team_id, hour, route, status, requests) SELECT t, t, now(), 'x', 200, 1 FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO audit_forgotten (batch, team_id, seq, digest) SELECT -1, t, 0, sha256('x') FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO audit_checkpoints (team_id, seq, hash, at, key_id, signature) SELECT t, 0, 'x', now(), 'x', 'x' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO capsule_metrics (team_id, capsule_id, tier, from_at, step_ms, cpu, mem, mem_guest, disk, rx, tx, rd, wr)
	SELECT t, t, '10m', now(), 1000, '{1}', '{1}', '{1}', '{1}', '{1}', '{1}', '{1}', '{1}' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO team_metric_snapshots SELECT t, now(), 1, 1, 1 FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO events (id, team_id, type, category, actor_type) SELECT t, t, 'x.y', 'x', 'system' FROM teams t(t) WHERE t IN ('$A', '$B');
INSERT INTO jobs (id, kind, queue, priority, team_id, actor_type) SELECT t, 'x', 'fast', 50, t, 'system' FROM teams t(t) WHERE t IN ('$A', '$B');
SELECT audit_append(t, t, 'system', NULL, '', NULL, NULL, 'team', NULL, 'create', NULL, 'team', 'success', '{}', NULL, NULL, NULL)
	FROM teams t(t) WHERE t IN ('$A', '$B');
END

tenant_tables=$(sql -c "SELECT relname FROM pg_class WHERE relrowsecurity AND relnamespace = 'public'::regnamespace ORDER BY 1")

# Each has rows of both teams, and shows each team only its own.
only_own() {
	equals 2 sql -c "SELECT count(DISTINCT team_id) FROM $1 WHERE team_id IN ('$A', '$B')" &&
		equals "$A" as_team "$A" "SELECT DISTINCT team_id FROM $1 WHERE team_id <> '$PLATFORM'" &&
		equals "$B" as_team "$B" "SELECT DISTINCT team_id FROM $1 WHERE team_id <> '$PLATFORM'"
}

nobody_sees_nothing() {
	equals 0 as_team '' "SELECT count(*) FROM $1 WHERE team_id <> '$PLATFORM'" &&
		equals 0 sql -U hutch_app -c "SELECT count(*) FROM $1 WHERE team_id <> '$PLATFORM'" &&
		equals 0 as_team "$PLATFORM" "SELECT count(*) FROM $1 WHERE team_id IN ('$A', '$B')"
}

# Rows of the other team can be neither changed, nor removed, nor made one's own, nor given away.
no_reach() {
	refused 'permission denied' as_team "$A" "UPDATE $1 SET team_id = team_id" >/dev/null ||
		{ equals "" as_team "$A" "WITH u AS (UPDATE $1 SET team_id = team_id WHERE team_id = '$B' RETURNING 1) SELECT 1 FROM u" &&
			refused 'row-level security' as_team "$A" "UPDATE $1 SET team_id = '$B'"; } || return 1
	refused 'permission denied' as_team "$A" "DELETE FROM $1 WHERE team_id = '$B'" >/dev/null ||
		equals "" as_team "$A" "WITH d AS (DELETE FROM $1 WHERE team_id = '$B' RETURNING 1) SELECT 1 FROM d"
}

for table in $tenant_tables; do
	check "rows of $table are only the team's own, without any filter" only_own "$table"
	check "rows of $table: no team, no rows" nobody_sees_nothing "$table"
	check "rows of $table: no reach into another team" no_reach "$table"
done
check "the tables of capsules, keys, jobs, events and audit are tenant tables" equals "api_keys audit_logs capsules events jobs" \
	sql -c "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relrowsecurity AND relname IN ('api_keys','audit_logs','capsules','events','jobs')"
shown() {
	sql -c "UPDATE templates SET visibility = 'public' WHERE team_id = '$A'" && equals "$A" as_team "$B" "SELECT team_id FROM templates WHERE team_id = '$A'" &&
		equals "" as_team "$B" "WITH u AS (UPDATE templates SET visibility = 'team' WHERE team_id = '$A' RETURNING 1) SELECT 1 FROM u" &&
		equals 1 as_team "$A" "WITH u AS (UPDATE templates SET visibility = 'team' RETURNING 1) SELECT count(*) FROM u" &&
		equals "" as_team "$B" "SELECT team_id FROM templates WHERE team_id = '$A'"
}
check "a template that a team shows is read by others, and changed by its own alone" shown
check "a key cannot be made in another team" refused 'row-level security' as_team "$A" \
	"INSERT INTO api_keys (id, team_id, kind, name, key_hash, key_prefix, scopes) VALUES (gen_random_uuid(), '$B', 'personal', 'k', sha256('x'), 'htc_', '{x}')"
check "a capsule cannot be made in another team" refused 'row-level security' as_team "$A" \
	"INSERT INTO capsules (id, team_id, template_id, template_name, template_version, observed_state, vcpus, memory_mb, disk_size_mb) VALUES (gen_random_uuid(), '$B', '$A', 't', 1, 'stopped', 1, 128, 1024)"
check "a malformed team is an error, not everything" refused 'invalid input syntax' as_team "x'' OR ''1" 'SELECT * FROM capsules'
for part in $(sql -c "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent WHERE p.relrowsecurity AND c.relkind = 'r'"); do
	check "partition $part is no way around" refused 'permission denied' as_team "$A" "SELECT * FROM $part"
done
for role in hutch_app hutch_work; do
	check "$role cannot make tables" refused 'permission denied' sql -U "$role" -c 'CREATE TABLE public.x (a int)'
	check "$role cannot switch row-level security off" refused 'must be owner' sql -U "$role" -c 'ALTER TABLE capsules DISABLE ROW LEVEL SECURITY'
	check "$role cannot become the owner" refused 'permission denied' sql -U "$role" -c 'SET ROLE hutch_owner'
	for change in 'UPDATE audit_logs SET action = action' 'DELETE FROM audit_logs' 'TRUNCATE audit_logs' 'UPDATE audit_heads SET seq = 0' \
		'INSERT INTO audit_logs SELECT * FROM audit_logs' 'ALTER TABLE audit_logs DISABLE TRIGGER ALL'; do
		check "$role: $change" refused 'permission denied\|must be owner' sql -U "$role" -c "$change"
	done
done

# What hutch_app may read with a team_id and without row-level security: its queries must name the team. It may only shrink.
known="hosts login_sessions users_teams"
check "tables with a team but without row-level security are the known ones" equals "$known" sql -c "SELECT string_agg(c.relname, ' ' ORDER BY c.relname)
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'team_id' WHERE c.relkind IN ('r','p') AND NOT c.relispartition
	AND c.relnamespace = 'public'::regnamespace AND NOT c.relrowsecurity AND has_table_privilege('hutch_app', c.oid, 'SELECT')"
