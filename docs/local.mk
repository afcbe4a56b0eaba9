# docs/local.mk - what is printed by the programs and committed (make print-api makes it anew), and the manual.
MANUAL = docs/man/hutch-api.8 docs/man/hutch-worker.8 docs/man/hutch-gateway.8 docs/man/hutch-agent.8 docs/man/hutchctl.8 \
	docs/man/hutch.conf.5 docs/man/hutch-errors.7
EXTRA_DIST += tools/README.md share/README.md docs/README.md docs/ports.md docs/e2b.md docs/openapi.json docs/design/performance.md docs/design/hosts.md tools/print-api tools/print-man $(MANUAL:=.scd)
print-api: fcgi-app/hutch-api gateway/hutch-gateway
	$(srcdir)/tools/print-api . openapi >docs.tmp && mv docs.tmp $(srcdir)/docs/openapi.json
	$(srcdir)/tools/print-api . lighttpd >docs.tmp && mv docs.tmp $(srcdir)/conf/lighttpd/routes.conf
	$(srcdir)/tools/print-api . apache >docs.tmp && mv docs.tmp $(srcdir)/conf/apache/routes.conf
	$(srcdir)/tools/print-man . conf >docs.tmp && mv docs.tmp $(srcdir)/docs/man/hutch.conf.5.scd
	$(srcdir)/tools/print-man . errors >docs.tmp && mv docs.tmp $(srcdir)/docs/man/hutch-errors.7.scd
.PHONY: print-api

if HAVE_SCDOC
man_MANS = $(MANUAL)
CLEANFILES += $(MANUAL)
SUFFIXES += .8.scd .8 .5.scd .5 .7.scd .7
.8.scd.8:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(SCDOC) <$< >$@.tmp && mv $@.tmp $@
.5.scd.5:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(SCDOC) <$< >$@.tmp && mv $@.tmp $@
.7.scd.7:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(SCDOC) <$< >$@.tmp && mv $@.tmp $@
endif
