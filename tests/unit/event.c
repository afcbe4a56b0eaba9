/* event.c - lib/event.c: the dictionary and the envelope of spec 04 §1.3. */
#include "event.h"
#include "cleanup.h"
#include "json.h"
#include "unit.h"

#include <string.h>

static const struct uuid id = { { [15] = 1 } }, team = { { [15] = 2 } }, capsule = { { [15] = 3 } };

START_TEST(envelope)
{
	struct event_row r = { .id = &id,
		.team = &team,
		.capsule = &capsule,
		.at = 1795264675000000,
		.seq = 7,
		.v = 1,
		.type = "capsule.created",
		.category = "lifecycle",
		.actor_type = "user",
		.actor_id = "usr-1",
		.actor_name = "A \"B\"",
		.resource_type = "sandbox",
		.resource_id = "cl-3",
		.data = "{\"a b\": [1, 2], \"c\": \"x: \\\" , y\"}",
		.request_id = "r1" };
	struct buf b = BUF(mem);

	event_envelope(&b, &r);
	ck_assert_str_eq(b.data,
	    "{\"event\":\"capsule.created\",\"timestamp\":\"2026-11-21T12:37:55Z\","
	    "\"team_id\":\"team-0000000000000000000000002\",\"actor\":{\"type\":\"user\",\"id\":"
	    "\"usr-1\",\"name\":\"A \\\"B\\\"\"},"
	    "\"resource\":{\"id\":\"cl-3\",\"type\":\"sandbox\"},\"id\":\"evt-"
	    "0000000000000000000000001\",\"seq\":7,\"v\":1,"
	    "\"category\":\"lifecycle\",\"capsule_id\":\"cl-0000000000000000000000003\",\"request_"
	    "id\":\"r1\","
	    "\"data\":{\"a b\":[1,2],\"c\":\"x: \\\" , y\"}}");
	ck_assert_ptr_nonnull(json_parse(mem, b.data, b.len, NULL, &err));
}
END_TEST

START_TEST(of_the_system)
{
	struct event_row r = { .id = &id,
		.team = &team,
		.at = 500000,
		.seq = 1,
		.v = 1,
		.type = "host.up",
		.category = "host",
		.actor_type = "system",
		.actor_id = "x",
		.actor_name = "hutchctl",
		.data = "{}" };
	struct buf b = BUF(mem);
	struct json_object *o, *actor;

	event_envelope(&b, &r);
	o = json_parse(mem, b.data, b.len, NULL, &err);
	ck_assert_msg(o, "%s: %s", err.text, b.data);
	actor = json_get(o, "actor");
	ck_assert_int_eq(json_object_object_length(actor), 1);
	ck_assert_ptr_null(json_get(o, "capsule_id"));
	ck_assert_ptr_null(json_get(o, "request_id"));
	ck_assert_str_eq(json_str(o, "timestamp", ""), "1970-01-01T00:00:00.500000Z");
}
END_TEST

START_TEST(dictionary)
{
	const struct event_kind *k, *other;

	for (k = event_kinds; k->type; k++) {
		ck_assert_msg(strchr(k->type, '.'), "%s", k->type);
		ck_assert_msg(*k->category && *k->audience && *k->doc, "%s", k->type);
		ck_assert_msg(strcmp(k->audience, "*") == 0 ||
			strspn(k->audience, "TASGP") == strlen(k->audience),
		    "%s: audience %s", k->type, k->audience);
		for (other = k + 1; other->type; other++)
			ck_assert_str_ne(k->type, other->type);
	}
	ck_assert_str_eq(event_kind("capsule.created")->category, "lifecycle");
	ck_assert_ptr_null(event_kind("capsule.creat"));
	ck_assert_ptr_null(event_kind("capsule.created.x"));
	ck_assert_ptr_null(event_kind(""));
}
END_TEST

/* Every audit row's event is of the dictionary: found here, not when the row is to be written. */
START_TEST(audit_events)
{
	static const char *const events[] = {
#define A(kind, resource, action, event, scope, status) event,
#include "proto/audit.def"
#undef A
	};
	size_t i;

	for (i = 0; i < nitems(events); i++)
		ck_assert_msg(!events[i] || event_kind(events[i]), "no event %s", events[i]);
}
END_TEST

START_TEST(outside_the_dictionary)
{
	struct work w = { 0 };

	ck_assert_int_eq(event_add(&w, &(struct event){ .type = "no.such" }), -1);
	ck_assert_int_eq(w.err.code, E_BUG);
	w.err = (struct err){ 0 };
	ck_assert_int_eq(
	    event_add(
		&w, &(struct event){ .type = "capsule.created", .data = "{\"password\":\"x\"}" }),
	    -1);
	ck_assert_ptr_nonnull(strstr(w.err.text, "password"));
	w.err = (struct err){ 0 };
	ck_assert_int_eq(
	    event_add(&w, &(struct event){ .type = "capsule.created", .data = "[]" }), -1);
	w.err = (struct err){ 0 };
	ck_assert_int_eq(
	    event_add(&w, &(struct event){ .type = "capsule.created", .data = "null" }), -1);
	ck_assert_int_ne(w.err.code, E_OK);
}
END_TEST

Suite *
event_suite(void)
{
	TCase *c;
	Suite *s = suite_new("event", &c);

	tcase_add_test(c, envelope);
	tcase_add_test(c, of_the_system);
	tcase_add_test(c, dictionary);
	tcase_add_test(c, audit_events);
	tcase_add_test(c, outside_the_dictionary);
	return s;
}
