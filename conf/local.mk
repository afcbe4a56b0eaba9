# conf/local.mk - how conf is built.
