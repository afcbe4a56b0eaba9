/* event.c - see event.h. Queries: sql/queries/events.sql. */
#include "event.h"
#include "bell.h"
#include "cleanup.h"
#include "db.h"
#include "events.q.h"
#include "field.h"
#include "json.h"

#include <string.h>

const struct event_kind event_kinds[] = {
#define EV(type, category, fields, audience, doc) { type, category, fields, audience, doc },
#include "proto/events.def"
#undef EV
	{ 0 },
};

const struct event_kind *
event_kind(const char *type)
{
	const struct event_kind *k;
	size_t n;

	for (k = event_kinds; k->type; k++) {
		n = strlen(k->type);
		if (strcmp(k->type, type) == 0)
			return k;
		if (k->type[n - 1] == '*' && strncmp(k->type, type, n - 1) == 0 && type[n - 1])
			return k;
	}
	return NULL;
}

static bool
has_word(const char *words, const char *word)
{
	size_t n = strlen(word);
	const char *p = words;

	while ((p = strstr(p, word))) {
		if ((p == words || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
			return true;
		p += n;
	}
	return false;
}

static int
check_data(const struct event_kind *k, const char *data, struct err *e)
{
	auto_talloc char *tmp = talloc_strdup(NULL, "");
	struct json_object *obj = json_parse(tmp, data, strlen(data), NULL, e);

	if (!obj)
		return -1;
	if (!json_object_is_type(obj, json_type_object))
		return err_set(e, E_BUG, "event %s: data is no object", k->type);
	if (strcmp(k->fields, "*") == 0)
		return 0;
	json_object_object_foreach(obj, name, value)
	{
		(void)value;
		if (!has_word(k->fields, name))
			return err_set(
			    e, E_BUG, "event %s: the dictionary knows no field %s", k->type, name);
	}
	return 0;
}

int
event_add(struct work *w, const struct event *ev)
{
	const struct event_kind *k = event_kind(ev->type);
	const char *data = ev->data ? ev->data : "{}";
	struct uuid id = uuid_new();

	if (!k)
		return err_set(&w->err, E_BUG, "no event %s in the dictionary", ev->type);
	if (check_data(k, data, &w->err) < 0)
		return -1;
	if (q_event_insert(w->db, .id = &id, .team = ev->team ? ev->team : &uuid_zero,
		.user = ev->user, .capsule = ev->capsule, .type = ev->type, .category = k->category,
		.actor_type = w->actor.type ? w->actor.type : "system", .actor_id = w->actor.id,
		.actor_name = w->actor.name, .resource_type = ev->resource_type,
		.resource_id = ev->resource_id, .data = data, .request = w->id) < 0)
		return -1;
	bell_add(w, NULL, NULL, false);
	return 0;
}

/* PostgreSQL prints jsonb with blanks behind colons and commas; the envelope has none. */
static void
add_compact(struct buf *b, const char *json)
{
	bool quoted = false;
	const char *p;

	for (p = json; *p; p++) {
		if (!quoted && *p == ' ')
			continue;
		if (*p == '"')
			quoted = !quoted;
		buf_chr(b, *p);
		if (quoted && *p == '\\' && p[1])
			buf_chr(b, *++p);
	}
}

static void
add_member(struct buf *b, const char *name, const char *value)
{
	if (!value)
		return;
	buf_fmt(b, ",\"%s\":", name);
	buf_json(b, value);
}

void
event_envelope(struct buf *b, const struct event_row *r)
{
	char id[ID_SIZE];

	buf_str(b, "{\"event\":");
	buf_json(b, r->type);
	buf_str(b, ",\"timestamp\":\"");
	time_write(b, r->at);
	buf_fmt(b, "\",\"team_id\":\"%s\",\"actor\":{\"type\":", id_write(id, "team-", r->team));
	buf_json(b, r->actor_type);
	if (strcmp(r->actor_type, "system") != 0) {
		add_member(b, "id", r->actor_id);
		add_member(b, "name", r->actor_name);
	}
	buf_str(b, "},\"resource\":{\"id\":");
	buf_json(b, r->resource_id);
	buf_str(b, ",\"type\":");
	buf_json(b, r->resource_type);
	buf_fmt(b, "},\"id\":\"%s\",\"seq\":%lld,\"v\":%d", id_write(id, "evt-", r->id),
	    (long long)r->seq, r->v);
	add_member(b, "category", r->category);
	if (r->capsule)
		add_member(b, "capsule_id", id_write(id, "cl-", r->capsule));
	add_member(b, "request_id", r->request_id);
	buf_str(b, ",\"data\":");
	add_compact(b, r->data);
	buf_chr(b, '}');
}
