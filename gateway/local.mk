# gateway/local.mk - how gateway is built.
check_PROGRAMS += tests/unit/h2
TESTS += tests/unit/h2
tests_unit_h2_SOURCES = tests/unit/h2.c
tests_unit_h2_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_h2_LDADD = lib/libhutch.a $(NGHTTP2_LIBS) $(UV_LIBS) $(TALLOC_LIBS) $(CHECK_LIBS)
