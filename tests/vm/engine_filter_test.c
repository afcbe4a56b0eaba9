/*
 * engine_filter_test.c - the stream filter against streams as QEMU writes them, and as it never
 * does.
 *
 * The streams are made here, byte by byte; that real ones pass is engine_test.py's part.
 */
#include "../../hostagent/disk.h"
#include "../../hostagent/stream_filter.h"
#include "../../hostagent/sums.h"
#include "cleanup.h"

#include <check.h>
#include <endian.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, PAGES = 8, SIZE = PAGE * PAGES, ROM = PAGE * 2 };

/* A stream under construction. */
struct stream {
	uint8_t b[256 * 1024];
	size_t n;
};

static struct stream in;

static void
put(const void *p, size_t n)
{
	ck_assert(in.n + n <= sizeof in.b);
	memcpy(in.b + in.n, p, n);
	in.n += n;
}

static void
put8(unsigned v)
{
	uint8_t b = v;

	put(&b, 1);
}

static void
put32(uint32_t v)
{
	v = htobe32(v);
	put(&v, 4);
}

static void
put64(uint64_t v)
{
	v = htobe64(v);
	put(&v, 8);
}

static void
put_name(const char *s)
{
	put8(strlen(s));
	put(s, strlen(s));
}

static void
put_page(const char *block, uint64_t at, unsigned fill)
{
	uint8_t page[PAGE];

	memset(page, fill, sizeof page);
	put64(at | 0x08 | (block ? 0 : 0x20));
	if (block)
		put_name(block);
	put(page, sizeof page);
}

static void
put_zero(const char *block, uint64_t at, unsigned fill)
{
	put64(at | 0x02 | (block ? 0 : 0x20));
	if (block)
		put_name(block);
	put8(fill);
}

static void
put_head(void)
{
	in.n = 0;
	put32(0x5145564d);
	put32(3);
	put8(7);
	put32(7);
	put("microvm", 7);
}

static void
put_start(uint64_t size)
{
	put8(1);
	put32(2);
	put_name("ram");
	put32(0);
	put32(4);
	put64((size + ROM) | 0x04);
	put_name("mem");
	put64(size);
	put_name("bios");
	put64(ROM);
	put64(0x10);
	put8(0x7e);
	put32(2);
}

static void
put_section(unsigned type)
{
	put8(type);
	put32(2);
}

static void
put_section_end(void)
{
	put64(0x10);
	put8(0x7e);
	put32(2);
}

static void
put_tail(void)
{
	static const char text[] = "{\"devices\":[]}";

	put8(4);
	put32(5);
	put_name("cpu");
	put("state of devices", 16);
	put8(0);
	put8(6);
	put32(sizeof text - 1);
	put(text, sizeof text - 1);
}

/* All of a good stream; tests spoil one thing. */
static void
good(void)
{
	put_head();
	put_start(SIZE);
	put_section(2);
	put_page("mem", 0, 'a');
	put_page(NULL, 3 * PAGE, 'b');
	put_page("bios", 0, 'r');
	put_zero("mem", PAGE, 0);
	put_page("mem", 5 * PAGE, 'c');
	put_section_end();
	put_section(3);
	put_zero("mem", 5 * PAGE, 0); /* sent again: the last one counts */
	put_page(NULL, 6 * PAGE, 'd');
	put_zero(NULL, 2 * PAGE, 0);
	put_zero(NULL, 4 * PAGE, 0);
	put_zero(NULL, 7 * PAGE, 0);
	put_section_end();
	put_tail();
}

static int
file(const void *p, size_t n)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, p, n), (ssize_t)n);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static int
filter(struct stream_filter *f, struct err *e)
{
	f->in = file(in.b, in.n);
	f->out = file("", 0);
	f->memory = file("", 0);
	f->parent = -1;
	f->block = "mem";
	f->size = SIZE;
	return stream_filter(f, e);
}

