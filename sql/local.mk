# sql/local.mk - queries become C, migrations are data of hutchctl.
QUERIES = \
	sql/queries/auth.sql sql/queries/audit.sql sql/queries/idempotency.sql sql/queries/users.sql \
	sql/queries/teams.sql sql/queries/sessions.sql sql/queries/keys.sql sql/queries/capsules.sql sql/queries/hosts.sql sql/queries/health.sql sql/queries/people.sql sql/queries/accounts.sql

QUERIES += sql/queries/life.sql sql/queries/snapshots.sql
QUERIES += sql/queries/invitations.sql sql/queries/idps.sql
QUERIES += sql/queries/gateway.sql sql/queries/ports.sql sql/queries/placement.sql sql/queries/copies.sql sql/queries/cluster.sql

QUERIES += sql/queries/events.sql sql/queries/jobs.sql sql/queries/mail.sql sql/queries/relay.sql sql/queries/sweeper.sql

QUERIES += sql/queries/deletion.sql sql/queries/cascade.sql sql/queries/storage.sql sql/queries/admin.sql

QUERIES += sql/queries/metrics.sql sql/queries/streams.sql
QUERIES += sql/queries/e2b.sql

QUERY_C = $(QUERIES:.sql=.q.c)
QUERY_H = $(QUERIES:.sql=.q.h)
BUILT_SOURCES += $(QUERY_H)
CLEANFILES += $(QUERY_C) $(QUERY_H)
EXTRA_DIST += tools/sqlgen.awk $(QUERIES)

queries: $(QUERY_H)
.PHONY: queries

SUFFIXES += .sql .q.c .q.h
.sql.q.c:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(AWK) -v mode=c -f $(top_srcdir)/tools/sqlgen.awk $< >$@.tmp && mv $@.tmp $@
.sql.q.h:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(AWK) -v mode=h -f $(top_srcdir)/tools/sqlgen.awk $< >$@.tmp && mv $@.tmp $@
$(QUERY_C) $(QUERY_H): $(top_srcdir)/tools/sqlgen.awk
EXTRA_DIST += sql/README.md
QUERIES += sql/queries/live.sql
QUERIES += sql/queries/cli.sql sql/queries/scaling.sql
