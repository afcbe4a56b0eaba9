# database.sh - a private PostgreSQL for one test, ended with it; sourced by tests/sql/run.
#
# Unix socket only, in a folder under /tmp; the server's superuser is hutch_super.
# shellcheck shell=bash

# The server's programs, or status 77: skipped.
find_postgres() {
	PG=$(find /usr/lib/postgresql/*/bin /usr/pgsql-*/bin -name initdb 2>/dev/null | sort -V | tail -n 1 || true)
	[ -n "$PG" ] || PG=$(command -v initdb || true)
	if [ -z "$PG" ] || ! command -v psql >/dev/null; then
		echo "skip sql: PostgreSQL's server or psql is not installed"
		exit 77
	fi
	PG=$(dirname "$(realpath "$PG")")
}

# As nobody but root may: the server refuses to run as root.
as_server() {
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups "$@"
	else
		"$@"
	fi
}

start_postgres() {
	DIR=$(mktemp -d /tmp/hutch-sql-XXXXXX)
	trap stop_postgres EXIT
	trap 'exit 1' INT TERM
	mkdir -m 700 "$DIR/pg"
	[ "$(id -u)" != 0 ] || chown postgres "$DIR" "$DIR/pg"
	chmod 755 "$DIR"
	cd "$DIR" || return 1
	as_server "$PG/initdb" -D "$DIR/pg" -U hutch_super -A trust -E UTF8 --locale=C.UTF-8 -N >"$DIR/log" 2>&1 || { cat "$DIR/log" && return 1; }
	as_server "$PG/pg_ctl" -D "$DIR/pg" -w -l "$DIR/server.log" \
		-o "-c listen_addresses= -k $DIR -c fsync=off -c shared_buffers=16MB" start >>"$DIR/log" 2>&1 || { cat "$DIR/server.log" && return 1; }
	sql -d postgres -c 'CREATE ROLE hutch_owner LOGIN CREATEROLE' -c 'CREATE DATABASE hutch OWNER hutch_owner'
	(umask 077 && printf '%064d\n' 7 >"$DIR/master.key")
	cat >"$DIR/hutch.conf" <<-END
		db {
			owner_url = "host=$DIR dbname=hutch user=hutch_owner"
		}
		secrets {
			master_file = "$DIR/master.key"
		}
		audit {
			checkpoint_file = "$DIR/checkpoints"
		}
	END
}

stop_postgres() {
	cd / || true
	as_server "$PG/pg_ctl" -D "$DIR/pg" -m immediate stop >/dev/null 2>&1 || true
	rm -rf "$DIR"
}

# sql [-U ROLE] [-d DB] -c STATEMENT: as the superuser unless told otherwise; plain output.
sql() { PGHOST=$DIR PGUSER=hutch_super PGDATABASE=hutch PGOPTIONS='-c client_min_messages=warning' psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
