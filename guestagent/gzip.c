/* gzip.c - see gzip.h. */
#include "gzip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <talloc.h>
#include <zlib.h>

enum { OUT = 16 * 1024, GZIP = 16, WINDOW = 13, LEVEL = 1, MEMORY = 6 }; /* packing: 64 KiB */

struct gzip {
	z_stream z;
	bool packs, between; /* between two members, of which there may be several */
	gzip_out *out;
	void *arg;
};

static int
gzip_free(struct gzip *g)
{
	(void)(g->packs ? deflateEnd(&g->z) : inflateEnd(&g->z));
	return 0;
}

static struct gzip *
gzip_new(void *mem, bool packs, gzip_out *out, void *arg)
{
	struct gzip *g = talloc_zero(mem, struct gzip);
	int rc;

	if (!g)
		abort();
	g->packs = packs;
	g->out = out;
	g->arg = arg;
	rc = packs
	    ? deflateInit2(&g->z, LEVEL, Z_DEFLATED, WINDOW + GZIP, MEMORY, Z_DEFAULT_STRATEGY)
	    : inflateInit2(&g->z, MAX_WBITS + GZIP);
	if (rc != Z_OK)
		abort();
	talloc_set_destructor(g, gzip_free);
	return g;
}

struct gzip *
gzip_pack(void *mem, gzip_out *out, void *arg)
{
	return gzip_new(mem, true, out, arg);
}

struct gzip *
gzip_unpack(void *mem, gzip_out *out, void *arg)
{
	return gzip_new(mem, false, out, arg);
}

static int
run(struct gzip *g, int flush, struct err *e)
{
	uint8_t data[OUT];
	int rc;

	do {
		g->z.next_out = data;
		g->z.avail_out = sizeof data;
		if (g->between && g->z.avail_in)
			(void)inflateReset(&g->z);
		g->between = g->between && !g->z.avail_in;
		if (g->between)
			return 0;
		rc = g->packs ? deflate(&g->z, flush) : inflate(&g->z, Z_NO_FLUSH);
		if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
			return err_set(e, E_BAD_INPUT, "the body is not gzip");
		g->between = rc == Z_STREAM_END;
		if (g->z.avail_out < sizeof data &&
		    g->out(g->arg, data, sizeof data - g->z.avail_out, e) < 0)
			return -1;
	} while (g->z.avail_out == 0 || (g->z.avail_in && rc != Z_BUF_ERROR));
	return 0;
}

int
gzip_feed(struct gzip *g, const uint8_t *p, size_t n, struct err *e)
{
	g->z.next_in = (uint8_t *)p;
	g->z.avail_in = (uInt)n;
	return run(g, Z_NO_FLUSH, e);
}

int
gzip_end(struct gzip *g, struct err *e)
{
	g->z.next_in = NULL;
	g->z.avail_in = 0;
	if (g->packs)
		return run(g, Z_FINISH, e);
	return g->between ? 0 : err_set(e, E_BAD_INPUT, "the gzip body is not complete");
}
