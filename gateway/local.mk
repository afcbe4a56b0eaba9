# gateway/local.mk - how gateway is built.
