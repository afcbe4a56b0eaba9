# hostagent/local.mk - the host agent: VMs of one machine. See README.md.
sbin_PROGRAMS += hostagent/hutch-agent
hostagent_hutch_agent_SOURCES = \
	hostagent/agent.h hostagent/main.c \
	hostagent/loop.c hostagent/loop.h hostagent/flow.c hostagent/flow.h \
	hostagent/priv.c hostagent/priv.h hostagent/priv_serve.c hostagent/priv_wire.h hostagent/uids.c \
	hostagent/posture.c hostagent/posture.h hostagent/posture_print.c hostagent/confine.c hostagent/confine.h \
	hostagent/cgroup.c hostagent/cgroup.h hostagent/landlock.c hostagent/landlock.h \
	hostagent/net.c hostagent/net.h hostagent/net_policy.c hostagent/net_policy.h \
	hostagent/netns.c hostagent/netns.h hostagent/netlink.c hostagent/netlink.h \
	hostagent/nft.c hostagent/nft.h hostagent/egress.c hostagent/egress.h hostagent/egress_own.h \
	hostagent/egress_dns.c hostagent/egress_head.c hostagent/egress_proxy.c \
	hostagent/journal.c hostagent/journal.h hostagent/adopt.c hostagent/adopt.h \
	hostagent/accel.c hostagent/accel.h \
	hostagent/qemu.c hostagent/qemu.h hostagent/qmp.c hostagent/qmp.h \
	hostagent/disk.c hostagent/disk.h hostagent/stream_filter.c hostagent/stream_filter.h \
	hostagent/vm.c hostagent/vm.h hostagent/vm_run.h hostagent/vm_save.c hostagent/sums.c hostagent/sums.h hostagent/vm_end.c hostagent/vm_sleep.c hostagent/vm_guest.c hostagent/vm_guest.h \
	hostagent/artifact.c hostagent/artifact.h hostagent/artifact_used.c hostagent/chain.c hostagent/chain.h \
	hostagent/starts.c hostagent/starts.h \
	hostagent/template.c hostagent/template.h hostagent/image.c hostagent/image.h \
	hostagent/image_file.c hostagent/image_file.h hostagent/pool.c hostagent/scaling.c hostagent/scaling.h \
	hostagent/guest.c hostagent/guest.h hostagent/identity.c hostagent/identity.h \
	hostagent/capsule.c hostagent/capsule.h hostagent/capsule_in.h hostagent/capsule_state.c \
	hostagent/capsule_work.c hostagent/capsule_image.c hostagent/capsule_sleep.c hostagent/capsule_hibernate.c \
	hostagent/capsule_steps.c hostagent/capsule_grow.c hostagent/capsule_boot.c hostagent/capsule_shutdown.c hostagent/capsule_shutdown.h hostagent/capsule_flat.c hostagent/capsule_seal.c hostagent/capsule_snapshot.c hostagent/api_sleep.c hostagent/api_sleep.h hostagent/quarantine.c \
	hostagent/api.c hostagent/api.h hostagent/api_call.h hostagent/api_patch.c hostagent/api_watch.c hostagent/api_watch.h hostagent/bridge.c \
	hostagent/idle.c hostagent/idle.h hostagent/activity.c hostagent/activity.h \
	hostagent/logs.c hostagent/logs.h hostagent/own_log.c hostagent/own_log.h hostagent/load.c hostagent/load.h hostagent/api_host.c hostagent/api_host.h hostagent/hung.c hostagent/hung.h \
	hostagent/metrics.c hostagent/metrics.h hostagent/metrics_in.h hostagent/metrics_sample.c \
	hostagent/host.c hostagent/host.h hostagent/control.c hostagent/control.h \
	hostagent/certs.c hostagent/certs.h hostagent/reports.c hostagent/reports.h hostagent/artifact_api.c hostagent/artifact_api.h hostagent/artifact_pull.c
hostagent_hutch_agent_LDADD = lib/libhutch.a $(TALLOC_LIBS) $(JSONC_LIBS) $(CONFUSE_LIBS) \
	$(CURL_LIBS) $(ZSTD_LIBS) $(CRYPTO_LIBS) $(NGHTTP2_LIBS) $(UV_LIBS) $(UUID_LIBS) \
	$(MNL_LIBS)
EXTRA_DIST += hostagent/README.md docs/design/sleep.md

check_PROGRAMS += tests/vm/engine_filter_test
TESTS += tests/vm/engine_filter_test
tests_vm_engine_filter_test_SOURCES = tests/vm/engine_filter_test.c \
	hostagent/stream_filter.c hostagent/stream_filter.h hostagent/disk.c hostagent/disk.h hostagent/sums.c hostagent/sums.h
tests_vm_engine_filter_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_vm_engine_filter_test_LDADD = lib/libhutch.a $(CHECK_LIBS) $(TALLOC_LIBS) $(CRYPTO_LIBS)
check_PROGRAMS += tests/vm/isolation_parse_test
TESTS += tests/vm/isolation_parse_test
tests_vm_isolation_parse_test_SOURCES = tests/vm/isolation_parse_test.c hostagent/egress_head.c hostagent/egress_dns.c \
	hostagent/net_policy.c hostagent/loop.c
tests_vm_isolation_parse_test_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
tests_vm_isolation_parse_test_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/hostagent
tests_vm_isolation_parse_test_LDADD = lib/libhutch.a $(CHECK_LIBS) $(TALLOC_LIBS) $(JSONC_LIBS) $(UV_LIBS)
# with real virtual machines; run by runtests: engine_test.py AGENT IMAGE_DIR
EXTRA_DIST += tests/vm/engine_test.py tests/vm/engine_sleep_test.py tests/vm/engine_boot_test.py tests/vm/engine_grow_test.py tests/vm/engine_scaling_test.py tests/vm/engine_lib.py \
	tests/fuzz/README.md tests/fuzz/run tests/fuzz/fuzz.h tests/fuzz/seeds.py tests/fuzz/gateway_fuzz.c tests/fuzz/guest_parse_fuzz.c \
	tests/fuzz/guest_session_fuzz.c tests/fuzz/host_session_fuzz.c tests/fuzz/stream_filter_fuzz.c tests/fuzz/corpus.py tests/fuzz/corpus/made-0 \
	tests/fuzz/corpus/made-1 tests/fuzz/corpus/made-2 tests/vm/isolation_test.py tests/vm/isolation_net.py tests/vm/watch_test.py tests/vm/watch_agent.py
EXTRA_DIST += tests/vm/hostile_test.py tests/vm/hosts_test.py tests/vm/hosts_net.py tests/vm/hosts_scaling.py
