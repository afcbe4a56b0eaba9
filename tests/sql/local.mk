# tests/sql/local.mk - queries, migrations, tenants and the audit chain on a private PostgreSQL.
check_PROGRAMS += tests/sql/check_sql
TESTS += tests/sql/run
tests_sql_check_sql_SOURCES = tests/sql/check_sql.c
tests_sql_check_sql_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_builddir)
tests_sql_check_sql_LDADD = $(HUTCH_LIBS)
EXTRA_DIST += tests/sql/run tests/sql/database.sh tests/sql/migrations.sh tests/sql/queries.sh tests/sql/tenants.sh tests/sql/audit.sh tests/sql/capacity.sh tests/sql/tamper.sql
CLEANFILES += tests/sql/queries.def
tests/sql/check_sql-check_sql.$(OBJEXT): tests/sql/queries.def
tests/sql/queries.def: Makefile
	$(AM_V_GEN)$(MKDIR_P) tests/sql && for q in $(QUERIES); do q=$${q##*/}; echo "Q($${q%.sql})"; done >$@
