/* sums.c - see sums.h. */
#include "sums.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

enum { BLOCK = 1 << 18, BLOCKS = 8, SUM_BYTES = 32 };
_Static_assert(ARTIFACT_CHUNK % BLOCK == 0, "a block is of one chunk");

struct sums {
	struct artifact_file file;
	EVP_MD_CTX *md;
	uint8_t *ring;      /* BLOCKS blocks: full ones from `done` on, `put` is being filled */
	size_t len[BLOCKS]; /* all but the last are full */
	unsigned put, done;
	bool all, ended;
	pthread_t thread;
	bool threaded; /* else there is none: who adds does the work */
	pthread_mutex_t lock;
	pthread_cond_t more, room;
};

static void
hex(const unsigned char *sum, char ret[ARTIFACT_ID])
{
	for (int i = 0; i < SUM_BYTES; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

/* The chunk that was begun is over. */
static void
chunk_end(struct sums *s)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	(void)EVP_DigestFinal_ex(s->md, sum, &len);
	s->file.sum =
	    talloc_realloc_size(s, s->file.sum, (s->file.chunks + 1) * sizeof *s->file.sum);
	hex(sum, s->file.sum[s->file.chunks++]);
}

static void
block(struct sums *s, const uint8_t *p, size_t n)
{
	if (s->file.size % ARTIFACT_CHUNK == 0)
		(void)EVP_DigestInit_ex(s->md, EVP_sha256(), NULL);
	(void)EVP_DigestUpdate(s->md, p, n);
	s->file.size += n;
	if (s->file.size % ARTIFACT_CHUNK == 0)
		chunk_end(s);
}

static void *
work(void *arg)
{
	struct sums *s = arg;
	unsigned at;

	(void)pthread_mutex_lock(&s->lock);
	for (;;) {
		while (s->done == s->put && !s->all)
			(void)pthread_cond_wait(&s->more, &s->lock);
		if (s->done == s->put)
			break;
		at = s->done % BLOCKS;
		(void)pthread_mutex_unlock(&s->lock);
		block(s, s->ring + (size_t)at * BLOCK, s->len[at]);
		(void)pthread_mutex_lock(&s->lock);
		s->done++;
		(void)pthread_cond_signal(&s->room);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* The block that is being filled is the thread's; another one is free. */
static void
give(struct sums *s)
{
	unsigned at = s->put % BLOCKS;

	if (!s->threaded) {
		block(s, s->ring, s->len[0]);
		s->len[0] = 0;
		return;
	}
	(void)pthread_mutex_lock(&s->lock);
	s->put++;
	(void)pthread_cond_signal(&s->more);
	while (s->put - s->done == BLOCKS)
		(void)pthread_cond_wait(&s->room, &s->lock);
	(void)pthread_mutex_unlock(&s->lock);
	at = s->put % BLOCKS;
	s->len[at] = 0;
}

static int
sums_free(struct sums *s)
{
	sums_end(s);
	(void)pthread_cond_destroy(&s->room);
	(void)pthread_cond_destroy(&s->more);
	(void)pthread_mutex_destroy(&s->lock);
	EVP_MD_CTX_free(s->md);
	return 0;
}

struct sums *
sums_new(void *mem)
{
	struct sums *s = talloc_zero(mem, struct sums);

	s->md = EVP_MD_CTX_new();
	s->ring = talloc_size(s, (size_t)BLOCK * BLOCKS);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->more, NULL);
	(void)pthread_cond_init(&s->room, NULL);
	s->threaded = pthread_create(&s->thread, NULL, work, s) == 0;
	talloc_set_destructor(s, sums_free);
	return s;
}

void
sums_add(struct sums *s, const void *data, size_t n)
{
	const uint8_t *p = data;
	size_t k;

	for (; n; n -= k, p += k) {
		unsigned at = s->threaded ? s->put % BLOCKS : 0;

		k = n < BLOCK - s->len[at] ? n : BLOCK - s->len[at];
		memcpy(s->ring + (size_t)at * BLOCK + s->len[at], p, k);
		s->len[at] += k;
		if (s->len[at] == BLOCK)
			give(s);
	}
}

int
sums_read(struct sums *s, int fd, struct err *e)
{
	void *p = talloc_size(NULL, BLOCK);
	off_t at = 0;
	ssize_t n;

	while ((n = pread(fd, p, BLOCK, at)) > 0 || (n < 0 && errno == EINTR))
		if (n > 0) {
			sums_add(s, p, (size_t)n);
			at += n;
		}
	if (n < 0)
		err_sys(e, "read an image");
	talloc_free(p);
	sums_end(s);
	return n < 0 ? -1 : 0;
}

void
sums_end(struct sums *s)
{
	if (s->ended)
		return;
	s->ended = true;
	if (s->len[s->threaded ? s->put % BLOCKS : 0])
		give(s);
	if (s->threaded) {
		(void)pthread_mutex_lock(&s->lock);
		s->all = true;
		(void)pthread_cond_signal(&s->more);
		(void)pthread_mutex_unlock(&s->lock);
		(void)pthread_join(s->thread, NULL);
	}
	if (s->file.size % ARTIFACT_CHUNK)
		chunk_end(s);
	TALLOC_FREE(s->ring);
}

void
sums_file(const struct sums *s, struct artifact_file *ret)
{
	ret->size = s->file.size;
	ret->chunks = s->file.chunks;
	ret->sum = s->file.sum;
}

void
sums_whole(const struct sums *s, char ret[ARTIFACT_ID])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned len = 0;
	size_t i;

	(void)EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	for (i = 0; i < s->file.chunks; i++)
		(void)EVP_DigestUpdate(md, s->file.sum[i], ARTIFACT_ID - 1);
	(void)EVP_DigestFinal_ex(md, sum, &len);
	EVP_MD_CTX_free(md);
	hex(sum, ret);
}