static void
refused(const char *why)
{
	struct stream_filter f = { 0 };
	struct err e = { 0 };

	ck_assert_int_eq(filter(&f, &e), -1);
	ck_assert_msg(
	    e.code == E_TAMPERED && strstr(e.text, why), "%d %s, not %s", e.code, e.text, why);
	close(f.in);
	close(f.out);
	close(f.memory);
}

START_TEST(good_stream)
{
	struct stream_filter f = { 0 };
	struct err e = { 0 };
	uint8_t page[PAGE], thin[4 * PAGE];
	static const char fill[PAGES] = { 'a', 0, 0, 'b', 0, 0, 'd', 0 };
	ssize_t n;

	good();
	ck_assert_msg(filter(&f, &e) == 0, "%s", e.text);
	for (int i = 0; i < PAGES; i++) {
		ck_assert_int_eq(pread(f.memory, page, PAGE, (off_t)i * PAGE), PAGE);
		ck_assert_int_eq(page[0], fill[i]);
		ck_assert_int_eq(page[PAGE - 1], fill[i]);
	}
	/* the thin stream: ROM pages and devices, nothing of the guest's memory */
	n = pread(f.out, thin, sizeof thin, 0);
	ck_assert_int_eq(n, (ssize_t)f.bytes_out);
	ck_assert_int_lt(n, 2 * PAGE);
	ck_assert_ptr_nonnull(memmem(thin, n, "rrrr", 4));
	ck_assert_ptr_null(memmem(thin, n, "aaaa", 4));
	ck_assert_ptr_nonnull(memmem(thin, n, "state of devices", 16));
	/* and it is a stream that the filter itself understands, up to what is not there any more
	 */
	memcpy(in.b, thin, n);
	in.n = n;
	refused("without all pages");
}
END_TEST

/* Against a parent: what it has is dropped, zeros that it has not are said, a page that was kept
   once is kept again. */
START_TEST(difference)
{
	struct stream_filter f = { .memory = -1, .block = "mem", .size = SIZE };
	struct err e = { 0 };
	uint8_t page[PAGE], thin[6 * PAGE];
	ssize_t n;

	good();
	f.in = file(in.b, in.n);
	f.out = file("", 0);
	f.parent = file("", 0);
	ck_assert_int_eq(ftruncate(f.parent, SIZE), 0);
	memset(page, 'a', PAGE);
	ck_assert_int_eq(pwrite(f.parent, page, PAGE, 0), PAGE); /* the same */
	memset(page, 'x', PAGE);
	ck_assert_int_eq(pwrite(f.parent, page, PAGE, 4 * PAGE), PAGE); /* zero in the stream */
	ck_assert_msg(stream_filter(&f, &e) == 0, "%s", e.text);
	/* 3 b; 5 c, then zero; 6 d; 4 zero */
	ck_assert_int_eq(f.pages, 5);
	n = pread(f.out, thin, sizeof thin, 0);
	ck_assert_int_eq(n, (ssize_t)f.bytes_out);
	ck_assert_ptr_null(memmem(thin, n, "aaaa", 4));
	ck_assert_ptr_nonnull(memmem(thin, n, "bbbb", 4));
	ck_assert_ptr_nonnull(memmem(thin, n, "cccc", 4));
	ck_assert_ptr_nonnull(memmem(thin, n, "dddd", 4));
	ck_assert_ptr_nonnull(memmem(thin, n, "rrrr", 4));
	close(f.parent);
	f.parent = file("short", 5);
	ck_assert_int_eq(stream_filter(&f, &e), -1);
	ck_assert_int_eq(e.code, E_TAMPERED);
}
END_TEST

/* The difference and the parent's pages, put together, are the memory again; the stream gets thin.
 */
