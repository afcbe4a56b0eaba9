# tests/local.mk - the tests that make check runs; those of a running instance stand in runtests.
EXTRA_DIST += tests/README.md
include tests/http/local.mk
include tests/unit/local.mk
include tests/sql/local.mk
include tests/check/local.mk
include tests/vm/local.mk
