/* port_ws.c - frames of WebSockets in pieces of any size: our pings stand between them, their
 * answers go no further. */
#include "port_ws.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

/* A frame of the client's; the mask is 1 2 3 4. */
static void
frame(struct buf *b, uint8_t first, const void *data, size_t n)
{
	const uint8_t *p = data;

	buf_chr(b, (char)first);
	if (n < 126) {
		buf_chr(b, (char)(0x80 | n));
	} else if (n < 65536) {
		buf_add(b, (uint8_t[]){ 0xfe, (uint8_t)(n >> 8), (uint8_t)n }, 3);
	} else {
		buf_add(b,
		    (uint8_t[]){ 0xff, 0, 0, 0, 0, (uint8_t)(n >> 24), (uint8_t)(n >> 16),
			(uint8_t)(n >> 8), (uint8_t)n },
		    9);
	}
	buf_add(b, "\1\2\3\4", 4);
	for (size_t i = 0; i < n; i++)
		buf_chr(b, (char)(p[i] ^ (uint8_t)(1 + (i & 3))));
}

START_TEST(answers_go_no_further)
{
	void *mem = talloc_new(NULL);
	char *big = talloc_zero_size(mem, 70000);

	for (size_t piece = 1; piece < 40; piece++) {
		struct port_ws *w = port_ws_new(mem);
		struct buf in = BUF(mem), want = BUF(mem), got = BUF(mem);
		uint8_t ping[16];

		ck_assert_uint_eq(port_ws_ping(w, ping), 10);
		for (int turn = 0; turn < 2; turn++) {
			struct buf *each[] = { &in, &want };

			for (size_t k = 0; k < 2; k++) {
				frame(each[k], 0x81, "hello", 5);
				frame(each[k], 0x8a, "12345678",
				    8); /* another's pong, as long as ours */
				frame(each[k], 0x8a, "", 0);
				frame(each[k], 0x02, big, 300);
				if (k == 0)
					frame(each[k], 0x8a, ping + 2,
					    8); /* in the midst of a message */
				frame(each[k], 0x80, big, 70000);
				frame(each[k], 0x81, "", 0);
			}
			frame(&in, 0x8a, ping + 2, 8);
		}
		for (size_t i = 0; i < in.len; i += piece)
			port_ws_up(w, in.data + i, in.len - i < piece ? in.len - i : piece, &got);
		ck_assert_uint_eq(got.len, want.len);
		ck_assert(memcmp(got.data, want.data, got.len) == 0);
		talloc_free(w);
	}
	talloc_free(mem);
}
END_TEST

START_TEST(pings_stand_between_frames)
{
	void *mem = talloc_new(NULL);
	struct port_ws *w = port_ws_new(mem);
	uint8_t ping[16];
	const char *frames[] = { "\x81\x03"
				 "abc",
		"\x82\x7e\x00\x80", NULL };

	for (size_t i = 0; i < 5; i++) {
		port_ws_down(w, frames[0] + i, 1);
		ck_assert_uint_eq(port_ws_ping(w, ping), i == 4 ? 10 : 0);
	}
	port_ws_down(w, frames[1], 4);
	ck_assert_uint_eq(port_ws_ping(w, ping), 0);
	for (size_t i = 0; i < 128; i++) {
		ck_assert_uint_eq(port_ws_ping(w, ping), 0);
		port_ws_down(w, "x", 1);
	}
	ck_assert_uint_eq(port_ws_ping(w, ping), 10);
	talloc_free(mem);
}
END_TEST

/* What is no WebSocket after all passes as it is, and nothing is put into it. */
START_TEST(no_frames)
{
	void *mem = talloc_new(NULL);
	struct port_ws *w = port_ws_new(mem);
	struct buf got = BUF(mem);
	uint8_t ping[16];
	const char text[] = "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\2\3\4 and so on";

	port_ws_up(w, text, sizeof text, &got);
	ck_assert_uint_eq(got.len, sizeof text);
	ck_assert(memcmp(got.data, text, sizeof text) == 0);
	port_ws_down(w, text, sizeof text);
	ck_assert_uint_eq(port_ws_ping(w, ping), 0);
	talloc_free(mem);
}
END_TEST

int
main(void)
{
	TCase *t = tcase_create("port_ws");
	Suite *suite = suite_create("port_ws");
	SRunner *runner = srunner_create(suite);
	int failed = 0;

	tcase_add_test(t, answers_go_no_further);
	tcase_add_test(t, pings_stand_between_frames);
	tcase_add_test(t, no_frames);
	suite_add_tcase(suite, t);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
