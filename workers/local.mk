# workers/local.mk - how workers is built.
sbin_PROGRAMS += workers/hutch-worker
workers_hutch_worker_SOURCES = \
	workers/main.c workers/parent.c workers/child.c workers/sweeper.c workers/relay.c workers/kinds.c \
	workers/worker.h workers/job.h workers/cascade.c workers/cascade.h workers/jobs/team.c workers/jobs/user.c workers/jobs/storage.c workers/jobs/capsules.c workers/jobs/hosts.c workers/jobs/metrics.c workers/jobs/mail.c workers/jobs/retention.c workers/jobs/audit.c workers/jobs/test.c
workers_hutch_worker_LDADD = lib/libhutch.a $(PQ_LIBS) $(TALLOC_LIBS) $(JSONC_LIBS) $(HIREDIS_LIBS) $(CURL_LIBS) \
	$(CRYPTO_LIBS) $(CONFUSE_LIBS) $(UUID_LIBS) $(CRYPT_LIBS) -lm

# What mails say; an operator's own texts stand in $(sysconfdir)/hutch/mail/en.
mailendir = $(pkgdatadir)/mail/en
dist_mailen_DATA = \
	share/mail/en/activate.subject share/mail/en/activate.txt share/mail/en/activate.html \
	share/mail/en/already_registered.subject share/mail/en/already_registered.txt share/mail/en/already_registered.html \
	share/mail/en/session_stolen.subject share/mail/en/session_stolen.txt share/mail/en/session_stolen.html

dist_mailen_DATA += \
	share/mail/en/disabled.subject share/mail/en/disabled.txt share/mail/en/disabled.html \
	share/mail/en/enabled.subject share/mail/en/enabled.txt share/mail/en/enabled.html \
	share/mail/en/account_deleted.subject share/mail/en/account_deleted.txt share/mail/en/account_deleted.html \
	share/mail/en/account_purged.subject share/mail/en/account_purged.txt share/mail/en/account_purged.html \
	share/mail/en/restored.subject share/mail/en/restored.txt share/mail/en/restored.html \
	share/mail/en/set_password.subject share/mail/en/set_password.txt share/mail/en/set_password.html \
	share/mail/en/password_reset_link.subject share/mail/en/password_reset_link.txt share/mail/en/password_reset_link.html \
	share/mail/en/team_created.subject share/mail/en/team_created.txt share/mail/en/team_created.html \
	share/mail/en/team_deleted.subject share/mail/en/team_deleted.txt share/mail/en/team_deleted.html \
	share/mail/en/added.subject share/mail/en/added.txt share/mail/en/added.html \
	share/mail/en/removed.subject share/mail/en/removed.txt share/mail/en/removed.html \
	share/mail/en/role_changed.subject share/mail/en/role_changed.txt share/mail/en/role_changed.html \
	share/mail/en/invitation.subject share/mail/en/invitation.txt share/mail/en/invitation.html \
	share/mail/en/mfa_reset.subject share/mail/en/mfa_reset.txt share/mail/en/mfa_reset.html

dist_mailen_DATA += \
	share/mail/en/address_in_deletion.subject share/mail/en/address_in_deletion.txt share/mail/en/address_in_deletion.html \
	share/mail/en/password_reset.subject share/mail/en/password_reset.txt share/mail/en/password_reset.html \
	share/mail/en/password_changed.subject share/mail/en/password_changed.txt share/mail/en/password_changed.html \
	share/mail/en/password_added.subject share/mail/en/password_added.txt share/mail/en/password_added.html \
	share/mail/en/email_change.subject share/mail/en/email_change.txt share/mail/en/email_change.html \
	share/mail/en/new_login.subject share/mail/en/new_login.txt share/mail/en/new_login.html \
	share/mail/en/mfa_changed.subject share/mail/en/mfa_changed.txt share/mail/en/mfa_changed.html

check_PROGRAMS += tests/unit/workers
TESTS += tests/unit/workers
tests_unit_workers_SOURCES = tests/unit/workers.c
tests_unit_workers_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS) -DSRCDIR='"$(abs_top_srcdir)"'
tests_unit_workers_LDADD = $(workers_hutch_worker_LDADD) $(CHECK_LIBS)
EXTRA_DIST += tests/jobs/jobs.py tests/jobs/relay.py tests/jobs/mail.py tests/jobs/private.py tests/jobs/sink.py
EXTRA_DIST += tests/jobs/deletion.py tests/jobs/deletion_late tests/jobs/deletion_kill.py tests/jobs/deletion_house.py tests/jobs/admin.py tests/jobs/audit.py tests/jobs/people.py \
	tests/jobs/fastcgi.py tests/jobs/s3.py tests/jobs/fakeagent.py
EXTRA_DIST += workers/README.md
