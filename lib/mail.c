/*
 * mail.c - see mail.h. Queries: sql/queries/mail.sql.
 *
 * The message is written here, not by curl_mime: a file in mail.dir then has the very bytes that
 * SMTP would get.
 */
#include "mail.h"
#include "cleanup.h"
#include "db.h"
#include "job.h"
#include "log.h"
#include "mail.q.h"
#include "mustache.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* clang-format off */
const struct mail_kind mail_kinds[] = {
	{ "activate",           "/activate", true,  false, "After a sign-up: link to activate the account, 30 minutes" },
	{ "already_registered", NULL,        true,  false, "Somebody signed up with an address that has an account" },
	{ "address_in_deletion", NULL,       true,  false, "Somebody signed up with the address of an account that is being deleted" },
	{ "password_reset_link", "/reset-password", false, false, "Somebody asked for a new password: link, 15 minutes" },
	{ "password_reset",     NULL,        false, true,  "The password was set anew by the mailed link" },
	{ "password_changed",   NULL,        false, true,  "The password was changed" },
	{ "password_added",     NULL,        false, true,  "The account has a password now" },
	{ "email_change",       "/email/confirm", false, true, "To the new address: link, 30 minutes; to the old one: a notice" },
	{ "new_login",          NULL,        false, true,  "A sign-in from a device that the account did not know" },
	{ "mfa_changed",        NULL,        false, true,  "A second factor came or went" },
	{ "session_stolen",     NULL,        false, true,  "An old refresh token came again: the login was ended" },
	{ "disabled",           NULL,        false, true,  "An administrator disabled the account" },
	{ "enabled",            NULL,        false, true,  "An administrator enabled the account again" },
	{ "account_deleted",    NULL,        false, true,  "The account was deleted; when it is purged" },
	{ "account_purged",     NULL,        false, true,  "The account was erased; the last mail to the address" },
	{ "restored",           NULL,        false, true,  "An administrator restored a deleted account" },
	{ "set_password",       "/reset-password", false, false, "An administrator made the account: link to choose a password, 24 hours" },
	{ "mfa_reset",          NULL,        false, true,  "An administrator removed the second factors" },
	{ "team_created",       NULL,        false, false, "A team was made" },
	{ "team_deleted",       NULL,        false, false, "A team was deleted: to its members" },
	{ "added",              NULL,        false, false, "Somebody was added to a team" },
	{ "removed",            NULL,        false, false, "Somebody was removed from a team" },
	{ "role_changed",       NULL,        false, false, "Somebody's role in a team changed" },
	{ "invitation",         "/invitation", true, false, "An invitation to a team: link to accept it" },
	{ 0 },
};
/* clang-format on */

static const struct mail_kind *
mail_kind(const char *name)
{
	const struct mail_kind *k;

	for (k = mail_kinds; k->name; k++)
		if (strcmp(k->name, name) == 0)
			return k;
	return NULL;
}

int
mail_add(struct work *w, const struct keys *keys, const struct mail_new *m)
{
	const struct mail_kind *k = mail_kind(m->template);
	struct buf vars = BUF(w->db->mem), args = BUF(w->db->mem);
	struct uuid id = uuid_new();
	uint8_t hash[HASH_SIZE];
	char text[ID_SIZE];
	struct q_mail_in *in;
	const struct pair *v;

	if (!k)
		return err_set(&w->err, E_BUG, "no mail %s", m->template);
	crypto_hmac(keys->key[KEY_ADDRESS], m->to, strlen(m->to), hash);
	buf_chr(&vars, '{');
	for (v = m->vars; v && v->name; v++) {
		if (v != m->vars)
			buf_chr(&vars, ',');
		buf_json(&vars, v->name);
		buf_chr(&vars, ':');
		buf_json(&vars, v->value);
	}
	buf_chr(&vars, '}');
	if (q_mail_insert(w->db, &in, .id = &id, .template = k->name, .vars = vars.data,
		.class = k->notice ? "notice"
		    : k->anybody   ? "anybody"
				   : "other",
		.user = m->user, .to_hash = { hash, sizeof hash }, .to_addr = m->to,
		.to_name = m->name, .token = m->token, .purpose = m->purpose,
		.expires_at = m->expires_at ? m->expires_at : NULL_INT) < 0)
		return -1;
	if (!in->wanted)
		return 0;
	id_write(text, "eml-", &id);
	buf_fmt(&args, "{\"email\":\"%s\"}", text);
	if (job_add(w,
		&(struct job_new){ .kind = "mail.send",
		    .args = args.data,
		    .unique_key = text,
		    .deadline_at = m->expires_at },
		NULL, NULL) < 0)
		return -1;
	return 1;
}

