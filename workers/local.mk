# workers/local.mk - how workers is built.
sbin_PROGRAMS += workers/hutch-worker
workers_hutch_worker_SOURCES = \
	workers/main.c workers/parent.c workers/child.c workers/sweeper.c workers/relay.c workers/kinds.c \
	workers/worker.h workers/job.h workers/jobs/mail.c workers/jobs/retention.c workers/jobs/test.c
workers_hutch_worker_LDADD = lib/libhutch.a $(PQ_LIBS) $(TALLOC_LIBS) $(JSONC_LIBS) $(HIREDIS_LIBS) $(CURL_LIBS) \
	$(CRYPTO_LIBS) $(CONFUSE_LIBS) $(UUID_LIBS) $(CRYPT_LIBS) -lm
