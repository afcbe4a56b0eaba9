# instance.sh - one private instance: its configuration, PostgreSQL, Redis, programs; sourced by quickstart.
#
# Uses what quickstart knows: TOP, PREFIX (where make install put things), RUN, SOCK, CONF, ACCOUNT, DEV.
# shellcheck shell=bash disable=SC2153,SC2154  # those names

# shellcheck source=tools/authority.sh
. "$TOP/tools/authority.sh"

# ---- configuration ----

choose_port() {
	PORT=$(cat "$RUN/state/port" 2>/dev/null || echo 8080)
	! part_gone lighttpd || PORT=$(free_port "$PORT")
	echo "$PORT" >"$RUN/state/port"
	URL=http://localhost:$PORT
	PUBLIC_URL=$URL DOMAIN=localhost:$PORT
	[ -z "$TLS" ] || touch "$RUN/state/tls"
	[ ! -e "$RUN/state/tls" ] || choose_tls_port
}

# With TLS: one more port, and names under a domain of this machine's own. The plain one stays; it stays the public
# address, too, with HUTCH_PLAIN_URL (tests: most of them speak to it).
choose_tls_port() {
	TLS=1
	TLS_PORT=$(cat "$RUN/state/tls_port" 2>/dev/null || echo $((PORT + 363)))
	! part_gone lighttpd || TLS_PORT=$(free_port "$TLS_PORT")
	echo "$TLS_PORT" >"$RUN/state/tls_port"
	DOMAIN=$TLS_NAME:$TLS_PORT TLS_URL=https://api.$TLS_NAME:$TLS_PORT
	[ -n "${HUTCH_PLAIN_URL:-}" ] || PUBLIC_URL=$TLS_URL
}

secret_file() { # NAME BYTES: made once, for the programs only
	[ -s "$RUN/secret/$1" ] ||
		(umask 077 && openssl rand -hex "$2" >"$RUN/secret/$1.new" && mv "$RUN/secret/$1.new" "$RUN/secret/$1")
	chown "$ACCOUNT:" "$RUN/secret/$1"
}

write_config() {
	secret_file master.key 32
	secret_file admin.password 12
	cat >"$CONF.new" <<-END
		# hutch.conf - of the private instance in $RUN; written by quickstart at every start; local.conf is added.
		http {
			public_url = "$PUBLIC_URL"
		}
		proxy {
			domain = "$DOMAIN"
		}
		db {
			url = "host=$SOCK dbname=hutch user=hutch_app"
			work_url = "host=$SOCK dbname=hutch user=hutch_work"
			owner_url = "host=$SOCK dbname=hutch user=hutch_owner"
		}
		redis {
			socket = "$SOCK/redis.sock"
		}
		secrets {
			master_file = "$RUN/secret/master.key"
		}
		api {
			ops_socket = "$SOCK/ops.sock"
		}
		audit {
			checkpoint_file = "$RUN/tmp/audit-checkpoints"
		}
		mail {
			dir = "$RUN/mail"
		}
		gateway {
			socket = "$SOCK/gateway.sock"
		}
		# A machine to try things on: capsules idle, so that it promises more than it has.
		host {
			overcommit_memory_percent = 200
			overcommit_cpu_tcg_percent = 400
		}
		agent {
			user = "$ACCOUNT"
			socket = "$SOCK/agent.sock"
			state_dir = "$RUN/agent"
			image_dir = "$RUN/images"
			# Every instance on a machine has user ids of its own.
			uid_first = $((1000000 + PORT * 200))
			uid_count = 200
			min_free_disk_gb = 2
			control_url = "$URL"
			token_file = "$RUN/secret/host.token"
			name = "quickstart"
		}
	END
	[ -z "$DEV" ] || cat >>"$CONF.new" <<-END
		auth {
			rate_limits = false
			hash_cost = 1
		}
		# an emulated machine beside others that take all processors
		agent {
			boot_timeout_sec = 300
		}
		# for tests/http/oauth.py, whose provider runs on this machine
		oauth {
			private_networks = "127.0.0.1/32"
			ca_file = "$RUN/oauth-ca.pem"
		}
	END
	[ ! -e "$RUN/local.conf" ] || cat "$RUN/local.conf" >>"$CONF.new"
	if cmp -s "$CONF.new" "$CONF"; then
		rm "$CONF.new"
	else
		mv "$CONF.new" "$CONF"
	fi
}

