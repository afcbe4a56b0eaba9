/* host_parse.c - what the host agent is told by QEMU and by other hosts: hostagent/qmp.c and
 * artifact.c; beside tests/fuzz/host_parse_fuzz.c. */
#include "artifact.h"
#include "cleanup.h"
#include "qmp.h"

#include <check.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void *mem;

static void
setup(void)
{
	mem = talloc_new(NULL);
}

static void
teardown(void)
{
	talloc_free(mem);
}

/* ---- QEMU */

struct owner {
	int answered, gone;
};

static void
replied(void *arg, struct json_object *ret, const struct err *e)
{
	struct owner *o = arg;

	(void)ret;
	o->answered += e ? 100 : 1;
}

static void
ended(void *arg, const struct err *e)
{
	struct owner *o = arg;

	ck_assert_int_eq(e->code, E_BAD_INPUT);
	o->gone++;
}

/* A line's length is not where its first zero is: the rest is no JSON, and the connection's end. */
START_TEST(zeros)
{
	static const struct qmp_events events = { .on_gone = ended };
	static const char said[] = "{\"QMP\":{}}\r\n{\"return\":{},\"id\":1}\r\n"
				   "{\"return\":{},\"id\":2}\n\0{\"return\":{},\"id\":3}\r\n";
	uv_loop_t *loop = uv_default_loop();
	struct owner o = { 0 };
	struct qmp *q;
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	q = qmp_open(mem, loop, pair[0], &events, &o);
	qmp_call(q, "first", NULL, -1, replied, &o);
	qmp_call(q, "second", NULL, -1, replied, &o);
	ck_assert_int_eq(write(pair[1], said, sizeof said - 1), (ssize_t)sizeof said - 1);
	while (!o.gone)
		(void)uv_run(loop, UV_RUN_ONCE);
	ck_assert_int_eq(o.answered, 101);
	ck_assert_int_eq(o.gone, 1);
	talloc_free(q);
	while (uv_run(loop, UV_RUN_NOWAIT))
		;
	close(pair[1]);
}
END_TEST

/* ---- manifests */

static struct artifact *
parse(const char *text, struct err *e)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	char id[ARTIFACT_ID];

	(void)EVP_Digest(text, strlen(text), sum, NULL, EVP_sha256(), NULL);
	for (int i = 0; i < (ARTIFACT_ID - 1) / 2; i++)
		snprintf(id + 2 * i, 3, "%02x", sum[i]);
	return artifact_parse(mem, id, text, strlen(text), e);
}

/* What becomes part of a path is a name, a size is one: the id only says that it is what the other
 * host meant. */
START_TEST(names)
{
	static const struct row {
		const char *text;
		bool good;
	} rows[] = {
		{ "{\"format\":1,\"files\":[]}", true },
		{ "{\"format\":1,\"template\":\"\",\"files\":[]}", true },
		{ "{\"format\":1,\"template\":\"python-3.12\",\"files\":[]}", true },
		{ "{\"format\":1,\"template\":\"../x\",\"files\":[]}", false },
		{ "{\"format\":1,\"template\":\"a/../x\",\"files\":[]}", false },
		{ "{\"format\":1,\"template\":\".x\",\"files\":[]}", false },
		{ "{\"format\":1,\"vcpus\":2,\"memory_mb\":512,\"files\":[]}", true },
		{ "{\"format\":1,\"vcpus\":4294967298,\"files\":[]}", false },
		{ "{\"format\":1,\"memory_mb\":-1,\"files\":[]}", false },
		{ "{\"format\":1,\"files\":[{\"name\":\"state\",\"size\":0,\"chunks\":[]}]}",
		    true },
		{ "{\"format\":1,\"files\":[{\"name\":\"a/b\",\"size\":0,\"chunks\":[]}]}", false },
		{ "{\"format\":1,\"files\":[{\"name\":\"state\",\"size\":-1,\"chunks\":[]}]}",
		    false },
		{ "{\"format\":1,\"files\":[{\"name\":\"state\",\"size\":1,\"chunks\":[]}]}",
		    false },
	};

	for (size_t i = 0; i < nitems(rows); i++) {
		struct err e = { 0 };
		bool good = parse(rows[i].text, &e) != NULL;

		ck_assert_msg(good == rows[i].good, "%s: %s", rows[i].text, e.text);
		ck_assert_int_eq(e.code, good ? E_OK : E_TAMPERED);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("host_parse");
	TCase *c = tcase_create("parse");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, zeros);
	tcase_add_test(c, names);
	suite_add_tcase(s, c);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