/* A template of the operator (/etc/hutch/mail) goes before ours; the person's language before
 * English. */
static const char *
read_template(void *mem, const struct conf *c, const char *name, const char *locale,
    const char *ext, struct err *e)
{
	const char *const dir[] = { SYSCONFDIR "/hutch/mail", c->mail_templates };
	const char *const lang[] = { locale, "en" };
	size_t i;

	for (i = 0; i < 4; i++) {
		char *path =
		    talloc_asprintf(mem, "%s/%s/%s.%s", dir[i % 2], lang[i / 2], name, ext);
		auto_file *f = fopen(path, "re");
		char *text;
		size_t n;

		if (!f)
			continue;
		text = talloc_zero_size(mem, 65537);
		n = fread(text, 1, 65536, f);
		if (n == 65536 || ferror(f)) {
			err_set(e, E_CONFIG, "%s is longer than 64 KiB, or cannot be read", path);
			return NULL;
		}
		return text;
	}
	err_set(e, E_CONFIG, "no mail template %s.%s in %s", name, ext, c->mail_templates);
	return NULL;
}

int
mail_render(void *mem, const struct conf *c, const char *template, const char *locale,
    const struct pair *vars, struct mail *ret, struct err *e)
{
	struct buf subject = BUF(mem), text = BUF(mem), html = BUF(mem);
	const struct {
		const char *ext;
		struct buf *out;
		enum mustache_escape escape;
	} part[] = { { "subject", &subject, MUSTACHE_PLAIN }, { "txt", &text, MUSTACHE_PLAIN },
		{ "html", &html, MUSTACHE_HTML } };
	const char *source;
	size_t i;

	for (i = 0; i < nitems(part); i++) {
		source = read_template(mem, c, template, locale, part[i].ext, e);
		if (!source || mustache_render(part[i].out, source, vars, part[i].escape, e) < 0)
			return -1;
	}
	while (subject.len &&
	    (subject.data[subject.len - 1] == '\n' || subject.data[subject.len - 1] == ' '))
		subject.data[--subject.len] = '\0';
	if (subject.len > 250)
		subject.data[250] = '\0';
	ret->template = template;
	ret->subject = subject.data;
	ret->text = text.data;
	ret->html = html.data;
	return 0;
}

/* Quoted-printable (RFC 2045 §6.7), lines of at most 76 characters. */
static void
add_qp(struct buf *b, const char *text)
{
	size_t column = 0;
	const char *p;

	for (p = text; *p; p++) {
		unsigned char c = *p;
		bool blank_at_end =
		    (c == ' ' || c == '\t') && (p[1] == '\n' || !p[1] || p[1] == '\r');
		bool plain =
		    ((c > ' ' && c < 0x7f && c != '=') || c == ' ' || c == '\t') && !blank_at_end;

		if (c == '\r' && p[1] == '\n')
			continue;
		if (c == '\n') {
			buf_str(b, "\r\n");
			column = 0;
			continue;
		}
		if (column + (plain ? 1 : 3) > 75) {
			buf_str(b, "=\r\n");
			column = 0;
		}
		if (plain)
			buf_chr(b, (char)c);
		else
			buf_fmt(b, "=%02X", c);
		column += plain ? 1 : 3;
	}
	buf_str(b, "\r\n");
}

/* A header of words of people: RFC 2047 encoded words when it is not short ASCII; never a line
 * break. */
