# sql/local.mk - queries become C, migrations are data of hutchctl.
QUERIES = \
	sql/queries/auth.sql

QUERY_C = $(QUERIES:.sql=.q.c)
QUERY_H = $(QUERIES:.sql=.q.h)
BUILT_SOURCES += $(QUERY_H)
CLEANFILES += $(QUERY_C) $(QUERY_H)
EXTRA_DIST += tools/sqlgen.awk $(QUERIES)

SUFFIXES += .sql .q.c .q.h
.sql.q.c:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(AWK) -v mode=c -f $(top_srcdir)/tools/sqlgen.awk $< >$@.tmp && mv $@.tmp $@
.sql.q.h:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(AWK) -v mode=h -f $(top_srcdir)/tools/sqlgen.awk $< >$@.tmp && mv $@.tmp $@
$(QUERY_C) $(QUERY_H): $(top_srcdir)/tools/sqlgen.awk
