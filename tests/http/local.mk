# tests/http/local.mk - the tests from outside, their runner, and what starts an instance for them.
EXTRA_DIST += quickstart runtests tools/instance.sh tools/authority.sh tools/packages.sh tools/parts.sh tools/tally \
	tests/bench/README.md tests/bench/run tests/bench/bare.py tests/bench/equal.py tests/bench/capsules.py tests/bench/h2.py tests/bench/instance.py \
	tests/bench/reads.py tests/bench/rest.py tests/bench/table.py tests/bench/node/package.json \
	tests/bench/node/package-lock.json tests/bench/node/server.js \
	tests/chaos/README.md tests/chaos/chaos.py tests/chaos/clients.py tests/chaos/house.py tests/chaos/promises.py tests/lib/check tests/lib/instance tests/lib/shell \
	tests/http/README.md tests/http/oauth.py tests/http/oidc/package.json tests/http/oidc/package-lock.json tests/http/oidc/provider.js tests/http/auth.t tests/http/bigfile.py tests/http/capsules.t tests/http/fork.t tests/http/health.t \
	tests/http/keys.t tests/http/life.t tests/http/routes.t tests/http/backends.py tests/http/edge.py tests/http/pattern.py tests/http/people.py tests/http/people_house.py tests/http/people_mfa.py tests/http/people_self.py tests/http/cli_login.py tests/http/pool.py tests/http/raw.py tests/http/rights.py \
	tests/http/run tests/http/schema.py tests/http/selftest.py tests/http/webservers.py
EXTRA_DIST += tests/browser/README.md tests/browser/browser.py tests/browser/cli_sign_in.py tests/browser/port_sign_in.py tests/browser/provider_sign_in.py
EXTRA_DIST += tests/http/crew.py tests/http/operators.py tests/http/platform_capsules.py tests/http/teams.py tests/http/keys.py tests/http/audit.py
EXTRA_DIST += tests/http/matrix.py tests/http/matrix_house.py tests/http/matrix_rules.py
EXTRA_DIST += tests/http/sockets.py tests/http/streams.py tests/http/streams_doors.py tests/bench/streams.py
EXTRA_DIST += tests/http/ports.py tests/http/ports_service.py
EXTRA_DIST += tests/http/e2b.py tests/http/e2b_templates.py tests/http/tls.py tests/compat/README.md tests/compat/run tests/compat/install tests/compat/cli tests/compat/table tests/compat/checks.mjs tests/compat/drive.mjs tests/compat/interpreter.mjs \
	tests/compat/package.json tests/compat/package-lock.json
