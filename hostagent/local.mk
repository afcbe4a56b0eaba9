# hostagent/local.mk - how hostagent is built.
