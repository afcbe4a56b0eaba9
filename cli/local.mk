# cli/local.mk - how cli is built.