static void
add_header_text(struct buf *b, const char *name, const char *text)
{
	auto_talloc char *clean = talloc_strdup(NULL, text);
	bool plain = strlen(text) < 70;
	size_t n, len;
	char *p;

	for (p = clean; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
		plain = plain && (unsigned char)*p < 0x7f;
	}
	plain = plain && !strstr(clean, "=?");
	buf_fmt(b, "%s: ", name);
	if (plain) {
		buf_fmt(b, "%s\r\n", clean);
		return;
	}
	for (p = clean, len = strlen(clean); len; p += n, len -= n) {
		n = len < 42 ? len : 42;
		while (n < len && n && ((unsigned char)p[n] & 0xc0) == 0x80)
			n--; /* a character stays in one word */
		if (!n)
			n = len < 42 ? len : 42;
		buf_str(b, p == clean ? "=?UTF-8?B?" : "\r\n =?UTF-8?B?");
		buf_base64(b, p, n);
		buf_str(b, "?=");
	}
	buf_str(b, "\r\n");
}

static void
write_message(struct buf *b, const struct conf *c, const struct mail *m)
{
	auto_talloc char *boundary = talloc_asprintf(NULL, "=_%s", m->id);
	const struct {
		const char *type, *text;
	} part[] = { { "plain", m->text }, { "html", m->html } };
	time_t now = time(NULL);
	char date[64];
	struct tm tm;
	size_t i;

	gmtime_r(&now, &tm);
	strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", &tm);
	buf_fmt(b, "Date: %s\r\nFrom: %s\r\nTo: <%s>\r\n", date, c->mail_from, m->to);
	add_header_text(b, "Subject", m->subject);
	buf_fmt(b,
	    "Message-ID: <%s@%s>\r\nAuto-Submitted: auto-generated\r\nX-Hutch-Template: %s\r\n"
	    "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"%s\"\r\n\r\n",
	    m->id, c->mail_domain, m->template, boundary);
	for (i = 0; i < nitems(part); i++) {
		buf_fmt(b,
		    "--%s\r\nContent-Type: text/%s; charset=utf-8\r\n"
		    "Content-Transfer-Encoding: quoted-printable\r\n\r\n",
		    boundary, part[i].type);
		add_qp(b, part[i].text);
	}
	buf_fmt(b, "--%s--\r\n", boundary);
}

/* One file a mail, complete or not there at all; the same mail again replaces it. */
static int
write_file(const struct conf *c, const struct mail *m, const struct buf *b, struct err *e)
{
	auto_talloc char *tmp = talloc_asprintf(NULL, "%s/.%s", c->mail_dir, m->id);
	auto_talloc char *path = talloc_asprintf(NULL, "%s/%s.eml", c->mail_dir, m->id);
	auto_fd fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t off;
	ssize_t n;

	if (fd < 0)
		return err_sys(e, "open %s", tmp);
	for (off = 0; off < b->len; off += n)
		if ((n = write(fd, b->data + off, b->len - off)) < 0)
			return err_sys(e, "write %s", tmp);
	if (fsync(fd) < 0 || rename(tmp, path) < 0)
		return err_sys(e, "rename %s", path);
	return 0;
}

struct upload {
	const struct buf *message;
	size_t off;
	enum mail_phase phase;
};

static size_t
give_body(char *to, size_t one, size_t n, void *arg)
{
	struct upload *u = arg;
	size_t left = u->message->len - u->off;

	n *= one;
	if (n > left)
		n = left;
	memcpy(to, u->message->data + u->off, n);
	u->off += n;
	return n;
}

/* The phase is the last command that we said. Nothing of it is kept: it may be a password. */
static int
watch(CURL *h, curl_infotype type, char *p, size_t n, void *arg)
{
	static const struct {
		const char *word;
		enum mail_phase phase;
	} commands[] = { { "AUTH", MAIL_AUTH }, { "MAIL FROM", MAIL_FROM },
		{ "RCPT TO", MAIL_RCPT }, { "DATA", MAIL_DATA } };
	struct upload *u = arg;
	size_t i;

	(void)h;
	for (i = 0; type == CURLINFO_HEADER_OUT && i < nitems(commands); i++)
		if (n >= strlen(commands[i].word) &&
		    memcmp(p, commands[i].word, strlen(commands[i].word)) == 0)
			u->phase = commands[i].phase;
	return 0;
}

