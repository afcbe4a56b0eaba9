# docs/local.mk - what is printed by the programs and committed; make print-api makes it anew.
EXTRA_DIST += docs/openapi.json tools/print-api
print-api: fcgi-app/hutch-api gateway/hutch-gateway
	$(srcdir)/tools/print-api . openapi >docs.tmp && mv docs.tmp $(srcdir)/docs/openapi.json
	$(srcdir)/tools/print-api . lighttpd >docs.tmp && mv docs.tmp $(srcdir)/conf/lighttpd/routes.conf
	$(srcdir)/tools/print-api . apache >docs.tmp && mv docs.tmp $(srcdir)/conf/apache/routes.conf
.PHONY: print-api
