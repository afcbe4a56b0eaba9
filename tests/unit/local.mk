# tests/unit/local.mk - one suite per file of lib/, in one program that prints TAP.
check_PROGRAMS += tests/unit/unit
TESTS += tests/unit/unit
tests_unit_unit_SOURCES = tests/unit/main.c tests/unit/unit.h tests/unit/buf.c tests/unit/conf.c tests/unit/cron.c tests/unit/crypto.c \
	tests/unit/event.c tests/unit/field.c tests/unit/http.c tests/unit/id.c tests/unit/json.c tests/unit/metric_range.c tests/unit/mustache.c tests/unit/oidc.c tests/unit/sign.c tests/unit/sign.h \
	tests/unit/password.c tests/unit/principal.c tests/unit/route.c tests/unit/token.c tests/unit/totp.c tests/unit/tls.c
tests_unit_unit_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_unit_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/fcgi-app -I$(top_srcdir)/tests/unit
tests_unit_unit_LDADD = $(HUTCH_LIBS) $(CHECK_LIBS)
check_PROGRAMS += tests/unit/h2_mark
TESTS += tests/unit/h2_mark
tests_unit_h2_mark_SOURCES = tests/unit/h2_mark.c
tests_unit_h2_mark_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_h2_mark_LDADD = $(UNIT_LIBS)
check_PROGRAMS += tests/unit/clock_event
TESTS += tests/unit/clock_event
tests_unit_clock_event_SOURCES = tests/unit/clock_event.c guestagent/clock_event.c
tests_unit_clock_event_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_clock_event_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/guestagent
tests_unit_clock_event_LDADD = $(UNIT_LIBS)
check_PROGRAMS += tests/unit/host_parse
TESTS += tests/unit/host_parse
tests_unit_host_parse_SOURCES = tests/unit/host_parse.c hostagent/qmp.c hostagent/qmp.h hostagent/artifact.c hostagent/artifact.h hostagent/loop.c hostagent/loop.h
tests_unit_host_parse_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_host_parse_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/hostagent
tests_unit_host_parse_LDADD = $(UNIT_LIBS) $(JSONC_LIBS)
