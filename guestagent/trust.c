/* trust.c - see trust.h. */
#include "trust.h"

#include "buf.h"
#include "cleanup.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define BUNDLE "etc/ssl/certs/ca-certificates.crt"
#define OWN    "usr/local/share/ca-certificates/hutch.crt"
#define BEGIN  "-----BEGIN CERTIFICATE-----"
#define END    "-----END CERTIFICATE-----"
#define MARK   "# what follows was given to this capsule (hutch)\n"

enum { BUNDLE_MAX = 4 * 1024 * 1024, PEM_MAX = 256 * 1024 };

int
trust_check(const char *pem, struct err *e)
{
	const char *p = pem;

	if (strlen(pem) > PEM_MAX)
		return err_set(e, E_BAD_INPUT, "\"caBundle\" is longer than %d bytes", PEM_MAX);
	for (p += strspn(p, " \r\n"); *p; p += strspn(p, " \r\n")) {
		if (strncmp(p, BEGIN, strlen(BEGIN)) == 0) {
			p += strlen(BEGIN);
			p += strspn(p,
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
			    "=\r\n");
		}
		if (strncmp(p, END, strlen(END)) != 0)
			return err_set(e, E_BAD_INPUT, "\"caBundle\" is not PEM certificates");
		p += strlen(END);
	}
	return 0;
}

static void
folders_make(const char *path)
{
	char part[PATH_MAX];

	(void)snprintf(part, sizeof part, "%s", path);
	for (char *p = strchr(part + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		(void)mkdir(part, 0755);
		*p = '/';
	}
}

/* Whole or not at all: programs read it at any moment. */
static int
replace(const char *path, const struct buf *b, struct err *e)
{
	char aside[PATH_MAX];
	FILE *f;
	bool bad;

	(void)snprintf(aside, sizeof aside, "%s.hutch", path);
	folders_make(path);
	f = fopen(aside, "we");
	if (!f)
		return err_sys(e, "%s", aside);
	bad = fwrite(b->data ? b->data : "", 1, b->len, f) != b->len;
	bad |= fclose(f) != 0;
	if (bad || rename(aside, path) < 0)
		return err_sys(e, "%s", path);
	return 0;
}

int
trust_set(const char *root, const char *pem, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	const char *bundle = talloc_asprintf(mem, "%s/" BUNDLE, root);
	const char *own = talloc_asprintf(mem, "%s/" OWN, root);
	struct buf b = BUF(mem), text = BUF(mem);
	auto_file *f = fopen(bundle, "re");
	char line[1024];
	bool had = false;

	while (f && b.len < BUNDLE_MAX && !had && fgets(line, sizeof line, f)) {
		had = strcmp(line, MARK) == 0;
		if (!had)
			buf_str(&b, line);
	}
	if (!pem || !*pem) {
		if (unlink(own) < 0 && errno != ENOENT)
			return err_sys(e, "%s", own);
		return had ? replace(bundle, &b, e) : 0;
	}
	if (b.len && b.data[b.len - 1] != '\n')
		buf_chr(&b, '\n');
	buf_str(&text, pem);
	buf_chr(&text, '\n');
	buf_str(&b, MARK);
	buf_add(&b, text.data, text.len);
	return replace(own, &text, e) < 0 || replace(bundle, &b, e) < 0 ? -1 : 0;
}