START_TEST(over)
{
	struct stream_filter f = { .memory = -1, .block = "mem", .size = SIZE };
	struct err e = { 0 };
	static const char fill[PAGES] = { 'a', 0, 0, 'b', 0, 0, 'd', 0 };
	uint8_t page[PAGE], thin[4 * PAGE];
	ssize_t n;

	good();
	f.in = file(in.b, in.n);
	f.out = file("", 0);
	f.parent = file("", 0);
	ck_assert_int_eq(ftruncate(f.parent, SIZE), 0);
	memset(page, 'a', PAGE);
	ck_assert_int_eq(pwrite(f.parent, page, PAGE, 0), PAGE); /* the same: it is not in it */
	memset(page, 'x', PAGE);
	ck_assert_int_eq(pwrite(f.parent, page, PAGE, 4 * PAGE), PAGE);
	ck_assert_msg(stream_filter(&f, &e) == 0, "%s", e.text);
	ck_assert_int_eq(lseek(f.out, 0, SEEK_SET), 0);
	f.in = f.out;
	f.out = file("", 0);
	f.memory = f.parent;
	f.parent = -1;
	f.over = true;
	ck_assert_msg(stream_filter(&f, &e) == 0, "%s", e.text);
	for (int i = 0; i < PAGES; i++) {
		ck_assert_int_eq(pread(f.memory, page, PAGE, (off_t)i * PAGE), PAGE);
		ck_assert_int_eq(page[0], fill[i]);
		ck_assert_int_eq(page[PAGE - 1], fill[i]);
	}
	n = pread(f.out, thin, sizeof thin, 0);
	ck_assert_int_lt(n, 2 * PAGE);
	ck_assert_ptr_nonnull(memmem(thin, n, "rrrr", 4));
	ck_assert_ptr_null(memmem(thin, n, "bbbb", 4));
}
END_TEST

/* Every prefix of a good stream is short, never accepted, never a crash. */
START_TEST(short_stream)
{
	size_t whole;

	good();
	whole = in.n;
	for (size_t n = 0; n < whole; n += n < 300 || whole - n < 80 ? 1 : 977) {
		struct stream_filter f = { 0 };
		struct err e = { 0 };

		good();
		in.n = n;
		ck_assert_msg(filter(&f, &e) == -1, "%zu of %zu bytes are taken", n, whole);
		ck_assert_int_eq(e.code, E_TAMPERED);
		close(f.in);
		close(f.out);
		close(f.memory);
	}
}
END_TEST

START_TEST(bad_magic)
{
	good();
	in.b[0] ^= 1;
	refused("magic");
	good();
	in.b[7] = 4; /* another version */
	refused("magic");
	good();
	in.b[8] = 1; /* no configuration section */
	refused("first section");
}
END_TEST

START_TEST(unknown_flags)
{
	static const unsigned flags[] = { 0x01, 0x40, 0x80, 0x100, 0x200, 0x800, 0x18, 0x0a, 0x00 };

	for (size_t i = 0; i < nitems(flags); i++) {
		put_head();
		put_start(SIZE);
		put_section(2);
		put64(flags[i]);
		put_name("mem");
		put_section_end();
		put_tail();
		refused("RAM flag");
	}
}
END_TEST

START_TEST(out_of_place)
{
	put_head();
	put8(5); /* a subsection: capabilities that change the format */
	put_tail();
	refused("subsection");
	put_head();
	put_start(SIZE * 2);
	refused("size of the guest's memory");
	put_head();
	put_start(SIZE);
	put_section(2);
	put_page("mem", SIZE, 'x');
	refused("beyond");
	put_head();
	put_start(SIZE);
	put_section(2);
	put_page("mem", (uint64_t)-1 << 12, 'x');
	refused("beyond");
	put_head();
	put_start(SIZE);
	put_section(2);
	put_page(NULL, 0, 'x'); /* CONTINUE of nothing */
	refused("without a block");
	put_head();
	put_start(SIZE);
	put_section(2);
	put_zero("mem", 0, 7); /* fill bytes other than 0 do not exist any more */
	refused("fill byte");
	put_head();
	put_start(SIZE);
	put_start(SIZE);
	refused("section type");
	put_head();
	put_section(2);
	refused("section type");
	good();
	put8(0); /* something behind the end */
	refused("short");
}
END_TEST

