/* identity.c - see identity.h. */
#include "identity.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

enum { ENTROPY = 64 };

static void
random_bytes(unsigned char *p, size_t n)
{
	if (getrandom(p, n, 0) != (ssize_t)n)
		abort(); /* up to 256 bytes the kernel gives all or, before it is seeded, blocks */
}

void
random_hex(char *ret, size_t n)
{
	unsigned char b[32];
	size_t i;

	if (n > sizeof b)
		abort();
	random_bytes(b, n);
	for (i = 0; i < n; i++)
		snprintf(ret + 2 * i, 3, "%02x", b[i]);
}

static void
member(struct buf *b, const char *name, const char *value)
{
	if (!value)
		return;
	buf_fmt(b, ",\"%s\":", name);
	buf_json(b, value);
}

void
identity_json(struct buf *b, const struct identity *i)
{
	unsigned char entropy[ENTROPY];
	struct timespec t;
	struct tm tm;

	random_bytes(entropy, sizeof entropy);
	buf_fmt(b, "{\"epoch\":%lld", (long long)i->epoch);
	member(b, "accessToken", i->token);
	member(b, "defaultUser", i->user);
	member(b, "defaultWorkdir", i->workdir);
	member(b, "hostname", i->hostname);
	member(b, "machineId", i->machine_id);
	member(b, "capsuleId", i->capsule);
	member(b, "templateId", i->template);
	member(b, "teamId", i->team);
	if (i->disk_size)
		buf_fmt(b, ",\"diskSize\":%llu", (unsigned long long)i->disk_size);
	if (i->keep)
		buf_str(b, ",\"keep\":true");
	if (i->other)
		buf_str(b, ",\"newIdentity\":true");
	if (i->envs) {
		buf_str(b, ",\"envVars\":");
		buf_str(b, json_object_to_json_string_ext(i->envs, JSON_C_TO_STRING_PLAIN));
	}
	buf_str(b, ",\"entropy\":\"");
	buf_base64(b, entropy, sizeof entropy);
	/* last: nothing slow stands between this and the guest's clock */
	clock_gettime(CLOCK_REALTIME, &t);
	gmtime_r(&t.tv_sec, &tm);
	buf_fmt(b, "\",\"timestamp\":\"%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ\"}", tm.tm_year + 1900,
	    tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, t.tv_nsec);
	explicit_bzero(entropy, sizeof entropy);
}

void
identity_rehearsal(struct buf *b, const char *user, const char *workdir, char token[33])
{
	char machine[33];
	struct identity i = { .token = token,
		.user = user,
		.workdir = workdir,
		.hostname = "template",
		.machine_id = machine };

	random_hex(token, 16);
	random_hex(machine, 16);
	identity_json(b, &i);
}
