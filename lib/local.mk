# lib/local.mk - what all programs share; it knows none of them.
noinst_LIBRARIES += lib/libhutch.a
lib_libhutch_a_SOURCES = \
	lib/errors.def lib/err.c lib/err.h lib/work.h lib/cleanup.h lib/idle.h lib/banned.h \
	lib/buf.c lib/buf.h lib/log.c lib/log.h lib/json.c lib/json.h lib/id.c lib/id.h \
	lib/conf.def lib/conf.c lib/conf.h lib/db.c lib/db.h lib/field.c lib/field.h lib/rfc3339.c lib/rfc3339.h \
	lib/crypto.c lib/crypto.h lib/password.c lib/password.h lib/passwords.def lib/totp.c lib/totp.h lib/token.c lib/token.h lib/token_seen.c lib/token_seen.h \
	lib/principal.c lib/principal.h proto/permissions.def
lib_libhutch_a_SOURCES += lib/h2.c lib/h2.h lib/h2_mark.c lib/h2_mark.h lib/h2_uv.c lib/h2_uv.h
nodist_lib_libhutch_a_SOURCES = $(QUERY_C) $(QUERY_H)
lib_libhutch_a_SOURCES += proto/events.def proto/jobs.def lib/event.c lib/event.h lib/job.c lib/job.h lib/bell.h \
	lib/queue.c lib/queue.h lib/http.c lib/http.h lib/cidr.c lib/cidr.h lib/oidc.c lib/oidc.h lib/jws.c lib/jws.h lib/mail.c lib/mail.h lib/mustache.c lib/mustache.h
lib_libhutch_a_SOURCES += lib/audit.c lib/audit.h lib/agent.c lib/agent.h lib/capsule_op.c lib/capsule_watch.c lib/capsule_op.h lib/crash.h \
	lib/capsule_steps.h lib/capsule_job.c lib/capsule_sleep.c lib/capsule_shot.c lib/capsule_fork.c lib/capsule_report.c lib/capsule_wake.c \
	lib/capsule_policy.c lib/snapshot.c lib/snapshot.h lib/cron.c lib/cron.h lib/metric_range.c lib/metric_range.h lib/quota.c lib/quota.h \
	proto/audit.def proto/route.h
lib_libhutch_a_SOURCES += lib/placement.c lib/placement.h lib/host_watch.c lib/host_scale.c lib/host_scale.h lib/host_copy.c lib/host_copy.h lib/tls.c lib/tls.h lib/ca.c lib/ca.h
lib_libhutch_a_SOURCES += lib/key_use.c lib/key_use.h lib/audit_mark.c lib/audit_mark.h lib/audit_check.c lib/audit_check.h
lib_libhutch_a_SOURCES += lib/route_print.c lib/route_print.h
lib_libhutch_a_SOURCES += lib/deletion.c lib/deletion.h lib/deletion_ledger.c lib/deletion_ledger.h lib/s3.c lib/s3.h lib/storage_seal.c lib/storage_seal.h
EXTRA_DIST += lib/README.md proto/README.md
