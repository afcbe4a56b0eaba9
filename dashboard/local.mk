# dashboard/local.mk - the pages below /app/: files as they are, there is no build step.
webdir = $(pkgdatadir)/web
dist_web_DATA = dashboard/cli.html dashboard/cli.js dashboard/port.html dashboard/port.js dashboard/api.js dashboard/page.js \
	dashboard/sign_in.js dashboard/app.css dashboard/provider.html dashboard/provider.js
EXTRA_DIST += dashboard/README.md