static const char *
read_password(void *mem, const struct conf *c, struct err *e)
{
	auto_file *f = fopen(c->smtp_password_file, "re");
	char line[512] = "";

	if (!f || !fgets(line, sizeof line, f)) {
		err_set(e, E_SMTP, "smtp.password_file %s cannot be read", c->smtp_password_file);
		return NULL;
	}
	line[strcspn(line, "\r\n")] = '\0';
	return talloc_strdup(mem, line);
}

/* The address between < and >, or the whole. */
static const char *
bare_address(void *mem, const char *from)
{
	const char *p = strrchr(from, '<'), *end = p ? strchr(p, '>') : NULL;

	return end ? talloc_strndup(mem, p + 1, end - p - 1) : from;
}

static int
set_options(CURL *h, void *mem, const struct conf *c, struct upload *u, struct err *e)
{
	bool implicit = strcmp(c->smtp_tls, "implicit") == 0;
	const char *password = NULL;
	long tls = strcmp(c->smtp_tls, "off") == 0      ? CURLUSESSL_NONE
	    : strcmp(c->smtp_tls, "opportunistic") == 0 ? CURLUSESSL_TRY
							: CURLUSESSL_ALL;

	if (*c->smtp_user && *c->smtp_password_file && !(password = read_password(mem, c, e)))
		return -1;
	curl_easy_setopt(h, CURLOPT_URL,
	    talloc_asprintf(mem, "%s://%s:%lld/%s", implicit ? "smtps" : "smtp", c->smtp_host,
		(long long)c->smtp_port, c->mail_domain));
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_PROXY, "");
	curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
	curl_easy_setopt(h, CURLOPT_USE_SSL, tls);
	curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (*c->smtp_ca_file)
		curl_easy_setopt(h, CURLOPT_CAINFO, c->smtp_ca_file);
	if (*c->smtp_user) {
		curl_easy_setopt(h, CURLOPT_USERNAME, c->smtp_user);
		curl_easy_setopt(h, CURLOPT_PASSWORD, password ? password : "");
	}
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, 10L);
	curl_easy_setopt(h, CURLOPT_TIMEOUT, 60L);
	curl_easy_setopt(h, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(h, CURLOPT_READFUNCTION, give_body);
	curl_easy_setopt(h, CURLOPT_READDATA, u);
	curl_easy_setopt(h, CURLOPT_VERBOSE, 1L);
	curl_easy_setopt(h, CURLOPT_DEBUGFUNCTION, watch);
	curl_easy_setopt(h, CURLOPT_DEBUGDATA, u);
	return 0;
}

/* Whose fault is it? Spec 04 §3: the phase decides. */
static int
judge(const struct mail_result *r, const char *text, struct err *e)
{
	if (r->code >= 400 && r->code < 500)
		return err_set(e, E_THROTTLED, "mail server says %d: %s", r->code, text);
	if (r->code >= 500 && r->phase >= MAIL_RCPT)
		return err_set(e, E_BOUNCED, "mail server says %d to the %s", r->code,
		    r->phase == MAIL_RCPT ? "recipient" : "content");
	return err_set(e, E_SMTP, "mail server, code %d: %s", r->code, text);
}

int
mail_send(
    void *mem, const struct conf *c, const struct mail *m, struct mail_result *ret, struct err *e)
{
	struct buf message = BUF(mem);
	struct upload u = { .message = &message };
	struct curl_slist *to;
	CURLcode rc;
	CURL *h;
	long code = 0;

	*ret = (struct mail_result){ 0 };
	write_message(&message, c, m);
	if (!*c->smtp_host)
		return write_file(c, m, &message, e);
	h = curl_easy_init();
	if (!h || set_options(h, mem, c, &u, e) < 0) {
		curl_easy_cleanup(h);
		return err_set(e, E_SMTP, "curl_easy_init failed");
	}
	to = curl_slist_append(NULL, m->to);
	curl_easy_setopt(h, CURLOPT_MAIL_FROM, bare_address(mem, c->mail_from));
	curl_easy_setopt(h, CURLOPT_MAIL_RCPT, to);
	rc = curl_easy_perform(h);
	curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &code);
	curl_slist_free_all(to);
	curl_easy_cleanup(h);
	*ret = (struct mail_result){ (int)code, u.phase };
	return rc == CURLE_OK ? 0 : judge(ret, curl_easy_strerror(rc), e);
}
