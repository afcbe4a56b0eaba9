# tests/local.mk - how tests is built.
