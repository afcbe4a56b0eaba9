/*
 * guest_session_fuzz.c - the guest's session and its calls up to their handlers: HTTP/2 frames,
 * heads, tokens, content types, Connect frames and messages, /init and signatures as they are.
 *
 * The first byte says how: raw frames behind the preface, or calls that a good client makes with
 * bad bodies. Handlers that touch the machine are replaced by readers of their message.
 */
#include "fuzz.h"

#include "guest_machine.h"

/* ---- the client */

static struct h2_stream *asked; /* NULL: it closed */

static void
client_close(struct h2_stream *s, uint32_t error)
{
	(void)error;
	if (asked == s)
		asked = NULL;
}

static const struct h2_events client_events = { .on_close = client_close };

static void
carry(struct h2 *client, struct h2 *server)
{
	struct err e = { 0 };
	const uint8_t *p = NULL;
	bool more = true;
	ssize_t n;

	while (more) {
		more = false;
		while ((n = h2_pull(client, &p)) > 0) {
			more = true;
			if (h2_feed(server, p, (size_t)n, &e) < 0)
				return;
		}
		while ((n = h2_pull(server, &p)) > 0) {
			more = true;
			if (h2_feed(client, p, (size_t)n, &e) < 0)
				return;
		}
	}
}

/* Calls with heads that are allowed and bodies that are not. */
static void
calls(void *mem, struct fuzz *f)
{
	static const char *const paths[] = { "/init", "/health", "/envs",
		"/files?path=%2fx&signature=", "/process.Process/Start",
		"/process.Process/StreamInput", "/process.Process/List",
		"/filesystem.Filesystem/Stat", "/filesystem.Filesystem/WatchDir", "/files/compose",
		"/nothing", "/process.Process/SendInput", "/freeze" };
	static const char *const types[] = { "application/json", "application/connect+json",
		"multipart/form-data; boundary=b", "text/plain" };
	struct h2 *server = h2_new(mem, H2_SERVER, &server_events, &server_limits, NULL);
	struct h2 *client = h2_new(mem, H2_CLIENT, &client_events, NULL, NULL);

	for (int i = 0; i < 6 && f->n; i++) {
		uint8_t a = fuzz_byte(f), b = fuzz_byte(f);
		const uint8_t *p = NULL;
		size_t n = fuzz_piece(f, 64, &p);
		char *extra = talloc_strndup(mem, n ? (const char *)p : "", n);
		struct h2_header h[] = { { ":method", a & 64 ? "GET" : "POST" },
			{ ":path",
			    talloc_asprintf(mem, "%s%s", paths[a % (sizeof paths / sizeof *paths)],
				b & 16 ? extra : "") },
			{ "content-type", types[b & 3] },
			{ "x-access-token", b & 4 ? "t" : "wrong" },
			{ b & 8 ? "authorization" : "connect-timeout-ms", extra },
			{ b & 32 ? "x-none" : "keepalive-ping-interval", extra }, { 0 } };
		struct err e = { 0 };

		for (char *c = extra; *c; c++)
			if ((unsigned char)*c < 0x21 || (unsigned char)*c > 0x7e)
				*c = 'x';
		if (!(b & 4) && (b & 64))
			h[3].name = "x-other";
		asked = h2_request(client, h, false, NULL, &e);
		if (!asked)
			break;
		n = fuzz_piece(f, 4096, &p);
		h2_write(asked, p, n);
		carry(client, server);
		if (h2_streams(client) && (b & 128))
			break;
		if (asked)
			h2_finish(asked);
		carry(client, server);
		if (!h2_alive(client))
			break;
	}
}

static void
raw(void *mem, struct fuzz *f)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	struct h2 *server = h2_new(mem, H2_SERVER, &server_events, &server_limits, NULL);
	struct err e = { 0 };
	const uint8_t *p = NULL;
	size_t n;

	if (h2_feed(server, (const uint8_t *)preface, sizeof preface - 1, &e) < 0)
		abort();
	while (f->n) {
		n = fuzz_piece(f, 16384, &p);
		if (h2_feed(server, p, n, &e) < 0)
			return;
		while (h2_pull(server, &p) > 0)
			;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool begun;
	struct fuzz f = { data, size };
	void *mem = talloc_new(NULL);
	bool good = fuzz_byte(&f) & 1;

	if (!begun) {
		log_open("fuzz", LOG_LEVEL_ERROR);
		(void)setenv("HUTCH_FUZZ", "1", 1);
	}
	begun = true;
	if (good)
		calls(mem, &f);
	else
		raw(mem, &f);
	talloc_free(mem);
	return 0;
}
