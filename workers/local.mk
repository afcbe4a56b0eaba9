# workers/local.mk - how workers is built.
