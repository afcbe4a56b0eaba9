# lib/local.mk - what all programs share; it knows none of them.
noinst_LIBRARIES += lib/libhutch.a
lib_libhutch_a_SOURCES = \
	lib/errors.def lib/err.c lib/err.h lib/work.h lib/cleanup.h lib/banned.h \
	lib/buf.c lib/buf.h lib/log.c lib/log.h lib/json.c lib/json.h lib/id.c lib/id.h \
	lib/conf.def lib/conf.c lib/conf.h lib/db.c lib/db.h lib/field.c lib/field.h \
	lib/crypto.c lib/crypto.h lib/password.c lib/password.h lib/passwords.def lib/token.c lib/token.h
lib_libhutch_a_SOURCES += lib/h2.c lib/h2.h lib/h2_uv.c lib/h2_uv.h
