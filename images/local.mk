# images/local.mk - how images is built.
