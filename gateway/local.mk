# gateway/local.mk - how gateway is built.
bin_PROGRAMS += gateway/hutch-gateway
gateway_hutch_gateway_SOURCES = gateway/main.c gateway/gateway.h gateway/front.c gateway/front.h gateway/request.h \
	gateway/route.c gateway/route.h gateway/access.c gateway/access.h gateway/port.c gateway/port.h gateway/port_creds.c gateway/port_creds.h gateway/port_pass.c gateway/port_pass.h gateway/port_tls.c gateway/port_tls.h gateway/port_ws.c gateway/port_ws.h gateway/http1.c gateway/http1.h gateway/port_host.c gateway/port_host.h gateway/port_access.c gateway/port_access.h \
	gateway/port_page.c gateway/port_page.h gateway/guest_pass.c gateway/guest_pass.h gateway/signed.c gateway/signed.h gateway/back.c gateway/back.h \
	gateway/timer.c gateway/timer.h gateway/key_count.c gateway/key_count.h gateway/tally.c gateway/tally.h gateway/tally_all.c gateway/tally_all.h gateway/connect.c gateway/connect.h gateway/multipart.c gateway/multipart.h \
	gateway/utf8.c gateway/utf8.h gateway/capsule_data.c gateway/capsule_data.h gateway/metrics.c gateway/metrics.h gateway/logs.c gateway/exec.c gateway/processes.c gateway/files.c gateway/transfer.c \
	gateway/transfer.h gateway/upgrade.c gateway/upgrade.h gateway/ws.c gateway/ws.h gateway/ticket.c gateway/ticket.h gateway/rights.c gateway/rights.h gateway/events.c gateway/events.h gateway/events_feed.c \
	gateway/events_live.c gateway/events_sub.c gateway/events_topic.c gateway/events_ws.c gateway/events_ws.h gateway/stream.c gateway/stream.h \
	gateway/stream_process.c gateway/stream_process.h gateway/stream_input.c gateway/stream_input.h gateway/process_call.c gateway/process_call.h \
	gateway/process_output.c gateway/process_output.h gateway/exec_stream.c gateway/pty.c gateway/watch.c gateway/files.h proto/route.h
gateway_hutch_gateway_LDADD = lib/libhutch.a $(MHD_LIBS) $(WSLAY_LIBS) $(NGHTTP2_LIBS) $(UV_LIBS) $(JWT_LIBS) $(CRYPTO_LIBS) \
	$(PQ_LIBS) $(HIREDIS_LIBS) $(CONFUSE_LIBS) $(JSONC_LIBS) $(UUID_LIBS) $(TALLOC_LIBS) -lm
EXTRA_DIST += gateway/README.md docs/design/live-events.md tests/http/events.py tests/http/events_limits.py tests/http/watch.py docs/design/gateway-front.md tests/http/processes.t

UNIT_LIBS = lib/libhutch.a $(CRYPTO_LIBS) $(NGHTTP2_LIBS) $(UV_LIBS) $(TALLOC_LIBS) $(CHECK_LIBS)
check_PROGRAMS += tests/unit/h2 tests/unit/gateway_parse tests/unit/http1 tests/unit/port_ws
TESTS += tests/unit/h2 tests/unit/gateway_parse tests/unit/http1 tests/unit/port_ws
tests_unit_h2_SOURCES = tests/unit/h2.c
tests_unit_h2_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_unit_h2_LDADD = $(UNIT_LIBS)
tests_unit_gateway_parse_SOURCES = tests/unit/gateway_parse.c gateway/multipart.c gateway/connect.c gateway/process_call.c gateway/utf8.c
tests_unit_gateway_parse_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS) -I$(top_srcdir)/gateway
tests_unit_gateway_parse_LDADD = $(UNIT_LIBS)
tests_unit_http1_SOURCES = tests/unit/http1.c gateway/http1.c gateway/port_host.c
tests_unit_http1_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS) -I$(top_srcdir)/gateway
tests_unit_http1_LDADD = $(UNIT_LIBS) $(UUID_LIBS)
tests_unit_port_ws_SOURCES = tests/unit/port_ws.c gateway/port_ws.c
tests_unit_port_ws_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS) -I$(top_srcdir)/gateway
tests_unit_port_ws_LDADD = $(UNIT_LIBS)
