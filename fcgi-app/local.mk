# fcgi-app/local.mk - hutch-api, the REST API.
sbin_PROGRAMS += fcgi-app/hutch-api
fcgi_app_hutch_api_SOURCES = \
	fcgi-app/main.c fcgi-app/pool.c fcgi-app/pool.h fcgi-app/worker.c fcgi-app/dispatch.c fcgi-app/request.h \
	fcgi-app/reply.c fcgi-app/route.c fcgi-app/idempotency.c fcgi-app/idempotency.h fcgi-app/hash_slot.c fcgi-app/hash_slot.h \
	fcgi-app/print.c fcgi-app/print.h \
	fcgi-app/api/api.h fcgi-app/api/tables.def fcgi-app/api/health.c fcgi-app/api/auth.c fcgi-app/api/sessions.c fcgi-app/api/sessions.h \
	fcgi-app/cookie.c fcgi-app/cookie.h fcgi-app/api/oauth.c fcgi-app/api/idps.c fcgi-app/api/idps.h fcgi-app/api/account.c fcgi-app/api/account.h fcgi-app/api/auth_mfa.c fcgi-app/api/auth_signup.c \
	fcgi-app/api/logins.c fcgi-app/api/mfa.c fcgi-app/api/password.c fcgi-app/api/throttle.c fcgi-app/api/tickets.c \
	fcgi-app/api/admin.h fcgi-app/api/admin_users.c fcgi-app/api/admin_teams.c fcgi-app/api/account_end.c fcgi-app/api/storage.c fcgi-app/api/me.c fcgi-app/api/teams.c fcgi-app/api/teams.h fcgi-app/api/members.c fcgi-app/api/invitations.c fcgi-app/api/team_shape.h fcgi-app/api/member_shape.h fcgi-app/api/audit.c fcgi-app/api/audit_out.c fcgi-app/api/audit_read.h fcgi-app/api/keys.c fcgi-app/api/keys.h fcgi-app/api/key_change.c fcgi-app/api/cli_key.h fcgi-app/api/cli_login.c fcgi-app/api/capsules.c fcgi-app/api/capsules_admin.c fcgi-app/api/capsules.h fcgi-app/api/capsules_list.h fcgi-app/api/capsules_create.c fcgi-app/api/capsules_do.c fcgi-app/api/capsules_fork.c fcgi-app/api/capsules_life.c fcgi-app/api/capsules_spec.c fcgi-app/api/capsules_spec.h fcgi-app/api/capsule_events.c fcgi-app/api/ports.c fcgi-app/api/ports.h fcgi-app/api/snapshots.c fcgi-app/api/snapshot_policy.c fcgi-app/api/e2b.h fcgi-app/api/e2b.c fcgi-app/api/e2b_life.c fcgi-app/api/e2b_list.c fcgi-app/api/e2b_names.c fcgi-app/api/e2b_network.c fcgi-app/api/e2b_shape.c fcgi-app/api/e2b_snapshots.c fcgi-app/api/e2b_teams.c fcgi-app/api/e2b_watch.c fcgi-app/api/hosts.c fcgi-app/api/hosts_admin.c fcgi-app/api/hosts_watch.c fcgi-app/api/cluster.c fcgi-app/api/scaling.c fcgi-app/api/host_shape.h
HUTCH_LIBS = lib/libhutch.a $(FCGI_LIBS) $(PQ_LIBS) $(HIREDIS_LIBS) $(JSONC_LIBS) $(CURL_LIBS) $(JWT_LIBS) $(CJOSE_LIBS) $(CRYPTO_LIBS) \
	$(CONFUSE_LIBS) $(TALLOC_LIBS) $(UUID_LIBS) $(CRYPT_LIBS) $(UNISTRING_LIBS) -lm
fcgi_app_hutch_api_LDADD = $(HUTCH_LIBS)
EXTRA_DIST += fcgi-app/README.md
