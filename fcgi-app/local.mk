# fcgi-app/local.mk - how fcgi-app is built.
