# tests/local.mk - how tests is built.
include tests/http/local.mk
