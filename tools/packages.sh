# packages.sh - what the build, an instance and the tests need from Debian; sourced by quickstart and runtests.
# shellcheck shell=bash disable=SC2034  # the lists: quickstart, runtests

BUILD_PACKAGES=(build-essential autoconf automake pkg-config libpq-dev libtalloc-dev libjson-c-dev libhiredis-dev
	libcurl4-openssl-dev libssl-dev libconfuse-dev libnghttp2-dev libuv1-dev libmicrohttpd-dev libwslay-dev libseccomp-dev libzstd-dev libmnl-dev check uuid-dev
	libjwt-dev libcjose-dev libjansson-dev libfcgi-dev zlib1g-dev libcrypt-dev libunistring-dev scdoc python3)
RUN_PACKAGES=(nftables iproute2 postgresql redis-server lighttpd lighttpd-modules-lua qemu-system-x86 qemu-utils curl openssl util-linux procps
	mmdebstrap erofs-utils e2fsprogs lz4 binutils ca-certificates
	libnss-myhostname) # makes *.localhost known to programs that ask the C library: node, python
TLS_PACKAGES=(lighttpd-mod-openssl)
TEST_PACKAGES=(iproute2 apache2-bin shellcheck chromium-headless-shell strace)

missing_packages() {
	local package

	for package; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
	done
}

# install_packages NAME...: one call of apt-get for all that is missing. The services that come with some of
# them are neither started now nor at boot: an instance has its own.
install_packages() {
	local missing service

	[ -e /etc/debian_version ] || die "this needs Debian 12 or 13"
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing from Debian, to build and run Hutch: ${missing[*]}"
	no_services apt_get install -y -q --no-install-recommends "${missing[@]}"
	for service in postgresql redis-server lighttpd; do
		case " ${missing[*]} " in
		*" $service "*) systemctl disable --quiet "$service" 2>/dev/null || true ;;
		esac
	done
}

apt_get() {
	local log

	log=$(mktemp)
	if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get "$@"; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		die "apt-get failed, see above"
	fi
	rm -f "$log"
}

# no_services COMMAND...: with policy-rc.d saying no, unless the machine has one of its own.
no_services() {
	local policy=/usr/sbin/policy-rc.d

	if [ -e "$policy" ]; then
		"$@"
		return
	fi
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	"$@"
	rm -f "$policy"
	trap - EXIT
}

# The newest installed PostgreSQL's programs.
pg_bindir() {
	local dir

	for dir in $(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 | sort -rV); do
		if [ -x "$dir/bin/postgres" ]; then
			echo "$dir/bin"
			return
		fi
	done
	die "there is no PostgreSQL in /usr/lib/postgresql"
}
