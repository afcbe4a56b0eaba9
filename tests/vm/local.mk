# tests/vm/local.mk - what the tests with machines need besides scripts.
check_PROGRAMS += tests/vm/races
tests_vm_races_SOURCES = tests/vm/races.c
tests_vm_races_LDADD = $(HUTCH_LIBS)
EXTRA_DIST += tests/vm/README.md