write_web_config() {
	install -D -m 644 "$TOP/docs/openapi.json" "$RUN/docs/openapi.json"
	"$TOP/tools/fill" "$PREFIX/share/hutch/conf/lighttpd/hutch.conf.in" PORT="$PORT" BIND=127.0.0.1 SOCK="$SOCK" \
		WWW="$PREFIX/share/hutch/www" WEB="$PREFIX/share/hutch/web" DOCS="$RUN/docs" CONF="$PREFIX/share/hutch/conf" \
		RUN="$RUN" LOG="$RUN/log" TMP="$RUN/tmp" >"$RUN/lighttpd.conf"
	if [ -n "$TLS" ]; then
		make_certificate
		"$TOP/tools/fill" "$PREFIX/share/hutch/conf/lighttpd/tls.conf.in" BIND=127.0.0.1 TLS_PORT="$TLS_PORT" \
			CERT="$RUN/tls/server.pem" KEY="$RUN/tls/server.key" >>"$RUN/lighttpd.conf"
	fi
	touch "$RUN/log/lighttpd-error.log" "$RUN/log/lighttpd-access.log" "$RUN/pid/lighttpd.pid"
	chown "$ACCOUNT:" "$RUN/log/lighttpd-error.log" "$RUN/log/lighttpd-access.log" "$RUN/pid/lighttpd.pid"
}

# ---- PostgreSQL and Redis ----

as_account() { setpriv --reuid="$ACCOUNT" --regid="$(id -g "$ACCOUNT")" --init-groups "$@"; }

sql() { as_account "$PG/psql" -qAtX -v ON_ERROR_STOP=1 -h "$SOCK" -U hutch_super "$@"; }

postmaster_reaped() { [ ! -s "$RUN/pg/postmaster.pid" ] || [ ! -e "/proc/$(head -n 1 "$RUN/pg/postmaster.pid")" ]; }

start_postgres() {
	PG=$(pg_bindir)
	if [ ! -s "$RUN/pg/PG_VERSION" ]; then
		say "making the database cluster in $RUN/pg"
		rm -rf "$RUN/pg"
		install -d -m 700 -o "$ACCOUNT" -g "$(id -gn "$ACCOUNT")" "$RUN/pg"
		as_account "$PG/initdb" -D "$RUN/pg" -U hutch_super -A trust -E UTF8 --locale=C.UTF-8 >"$RUN/log/initdb.log" 2>&1 ||
			{ rm -rf "$RUN/pg"; tail -n 5 "$RUN/log/initdb.log" >&2; die "initdb failed, see above"; }
	fi
	[ "$(cat "$RUN/pg/PG_VERSION")" = "$(basename "$(dirname "$PG")")" ] ||
		die "$RUN/pg was made by PostgreSQL $(cat "$RUN/pg/PG_VERSION"), installed is $PG"
	# The socket's folder belongs to the account and has mode 0700: who reaches it is the account or root.
	chmod 700 "$SOCK"
	# Killed a moment ago, it may still be in the table of processes, and a new one would refuse to start.
	! part_gone postgres || until_true 15 postmaster_reaped || true
	start_part postgres "$ACCOUNT" "$PG/postgres" -D "$RUN/pg" -c listen_addresses= -c unix_socket_directories="$SOCK" \
		-c max_connections=200 -c logging_collector=off -c cluster_name=hutch
	wait_for postgres 60 "PostgreSQL answers" sql -d postgres -c 'SELECT 1'
	[ "$(sql -d postgres -c "SELECT count(*) FROM pg_roles WHERE rolname = 'hutch_owner'")" = 1 ] ||
		sql -d postgres -c 'CREATE ROLE hutch_owner LOGIN CREATEROLE'
	[ "$(sql -d postgres -c "SELECT count(*) FROM pg_database WHERE datname = 'hutch'")" = 1 ] ||
		sql -d postgres -c 'CREATE DATABASE hutch OWNER hutch_owner'
}

redis_answers() { [ "$(redis-cli -s "$SOCK/redis.sock" ping)" = PONG ]; }

start_redis() {
	start_part redis "$ACCOUNT" redis-server --port 0 --unixsocket "$SOCK/redis.sock" --unixsocketperm 700 --save '' \
		--appendonly no --dir "$RUN/redis" --daemonize no
	wait_for redis 20 "Redis answers" redis_answers
}

# ---- Hutch ----

ctl() { as_account "$(program hutchctl)" -c "$CONF" "$@"; }

# once NAME FUNCTION: what must be done once in the life of the data.
once() {
	[ -e "$RUN/state/$1" ] || { "$2" && touch "$RUN/state/$1"; }
}

migrate() {
	say "bringing the schema up to date"
	ctl migrate >>"$RUN/log/hutchctl.log" 2>&1 || { tail -n 5 "$RUN/log/hutchctl.log" >&2; die "hutchctl migrate failed, see above"; }
}

ADMIN=admin@hutch.localhost

make_admin() { ctl admin create --email "$ADMIN" --name Admin --password-file "$RUN/secret/admin.password"; }

