# conf/local.mk - the web servers' configurations and the landing page.
wwwdir = $(pkgdatadir)/www
dist_www_DATA = conf/www/index.html conf/www/style.css conf/www/favicon.svg
lighttpdconfdir = $(pkgdatadir)/conf/lighttpd
dist_lighttpdconf_DATA = conf/lighttpd/hutch.conf.in conf/lighttpd/tls.conf.in conf/lighttpd/routes.conf conf/lighttpd/api.conf \
	conf/lighttpd/ops.conf conf/lighttpd/gateway.conf conf/lighttpd/ports.conf conf/lighttpd/error.lua
apacheconfdir = $(pkgdatadir)/conf/apache
dist_apacheconf_DATA = conf/apache/hutch.conf.in conf/apache/routes.conf
apacheerrordir = $(pkgdatadir)/conf/apache/error
dist_apacheerror_DATA = conf/apache/error/400.json conf/apache/error/403.json conf/apache/error/404.json \
	conf/apache/error/405.json conf/apache/error/408.json conf/apache/error/411.json conf/apache/error/413.json \
	conf/apache/error/414.json conf/apache/error/416.json conf/apache/error/431.json conf/apache/error/500.json \
	conf/apache/error/501.json conf/apache/error/503.json conf/apache/error/504.json
apachee2berrordir = $(apacheerrordir)/e2b
dist_apachee2berror_DATA = conf/apache/error/e2b/400.json conf/apache/error/e2b/403.json conf/apache/error/e2b/404.json \
	conf/apache/error/e2b/405.json conf/apache/error/e2b/408.json conf/apache/error/e2b/411.json conf/apache/error/e2b/413.json \
	conf/apache/error/e2b/414.json conf/apache/error/e2b/416.json conf/apache/error/e2b/431.json conf/apache/error/e2b/500.json \
	conf/apache/error/e2b/501.json conf/apache/error/e2b/503.json conf/apache/error/e2b/504.json
EXTRA_DIST += conf/README.md tools/fill
