/* stream_filter.c - see stream_filter.h. */
#include "stream_filter.h"
#include "cleanup.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum {
	IN = 1 << 14,
	OUT = 1 << 13,
	MAX_DEVICES = 1 << 16
}; /* small ones: their edges are met often */
#else
enum { IN = 1 << 20, OUT = 1 << 18, MAX_DEVICES = 16 << 20 }; /* the last: of device state */
#endif
enum {
	MAGIC = 0x5145564d,
	VERSION = 3,
	PAGE = 4096,
	MAX_CONFIG = 4096 /* of the machine's name */
};

/* Section types. */
enum { SEC_EOF, SEC_START, SEC_PART, SEC_END, SEC_FULL, SEC_SUBSECTION, SEC_VMDESC, SEC_CONFIG };
enum { SEC_FOOTER = 0x7e };

/* Flags in the low bits of a RAM record's word; the high bits are the page's offset. */
enum {
	RAM_ZERO = 0x02,
	RAM_SIZES = 0x04,
	RAM_PAGE = 0x08,
	RAM_EOS = 0x10,
	RAM_CONTINUE = 0x20,
	RAM_KNOWN = RAM_ZERO | RAM_SIZES | RAM_PAGE | RAM_EOS | RAM_CONTINUE,
};

struct filter {
	struct stream_filter *s;
	struct err *e;
	uint8_t *in, *out;
	size_t at, len, fill;  /* unread bytes are in[at..len); out[0..fill) waits */
	uint32_t ram;          /* id of the RAM section */
	bool sizes;            /* the list of blocks was seen */
	char block[256];       /* of the record read last */
	char said[256];        /* of the record written last: CONTINUE refers to it */
	uint8_t *seen;         /* a bit per page of our block: it came */
	uint8_t *kept;         /* it was kept: what comes later must be, too */
	uint8_t *data;         /* the parent has bytes there; elsewhere it is zero */
	const uint8_t *parent; /* mapped; NULL: all zeros */
	uint64_t missing;      /* pages that have not come */
};

static const uint8_t nothing[PAGE];

static bool
bit(const uint8_t *map, uint64_t n)
{
	return map[n / 8] >> (n % 8) & 1;
}

static void
bit_set(uint8_t *map, uint64_t n)
{
	map[n / 8] |= (uint8_t)(1 << (n % 8));
}