make_keys() {
	ctl key create --email "$ADMIN" --name quickstart >"$RUN/secret/key"
	ctl key create --email "$ADMIN" --name e2b --prefix e2b >"$RUN/secret/e2b.key"
}

make_host() { ctl host create --name quickstart >"$RUN/secret/host.token" && chown "$ACCOUNT:" "$RUN/secret/host.token"; }

# Every template that was built: minimal and base always, others by whoever ran images/build.
add_template() {
	local dir name

	for dir in "$RUN"/images/*/; do
		name=$(basename "$dir")
		# what was registered for a team stays its own
		[ "$(sql -d hutch -c "SELECT count(*) FROM templates WHERE deleted_at IS NULL AND name = '$name' AND team_id <> '00000000-0000-0000-0000-000000000000'")" = 0 ] ||
			continue
		ctl template add --name "$name" --dir "${dir%/}" >>"$RUN/log/hutchctl.log"
	done
}

start_hutch() {
	local agent

	agent=$(program hutch-agent)
	start_part api "$ACCOUNT" "$(program hutch-api)" -c "$CONF" -m 0 -p api --listen "$SOCK/api.sock"
	start_part ops "$ACCOUNT" "$(program hutch-api)" -c "$CONF" -m 0 -p ops --listen "$SOCK/ops.sock"
	start_part worker "$ACCOUNT" "$(program hutch-worker)" -c "$CONF"
	start_part gateway "$ACCOUNT" "$(program hutch-gateway)" -c "$CONF"
	start_part lighttpd "$ACCOUNT" /usr/sbin/lighttpd -D -f "$RUN/lighttpd.conf"
	wait_for api 60 "the API answers" test -S "$SOCK/api.sock"
	wait_for ops 60 "the operations pool answers" test -S "$SOCK/ops.sock"
	wait_for gateway 60 "the gateway answers" test -S "$SOCK/gateway.sock"
	wait_for lighttpd 60 "the web server listens on port $PORT" part_listens lighttpd "$PORT"
	[ -z "$TLS" ] || wait_for lighttpd 60 "the web server listens on port $TLS_PORT" part_listens lighttpd "$TLS_PORT"
	wait_for lighttpd 60 "$URL/v1/health answers" curl -fsS -m 5 "$URL/v1/health"
	start_part agent root "$agent" -c "$CONF"
	wait_for agent 180 "the host agent knows its accelerator and template" agent_ready
}

agent_call() { curl -fsS -m 5 --http2-prior-knowledge --unix-socket "$SOCK/agent.sock" "$@"; }

agent_info() { agent_call http://agent/agent/v1/info; }

agent_ready() { agent_info | grep -q minimal; }

write_env() {
	(umask 077 && cat >"$RUN/env.new") <<-END
		export HUTCH_URL=$URL
		export HUTCH_DOMAIN=$DOMAIN
		export HUTCH_API_KEY=$(cat "$RUN/secret/key")
		export HUTCH_ADMIN_EMAIL=$ADMIN
		export HUTCH_ADMIN_PASSWORD=$(cat "$RUN/secret/admin.password")
		$(e2b_env)
		export E2B_API_KEY=$(cat "$RUN/secret/e2b.key")
		export E2B_DOCS_BASE=$PUBLIC_URL/app
	END
	mv "$RUN/env.new" "$RUN/env"
}

# How E2B's clients find this instance: by one URL for all (header mode), or with TLS by names (domain mode).
e2b_env() {
	if [ -z "$TLS" ]; then
		echo "export E2B_API_URL=$URL"
		echo "export E2B_SANDBOX_URL=$URL"
	else
		echo "unset E2B_API_URL E2B_SANDBOX_URL"
		echo "export E2B_DOMAIN=$DOMAIN"
		echo "export NODE_EXTRA_CA_CERTS=$RUN/tls/ca.pem"
		echo "export SSL_CERT_FILE=$RUN/tls/ca.pem"
		echo "export HUTCH_TLS_URL=$TLS_URL"
	fi
}

# Virtual machines outlive their agent by design. Every one is called hutch-INSTANCE-NAME.
end_machines() {
	local instance pids

	instance=$(cat "$RUN/agent/instance" 2>/dev/null) || return 0
	mapfile -t pids < <(pgrep -f -- "-name hutch-$instance-" || true)
	[ ${#pids[@]} -gt 0 ] || return 0
	kill -s KILL "${pids[@]}" 2>/dev/null || true
	say "switched off ${#pids[@]} virtual machines; the disks of capsules are kept"
}

stop() {
	end_part lighttpd TERM 10
	end_part gateway TERM 10
	end_part api TERM 15
	end_part ops TERM 60
	end_part worker TERM 30
	end_part agent TERM 15
	end_machines
	end_part redis TERM 10
	end_part postgres INT 30
	end_marked
	rm -rf "${SOCK:?}"
	say "stopped"
}
