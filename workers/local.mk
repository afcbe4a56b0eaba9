# workers/local.mk - how workers is built.
sbin_PROGRAMS += workers/hutch-worker
workers_hutch_worker_SOURCES = \
	workers/main.c workers/parent.c workers/child.c workers/sweeper.c workers/relay.c workers/kinds.c \
	workers/worker.h workers/job.h workers/jobs/capsules.c workers/jobs/mail.c workers/jobs/retention.c workers/jobs/test.c
workers_hutch_worker_LDADD = lib/libhutch.a $(PQ_LIBS) $(TALLOC_LIBS) $(JSONC_LIBS) $(HIREDIS_LIBS) $(CURL_LIBS) \
	$(CRYPTO_LIBS) $(CONFUSE_LIBS) $(UUID_LIBS) $(CRYPT_LIBS) -lm

# What mails say; an operator's own texts stand in $(sysconfdir)/hutch/mail/en.
mailendir = $(pkgdatadir)/mail/en
dist_mailen_DATA = \
	share/mail/en/activate.subject share/mail/en/activate.txt share/mail/en/activate.html \
	share/mail/en/already_registered.subject share/mail/en/already_registered.txt share/mail/en/already_registered.html \
	share/mail/en/session_stolen.subject share/mail/en/session_stolen.txt share/mail/en/session_stolen.html

check_PROGRAMS += tests/unit/workers
TESTS += tests/unit/workers
tests_unit_workers_SOURCES = tests/unit/workers.c
tests_unit_workers_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS) -DSRCDIR='"$(abs_top_srcdir)"'
tests_unit_workers_LDADD = $(workers_hutch_worker_LDADD) $(CHECK_LIBS)
EXTRA_DIST += tests/jobs/jobs.py tests/jobs/relay.py tests/jobs/mail.py tests/jobs/private.py tests/jobs/sink.py
EXTRA_DIST += workers/README.md