static int
flush(struct filter *f)
{
	size_t done = 0;
	ssize_t n;

	while (done < f->fill) {
		n = write(f->s->out, f->out + done, f->fill - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(f->e, "write thin stream");
		done += n;
	}
	if (f->s->wrote)
		f->s->wrote(f->s->arg, f->out, f->fill);
	f->s->bytes_out += f->fill;
	f->fill = 0;
	return 0;
}

static int
emit(struct filter *f, const void *p, size_t n)
{
	size_t k;

	for (; n; n -= k, p = (const char *)p + k) {
		if (f->fill == OUT && flush(f) < 0)
			return -1;
		k = n < OUT - f->fill ? n : OUT - f->fill;
		memcpy(f->out + f->fill, p, k);
		f->fill += k;
	}
	return 0;
}

/* n bytes are at in + at: 1; the stream ended before: 0; -1. */
static int
have(struct filter *f, size_t n)
{
	ssize_t k;

	if (f->len - f->at >= n)
		return 1;
	memmove(f->in, f->in + f->at, f->len - f->at);
	f->len -= f->at;
	f->at = 0;
	while (f->len < n) {
		k = read(f->s->in, f->in + f->len, IN - f->len);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return err_sys(f->e, "read migration stream");
		if (k == 0)
			return 0;
		f->len += k;
	}
	return 1;
}

/* n more bytes, or the stream is short. */
static int
must(struct filter *f, size_t n)
{
	int r = have(f, n);

	return r == 0 ? err_set(f->e, E_TAMPERED, "the migration stream is short") : r < 0 ? -1 : 0;
}

static int
pass(struct filter *f, size_t n)
{
	if (must(f, n) < 0 || emit(f, f->in + f->at, n) < 0)
		return -1;
	f->at += n;
	return 0;
}

static uint32_t
peek32(const struct filter *f, size_t off)
{
	uint32_t v;

	memcpy(&v, f->in + f->at + off, sizeof v);
	return be32toh(v);
}

static uint64_t
peek64(const struct filter *f, size_t off)
{
	uint64_t v;

	memcpy(&v, f->in + f->at + off, sizeof v);
	return be64toh(v);
}

static int
unknown(struct filter *f, const char *what, unsigned long value)
{
	return err_set(f->e, E_TAMPERED, "migration stream: unknown %s %#lx", what, value);
}

/* Magic, version and the configuration section with the machine's name. */
static int
header(struct filter *f)
{
	uint32_t n;

	if (must(f, 9) < 0)
		return -1;
	if (peek32(f, 0) != MAGIC || peek32(f, 4) != VERSION)
		return err_set(f->e, E_TAMPERED, "not a migration stream (bad magic)");
	if (f->in[f->at + 8] != SEC_CONFIG)
		return unknown(f, "first section", f->in[f->at + 8]);
	if (pass(f, 9) < 0 || must(f, 4) < 0)
		return -1;
	n = peek32(f, 0);
	if (n > MAX_CONFIG)
		return unknown(f, "length of the configuration", n);
	if (pass(f, 4 + n) < 0 || must(f, 1) < 0)
		return -1;
	/* a subsection means capabilities that change the format of what follows */
	if (f->in[f->at] == SEC_SUBSECTION)
		return unknown(f, "subsection of the configuration", SEC_SUBSECTION);
	return 0;
}

/* A name with its length before it, at offset off. */
static int
name_at(struct filter *f, size_t off, char ret[256])
{
	size_t n;

	if (must(f, off + 1) < 0)
		return -1;
	n = f->in[f->at + off];
	if (must(f, off + 1 + n) < 0)
		return -1;
	if (n == 0 || memchr(f->in + f->at + off + 1, 0, n))
		return unknown(f, "name of a block, length", n);
	memcpy(ret, f->in + f->at + off + 1, n);
	ret[n] = '\0';
	return (int)n;
}

/* The list of blocks: ours must be there, with the size we know. */
static int
sizes(struct filter *f, uint64_t total)
{
	char name[256];
	uint64_t size;
	int n;

	if (f->sizes)
		return unknown(f, "second list of blocks", RAM_SIZES);
	f->sizes = true;
	if (pass(f, 8) < 0)
		return -1;
	for (bool ours = false; total || !ours; total -= size) {
		if (!total)
			return unknown(f, "memory: our block is missing in", 0);
		n = name_at(f, 0, name);
		if (n < 0 || must(f, 1 + n + 8) < 0)
			return -1;
		size = peek64(f, 1 + n);
		if (size == 0 || size > total)
			return unknown(f, "size of a block", size);
		if (strcmp(name, f->s->block) == 0) {
			if (size != f->s->size || ours)
				return unknown(f, "size of the guest's memory", size);
			ours = true;
		}
		if (pass(f, 1 + n + 8) < 0)
			return -1;
	}
	return 0;
}

/* A page of another block stays in the stream, with CONTINUE as it is right for what is written. */
static int
keep(struct filter *f, uint64_t word, size_t head, size_t data)
{
	uint64_t w;
	uint8_t n = strlen(f->block);

	word &= ~(uint64_t)RAM_CONTINUE;
	if (strcmp(f->block, f->said) == 0) {
		w = htobe64(word | RAM_CONTINUE);
		if (emit(f, &w, sizeof w) < 0)
			return -1;
	} else {
		w = htobe64(word);
		if (emit(f, &w, sizeof w) < 0 || emit(f, &n, 1) < 0 || emit(f, f->block, n) < 0)
			return -1;
		memcpy(f->said, f->block, sizeof f->said);
	}
	return emit(f, f->in + f->at + head, data);
}

/* Flat: into the file. Zero too: a live save may send a page twice, the last one counts. */
static int
page_flat(struct filter *f, uint64_t at, const uint8_t *page)
{
	if (!page && !f->s->over && !bit(f->kept, at / PAGE))
		return 0;
	bit_set(f->kept, at / PAGE);
	if (pwrite(f->s->memory, page ? page : nothing, PAGE, (off_t)at) != PAGE)
		return err_sys(f->e, "write memory image");
	f->s->pages += page != NULL;
	return 0;
}

/* Whether the parent's page is this one (NULL: zeros). Holes are not touched: reading them through
   the mapping would fill them. */
static bool
page_same(const struct filter *f, uint64_t at, const uint8_t *page)
{
	const uint8_t *p = f->parent && bit(f->data, at / PAGE) ? f->parent + at : nothing;

	return memcmp(p, page ? page : nothing, PAGE) == 0;
}

static int
page_ours(struct filter *f, uint64_t word, size_t head, size_t data)
{
	uint64_t at = word & ~(uint64_t)(PAGE - 1);
	const uint8_t *page = word & RAM_ZERO ? NULL : f->in + f->at + head;

	if (!bit(f->seen, at / PAGE)) {
		bit_set(f->seen, at / PAGE);
		f->missing--;
	}
	if (f->s->memory >= 0)
		return page_flat(f, at, page);
	if (!bit(f->kept, at / PAGE) && page_same(f, at, page))
		return 0;
	bit_set(f->kept, at / PAGE);
	f->s->pages++;
	return keep(f, word, head, data);
}

static int
page(struct filter *f, uint64_t word)
{
	uint64_t at = word & ~(uint64_t)(PAGE - 1);
	bool zero = word & RAM_ZERO;
	size_t head = 8, data = zero ? 1 : PAGE;
	int n;

	if (!f->sizes)
		return unknown(f, "page before the list of blocks at", at);
	if (!(word & RAM_CONTINUE)) {
		n = name_at(f, 8, f->block);
		if (n < 0)
			return -1;
		head += 1 + n;
	} else if (!f->block[0])
		return unknown(f, "page without a block at", at);
	if (must(f, head + data) < 0)
		return -1;
	if (zero && f->in[f->at + head] != 0)
		return unknown(f, "fill byte", f->in[f->at + head]);
	if (strcmp(f->block, f->s->block) != 0) {
		if (keep(f, word, head, data) < 0)
			return -1;
	} else if (at > f->s->size - PAGE) {
		return unknown(f, "page beyond the guest's memory at", at);
	} else if (page_ours(f, word, head, data) < 0)
		return -1;
	f->at += head + data;
	return 0;
}

/* RAM records until the end-of-section mark, then the section's footer. */
static int
records(struct filter *f)
{
	uint64_t word, flags;

	f->said[0] = '\0';
	for (;;) {
		if (must(f, 8) < 0)
			return -1;
		word = peek64(f, 0);
		flags = word & (PAGE - 1);
		if (flags & ~(uint64_t)RAM_KNOWN)
			return unknown(f, "RAM flag", flags);
		switch (flags & ~(uint64_t)RAM_CONTINUE) {
		case RAM_SIZES:
			if (sizes(f, word & ~(uint64_t)(PAGE - 1)) < 0)
				return -1;
			break;
		case RAM_ZERO:
		case RAM_PAGE:
			if (page(f, word) < 0)
				return -1;
			break;
		case RAM_EOS:
			if (pass(f, 8) < 0 || must(f, 5) < 0)
				return -1;
			if (f->in[f->at] != SEC_FOOTER || peek32(f, 1) != f->ram)
				return unknown(f, "end of a section", f->in[f->at]);
			return pass(f, 5);
		default:
			return unknown(f, "RAM flags", flags);
		}
	}
}

/* START(ram), PART..., END; what follows must be whole device sections. */
static int
memory(struct filter *f)
{
	bool started = false;
	uint8_t type;

	for (;;) {
		if (must(f, 5) < 0)
			return -1;
		type = f->in[f->at];
		if (type == SEC_START && !started) {
			if (must(f, 5 + 4 + 8) < 0)
				return -1;
			if (f->in[f->at + 5] != 3 || memcmp(f->in + f->at + 6, "ram", 3) != 0)
				return unknown(f, "live section", f->in[f->at + 5]);
			f->ram = peek32(f, 1);
			if (peek32(f, 9) != 0 || peek32(f, 13) != 4)
				return unknown(f, "version of the RAM section", peek32(f, 13));
			started = true;
			if (pass(f, 17) < 0)
				return -1;
		} else if ((type == SEC_PART || type == SEC_END) && started) {
			if (peek32(f, 1) != f->ram)
				return unknown(f, "section id", peek32(f, 1));
			if (pass(f, 5) < 0)
				return -1;
		} else
			return unknown(f, "section type", type);
		if (records(f) < 0)
			return -1;
		if (type == SEC_END && f->missing && !f->s->over)
			return unknown(f, "stream without all pages, missing", f->missing);
		if (type == SEC_END)
			return 0;
	}
}

/*
 * Device sections carry no length, so they are copied; but they must begin like one and the whole
 * must end as QEMU ends it: an end mark, then the description, whose length reaches the last byte.
 */
static int
devices(struct filter *f)
{
	uint8_t *all, *p;
	size_t n = 0;
	int r;

	if (must(f, 1) < 0)
		return -1;
	if (f->in[f->at] != SEC_FULL)
		return unknown(f, "section type", f->in[f->at]);
	all = talloc_size(NULL, MAX_DEVICES);
	while ((r = have(f, 1)) == 1 && n + (f->len - f->at) <= MAX_DEVICES) {
		memcpy(all + n, f->in + f->at, f->len - f->at);
		n += f->len - f->at;
		f->at = f->len;
	}
	if (r == 1)
		r = unknown(f, "amount of device state, over", MAX_DEVICES);
	for (p = all; r == 0 && p + 6 < all + n; p++) {
		uint32_t len;

		memcpy(&len, p + 2, sizeof len);
		if (p[0] == SEC_EOF && p[1] == SEC_VMDESC &&
		    be32toh(len) == (size_t)(all + n - p - 6) && p[6] == '{')
			break;
	}
	if (r == 0 && p + 6 >= all + n)
		r = err_set(f->e, E_TAMPERED, "the migration stream is short");
	if (r == 0)
		r = emit(f, all, n);
	talloc_free(all);
	return r < 0 ? -1 : 0;
}

/* Where the parent has bytes, and its mapping. */
static int
parent_open(struct filter *f)
{
	off_t at = 0, end = 0, size = (off_t)f->s->size;
	void *p;

	if (f->s->parent < 0 || f->s->memory >= 0)
		return 0;
	if (lseek(f->s->parent, 0, SEEK_END) != size)
		return err_set(f->e, E_TAMPERED, "the parent image has another size");
	while ((at = lseek(f->s->parent, end, SEEK_DATA)) >= 0 && at < size) {
		end = lseek(f->s->parent, at, SEEK_HOLE);
		for (at /= PAGE; at * PAGE < end; at++)
			bit_set(f->data, (uint64_t)at);
	}
	p = mmap(NULL, f->s->size, PROT_READ, MAP_SHARED, f->s->parent, 0);
	if (p == MAP_FAILED)
		return err_sys(f->e, "map the parent image");
	f->parent = p;
	return 0;
}

int
stream_filter(struct stream_filter *s, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct filter f = { .s = s, .e = e };
	size_t map = (s->size / PAGE + 7) / 8;
	int r = -1;

	if (s->size < PAGE || s->size % PAGE)
		return err_set(e, E_BUG, "no memory of %llu bytes", (unsigned long long)s->size);
	f.in = talloc_size(mem, IN);
	f.out = talloc_size(mem, OUT);
	s->pages = s->bytes_out = 0;
	f.missing = s->size / PAGE;
	f.seen = talloc_zero_array(mem, uint8_t, map);
	f.kept = talloc_zero_array(mem, uint8_t, map);
	f.data = talloc_zero_array(mem, uint8_t, map);
	if (s->memory >= 0 && ftruncate(s->memory, (off_t)s->size) < 0)
		return err_sys(e, "memory image");
	if (parent_open(&f) == 0 && header(&f) == 0 && memory(&f) == 0 && devices(&f) == 0)
		r = flush(&f);
	if (f.parent)
		(void)munmap((void *)f.parent, s->size);
	return r;
}
