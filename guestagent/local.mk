# guestagent/local.mk - the agent in the capsule: static for the image, and a sanitized build for tests.
#
# The static one is its own link without libhutch.a, which may be built with sanitizers.
noinst_PROGRAMS += guestagent/hutch-guest
check_PROGRAMS += guestagent/hutch-guest-test

guest_sources = \
	guestagent/main.c guestagent/handlers.h \
	guestagent/init.c guestagent/init.h guestagent/clock_event.c guestagent/clock_event.h guestagent/loop.c guestagent/loop.h guestagent/link.c guestagent/link.h \
	guestagent/server.c guestagent/server.h guestagent/call.h guestagent/rpc.c guestagent/rpc.h \
	guestagent/identity.c guestagent/identity.h guestagent/resume.c guestagent/resume.h guestagent/freeze.c guestagent/freeze.h guestagent/grow.c guestagent/grow.h guestagent/metrics.c \
	guestagent/user.c guestagent/user.h guestagent/spawn.c guestagent/spawn.h guestagent/text.c guestagent/text.h \
	guestagent/ring.c guestagent/ring.h guestagent/process.c guestagent/process.h guestagent/process_rpc.c \
	guestagent/reader.c guestagent/input.c guestagent/input_stream.c guestagent/files.c guestagent/upload.c guestagent/upload.h guestagent/compose.c guestagent/gzip.c guestagent/gzip.h \
	guestagent/sha256.c guestagent/sha256.h guestagent/signature.c guestagent/signature.h guestagent/trust.c guestagent/trust.h guestagent/multipart.c guestagent/multipart.h \
	guestagent/observer.c guestagent/observer.h guestagent/watch_rpc.c guestagent/tunnel.c guestagent/ports.c guestagent/reset.c guestagent/reset.h guestagent/filesystem.c guestagent/entry.c guestagent/entry.h guestagent/remove.c guestagent/remove.h \
	lib/err.c lib/err.h lib/errors.def lib/buf.c lib/buf.h lib/log.c lib/log.h lib/json.c lib/json.h \
	lib/h2.c lib/h2.h lib/h2_mark.c lib/h2_mark.h lib/cleanup.h

guestagent_hutch_guest_SOURCES = $(guest_sources)
guestagent_hutch_guest_CFLAGS = $(WARN) -ffunction-sections -fdata-sections -fstack-protector-strong
guestagent_hutch_guest_LDFLAGS = -static -Wl,--gc-sections
guestagent_hutch_guest_LDADD = -lnghttp2 -ljson-c -ltalloc -lz -lm

guestagent_hutch_guest_test_SOURCES = $(guest_sources) guestagent/front.c guestagent/front.h
guestagent_hutch_guest_test_CFLAGS = $(AM_CFLAGS) -DGUEST_FRONT
guestagent_hutch_guest_test_LDADD = $(NGHTTP2_LIBS) $(JSONC_LIBS) $(TALLOC_LIBS) -lz -lm

TESTS += tests/vm/guest_test.py
EXTRA_DIST += guestagent/README.md tests/vm/guest_test.py tests/vm/h2_client.py tests/vm/guest_lib.py tests/vm/guest_init.py \
	tests/vm/guest_process.py tests/vm/guest_files.py tests/vm/guest_files2.py tests/vm/guest_filesystem.py tests/vm/guest_watch.py tests/vm/guest_bounds.py tests/vm/guest_front.py tests/vm/guest_ports.py tests/vm/guest_session.py \
	tests/vm/guest_machine.py tests/vm/guest_hosts.py