/* Random damage: refused or taken, never a crash, never a write beyond the memory. */
START_TEST(random_damage)
{
	unsigned seed = 20261121;
	struct stat s;

	for (int round = 0; round < 400; round++) {
		struct stream_filter f = { 0 };
		struct err e = { 0 };

		good();
		for (int k = 0; k < 3; k++) {
			seed = seed * 1103515245 + 12345;
			in.b[(seed >> 8) % (k ? in.n : 200)] = seed >> 4;
		}
		(void)filter(&f, &e);
		ck_assert_int_eq(fstat(f.memory, &s), 0);
		ck_assert_int_le(s.st_size, SIZE);
		close(f.in);
		close(f.out);
		close(f.memory);
	}
}
END_TEST

START_TEST(overlay)
{
	struct err e = { 0 };
	uint64_t size = 0;
	auto_fd fd = file("", 0), other = file("no disk at all", 14);

	ck_assert_int_eq(disk_overlay(fd, (uint64_t)5 << 30, "../base.qcow2", &e), 0);
	ck_assert_int_eq(disk_size(fd, &size, &e), 0);
	ck_assert_uint_eq(size, (uint64_t)5 << 30);
	ck_assert_int_eq(disk_size(other, &size, &e), -1);
	ck_assert_int_eq(e.code, E_TAMPERED);
	ck_assert_int_eq(disk_overlay(fd, 1000, NULL, &(struct err){ 0 }), -1);
	ck_assert_int_eq(disk_overlay(fd, (uint64_t)1 << 50, NULL, &(struct err){ 0 }), -1);
}
END_TEST

/* In pieces of any size, and from a file: what one digest of each chunk says. */
START_TEST(sums)
{
	static const size_t sizes[] = { 0, 1, 262144, 300000, ARTIFACT_CHUNK, ARTIFACT_CHUNK + 1,
		2 * ARTIFACT_CHUNK + 5000 };
	const size_t size = sizes[_i];
	auto_talloc uint8_t *data = talloc_size(NULL, size + 1);
	auto_talloc struct sums *a = sums_new(NULL), *b = sums_new(NULL);
	char one[ARTIFACT_ID], other[ARTIFACT_ID], want[ARTIFACT_ID];
	struct artifact_file f = { 0 };
	unsigned char sum[EVP_MAX_MD_SIZE];
	struct err e = { 0 };

	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	for (size_t i = 0, n; i < size; i += n) {
		n = i % 70001 + 1 < size - i ? i % 70001 + 1 : size - i;
		sums_add(a, data + i, n);
	}
	sums_end(a);
	sums_file(a, &f);
	ck_assert_uint_eq(f.size, size);
	ck_assert_uint_eq(f.chunks, (size + ARTIFACT_CHUNK - 1) / ARTIFACT_CHUNK);
	for (size_t i = 0; i < f.chunks; i++) {
		size_t at = i * ARTIFACT_CHUNK,
		       n = size - at < ARTIFACT_CHUNK ? size - at : ARTIFACT_CHUNK;

		ck_assert_int_eq(EVP_Digest(data + at, n, sum, NULL, EVP_sha256(), NULL), 1);
		for (int k = 0; k < 32; k++)
			snprintf(want + 2 * k, 3, "%02x", sum[k]);
		ck_assert_str_eq(f.sum[i], want);
	}
	auto_fd fd = file((const char *)data, size);
	ck_assert_int_eq(sums_read(b, fd, &e), 0);
	sums_whole(a, one);
	sums_whole(b, other);
	ck_assert_str_eq(one, other);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("engine");
	TCase *t = tcase_create("stream_filter");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 180);
	tcase_add_test(t, good_stream);
	tcase_add_test(t, difference);
	tcase_add_test(t, over);
	tcase_add_test(t, short_stream);
	tcase_add_test(t, bad_magic);
	tcase_add_test(t, unknown_flags);
	tcase_add_test(t, out_of_place);
	tcase_add_test(t, random_damage);
	tcase_add_test(t, overlay);
	tcase_add_loop_test(t, sums, 0, 7);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
