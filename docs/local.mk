# docs/local.mk - how docs is built.
