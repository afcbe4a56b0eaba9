# guestagent/local.mk - how guestagent is built.
