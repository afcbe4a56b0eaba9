/*
 * stream_filter_fuzz.c - the stream filter against whatever libFuzzer finds.
 *
 * The first byte chooses the mode; the rest is the stream, for a guest of eight pages. Beside
 * crashes it is a finding when something is taken that is not whole: an accepted stream was read to
 * its end, gave an image of the guest's size, and is refused when its last byte is missing.
 */
#include "../../hostagent/stream_filter.h"
#include "cleanup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, SIZE = 8 * PAGE };

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

static int in = -1, out = -1, memory = -1, parent = -1;

static void
files(void)
{
	uint8_t page[PAGE];

	in = memfd_create("in", MFD_CLOEXEC);
	out = open("/dev/null", O_WRONLY | O_CLOEXEC);
	memory = memfd_create("memory", MFD_CLOEXEC);
	parent = memfd_create("parent", MFD_CLOEXEC);
	memset(page, 'a', sizeof page);
	if (in < 0 || out < 0 || memory < 0 || parent < 0 || ftruncate(parent, SIZE) < 0 ||
	    pwrite(parent, page, PAGE, 0) != PAGE || pwrite(parent, page, PAGE, 4 * PAGE) != PAGE)
		abort();
}

static int
filter(const uint8_t *p, size_t n, unsigned mode)
{
	struct stream_filter f = { .in = in,
		.out = out,
		.memory = mode == 0 ? memory : -1,
		.parent = mode == 1 ? parent : -1,
		.block = "mem",
		.size = SIZE };
	struct err e = { 0 };
	int r;

	if (pwrite(in, p, n, 0) != (ssize_t)n || ftruncate(in, (off_t)n) < 0 ||
	    lseek(in, 0, SEEK_SET) < 0)
		abort();
	r = stream_filter(&f, &e);
	if (r < 0 && (e.code == E_OK || !e.text[0]))
		abort(); /* never -1 without a sentence */
	return r;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct stat s;

	if (in < 0)
		files();
	if (n < 2)
		return 0;
	if (filter(p + 1, n - 1, p[0] % 3) < 0)
		return 0;
	if (lseek(in, 0, SEEK_CUR) != (off_t)(n - 1))
		abort();
	if (p[0] % 3 == 0 && (fstat(memory, &s) < 0 || s.st_size != SIZE))
		abort();
	if (filter(p + 1, n - 2, p[0] % 3) == 0)
		abort();
	return 0;
}
