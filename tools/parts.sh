# parts.sh - starts, watches and ends the programs of one private instance; sourced by quickstart.
#
# Every part NAME has $RUN/pid/NAME ("PID STARTTIME") and $RUN/log/NAME.log, runs in a session of its
# own, and carries HUTCH_PART=RUN:NAME in its environment: what a killed part leaves behind is found
# by that, and nothing else is ever signalled.
# shellcheck shell=bash disable=SC2153  # RUN, ACCOUNT: set by quickstart

# The time a process started, in ticks since boot: with the pid it names a process for good.
start_time() {
	local stat

	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	stat=${stat##*) }
	# shellcheck disable=SC2086
	set -- $stat
	[ "$1" != Z ] || return 1
	echo "${20}"
}

part_pid() {
	local pid started

	read -r pid started 2>/dev/null <"$RUN/pid/$1" || return 1
	[ "$(start_time "$pid")" = "$started" ] || return 1
	echo "$pid"
}

# Pids that carry our mark: of part $1, or of any part of this instance.
marked() {
	local environ pid

	for environ in /proc/[0-9]*/environ; do
		if tr '\0' '\n' <"$environ" 2>/dev/null | grep -Fqs -e "HUTCH_PART=$RUN:${1-}"; then
			pid=${environ#/proc/}
			echo "${pid%/environ}"
		fi
	done 2>/dev/null
}

# ---- ports ----

PORT_CLAIMS=/run/hutch-ports

port_taken() { (: 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

port_claimed() {
	local pid started

	read -r pid started 2>/dev/null <"$PORT_CLAIMS/$1" && [ "$(start_time "$pid")" = "$started" ]
}

# free_port FIRST: the first port from there on that nobody listens on, nor chose and will bind later: as long as
# this process lives it is its own.
free_port() {
	local port=$1 lock

	mkdir -p "$PORT_CLAIMS"
	exec {lock}>"$PORT_CLAIMS/lock"
	flock "$lock"
	while port_taken "$port" || port_claimed "$port"; do
		port=$((port + 1))
	done
	echo "$$ $(start_time $$)" >"$PORT_CLAIMS/$port"
	exec {lock}>&-
	echo "$port"
}

# part_listens NAME PORT: the socket that listens there is the part's own, not that of whoever was there before.
part_listens() {
	local pid inode

	pid=$(part_pid "$1") || return 1
	for inode in $(awk -v port="$(printf ':%04X' "$2")" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }' /proc/net/tcp); do
		[ -z "$(find "/proc/$pid/fd" -lname "socket:\\[$inode\\]" -print -quit 2>/dev/null)" ] || return 0
	done
	return 1
}

# ---- parts ----

# part_current NAME: it lives, and since it started neither its program nor the configuration changed.
part_current() {
	local pid

	pid=$(part_pid "$1") || return 1
	[[ $(readlink "/proc/$pid/exe") != *" (deleted)" ]] || return 1
	case $1 in
	postgres | redis) ;;
	*) [ ! "$RUN/pid/$1" -ot "$RUN/hutch.conf" ] ;;
	esac
}

# start_part NAME USER COMMAND...: nothing when it is current; else what is left of it goes first, but for
# virtual machines: a new agent adopts them.
start_part() {
	local name=$1 user=$2 pid signal=TERM

	shift 2
	[ "$name" != postgres ] || signal=INT # TERM would wait for the clients
	if part_current "$name"; then
		return
	fi
	part_gone "$name" || end_part "$name" "$signal" 60
	[ "$name" = agent ] || end_marked "$name:"
	say "starting $name"
	printf '\n---- %s: %s\n' "$(date -u +%FT%TZ)" "$*" >>"$RUN/log/$name.log"
	HUTCH_PART="$RUN:$name:" setsid setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups \
		"$@" </dev/null >>"$RUN/log/$name.log" 2>&1 9>&- &
	pid=$!
	echo "$pid $(start_time "$pid")" >"$RUN/pid/$name"
}

# end_part NAME SIGNAL SECONDS: asks, waits, and then insists.
end_part() {
	local name=$1 signal=$2 seconds=$3 pid

	if pid=$(part_pid "$name"); then
		say "stopping $name"
		kill -s "$signal" "$pid" 2>/dev/null || true
		if ! until_true "$seconds" part_gone "$name"; then
			say "$name did not stop within $seconds s: killed"
			kill -s KILL "$pid" 2>/dev/null || true
		fi
	fi
	rm -f "$RUN/pid/$name"
}

part_gone() { ! part_pid "$1" >/dev/null; }

end_marked() {
	local pids

	pids=$(marked "${1-}")
	[ -n "$pids" ] || return 0
	# shellcheck disable=SC2086
	kill -s KILL $pids 2>/dev/null || true
	sleep 0.2
}

# until_true SECONDS COMMAND...: tries five times a second; fails when the time is over.
until_true() {
	local deadline=$((SECONDS + $1))

	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.2
	done
}

# wait_for NAME SECONDS WHAT COMMAND...: until the command succeeds; the part's log when it does not.
wait_for() {
	local name=$1 seconds=$2 what=$3 deadline=$((SECONDS + $2)) said=

	shift 3
	until "$@" >/dev/null 2>&1; do
		if [ -z "$said" ]; then
			said=1
			say "waiting until $what (at most $seconds s)"
		fi
		if part_gone "$name" || [ "$SECONDS" -ge "$deadline" ]; then
			tail -n 25 "$RUN/log/$name.log" >&2
			if part_gone "$name"; then
				die "$name ended before $what; its log, above, is $RUN/log/$name.log"
			fi
			die "$what: not within $seconds s; the log of $name, above, is $RUN/log/$name.log"
		fi
		sleep 0.2
	done
}
