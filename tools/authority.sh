# authority.sh - a certificate authority of one instance's own, for quickstart --tls; sourced by tools/instance.sh.
#
# It can vouch for names under localhost only, so that trusting it gives nothing else away.
# shellcheck shell=bash disable=SC2153,SC2154  # names of quickstart's

TLS_NAME=hutch.localhost # two labels: a wildcard over one is believed by nobody

# make_authority: RUN/tls/ca.pem, its key in RUN/secret (0600, root's).
make_authority() {
	[ ! -s "$RUN/tls/ca.pem" ] || return 0
	say "making a certificate authority for this instance: $RUN/tls/ca.pem"
	install -d -m 755 "$RUN/tls"
	(umask 077 && openssl ecparam -name prime256v1 -genkey -noout -out "$RUN/secret/ca.key")
	openssl req -x509 -new -key "$RUN/secret/ca.key" -days 3650 -subj "/CN=Hutch on this machine, port $TLS_PORT" \
		-addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
		-addext "nameConstraints=critical,permitted;DNS:localhost" -out "$RUN/tls/ca.pem.new" 2>>"$RUN/log/tls.log" ||
		die "openssl made no authority; see $RUN/log/tls.log"
	mv "$RUN/tls/ca.pem.new" "$RUN/tls/ca.pem"
}

# make_certificate: for api.NAME and *.NAME; a new one a week before the old one ends. Clients refuse more than 397 days.
make_certificate() {
	local tmp=$RUN/tls/new

	make_authority
	! openssl x509 -in "$RUN/tls/server.pem" -noout -checkend 604800 >/dev/null 2>&1 || return 0
	(umask 077 && openssl ecparam -name prime256v1 -genkey -noout -out "$tmp.key")
	openssl req -new -key "$tmp.key" -subj "/CN=$TLS_NAME" -out "$tmp.csr" 2>>"$RUN/log/tls.log"
	openssl x509 -req -in "$tmp.csr" -CA "$RUN/tls/ca.pem" -CAkey "$RUN/secret/ca.key" -CAcreateserial -days 397 -out "$tmp.pem" \
		-extfile <(echo "subjectAltName=DNS:api.$TLS_NAME,DNS:*.$TLS_NAME,DNS:$TLS_NAME
			basicConstraints=critical,CA:FALSE
			keyUsage=critical,digitalSignature
			extendedKeyUsage=serverAuth" | sed 's/^[[:space:]]*//') 2>>"$RUN/log/tls.log" ||
		die "openssl made no certificate; see $RUN/log/tls.log"
	chown "$ACCOUNT:" "$tmp.key"
	mv "$tmp.key" "$RUN/tls/server.key"
	mv "$tmp.pem" "$RUN/tls/server.pem"
	rm "$tmp.csr"
}
