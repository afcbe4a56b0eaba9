/* key_use.c - see key_use.h. Queries: sql/queries/keys.sql. */
#include "key_use.h"
#include "audit.h"
#include "cleanup.h"
#include "job.h"
#include "keys.q.h"
#include "log.h"

#include <string.h>
#include <time.h>

enum { SLOTS = 512, EVERY_MS = 30000 };

struct slot {
	struct uuid key;
	char route[96], ip[48];
	int status;
	int64_t n;
};

struct use_log {
	struct slot slot[SLOTS];
	int used;
	int64_t first_ms; /* of the oldest count that is not written */
};

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct use_log *
key_use_new(void *mem)
{
	return talloc_zero(mem, struct use_log);
}

void
key_use_count(struct use_log *u, const struct principal *who, const char *ip, const char *method,
    const char *path, int status)
{
	struct slot *s, *end = u->slot + u->used;
	char route[sizeof s->route];

	snprintf(route, sizeof route, "%s %s", method, path);
	for (s = u->slot; s < end; s++)
		if (s->status == status && uuid_equal(&s->key, who->key) &&
		    strcmp(s->route, route) == 0)
			break;
	if (s == u->slot + SLOTS)
		return; /* only when PostgreSQL has been away for long */
	if (s == end) {
		*s = (struct slot){ .key = *who->key, .status = status };
		memcpy(s->route, route, sizeof route);
		if (!u->used++)
			u->first_ms = now_ms();
	}
	snprintf(s->ip, sizeof s->ip, "%s", ip ? ip : "");
	s->n++;
}

int
key_use_wait_ms(const struct use_log *u)
{
	int64_t left = u->first_ms + EVERY_MS - now_ms();

	return !u->used ? -1 : left > 0 ? (int)left : 0;
}

static int
write_down(struct use_log *u, struct db *db, void *mem)
{
	const char *id[SLOTS + 1] = { 0 }, *ip[SLOTS + 1] = { 0 }, *route[SLOTS + 1] = { 0 };
	const char *status[SLOTS + 1] = { 0 }, *n[SLOTS + 1] = { 0 };
	const struct slot *s;
	int i;

	for (i = 0; i < u->used; i++) {
		char text[37];

		s = &u->slot[i];
		id[i] = talloc_strdup(mem, uuid_write(text, &s->key));
		ip[i] = s->ip;
		route[i] = s->route;
		status[i] = talloc_asprintf(mem, "%d", s->status);
		n[i] = talloc_asprintf(mem, "%lld", (long long)s->n);
	}
	db_begin(db);
	if (q_key_usage_add(db, .ids = id, .routes = route, .statuses = status, .counts = n) < 0 ||
	    q_key_used(db, .ids = id, .ips = ip) < 0)
		return -1;
	return db_commit(db);
}

void
key_use_write(struct use_log *u, struct db *db, bool now)
{
	auto_talloc void *mem = NULL;
	struct err e = { 0 };

	if (!u->used || (!now && u->used < SLOTS / 2 && now_ms() - u->first_ms < EVERY_MS))
		return;
	mem = talloc_new(NULL);
	if (db_unit(db, mem, &e) == 0 && write_down(u, db, mem) == 0)
		u->used = 0;
	else
		log_warn(NULL, "the use of keys is written later: %s", e.text);
	u->first_ms = now_ms();
	db_unit_end(db);
}

static int
denied_row(struct work *w, const struct principal *who)
{
	struct q_key_denial *d;
	struct buf data = BUF(w);

	db_begin(w->db);
	if (q_key_denied(w->db, &d, .id = who->key, .reason = who->denied) < 0)
		return -1;
	if (d->suppressed < 0)
		return db_commit(w->db);
	buf_fmt(&data, "{\"key_id\":\"%s\",\"name\":", id_text(w, "key-", who->key));
	buf_json(&data, who->name);
	buf_fmt(&data, ",\"reason\":\"%s\"}", who->denied);
	if (audit_add(w, AUDIT_API_KEY_USE_DENIED,
		&(struct audit){ .team = who->team,
		    .resource_id = id_text(w, "key-", who->key),
		    .metadata = talloc_asprintf(w, "{\"reason\":\"%s\",\"suppressed\":%d}",
			who->denied, (int)d->suppressed),
		    .data = data.data }) < 0)
		return -1;
	return db_commit(w->db);
}

int
key_denied(struct work *w, const struct principal *who, struct queue *q)
{
	struct err cause = w->err;
	int rc;

	if (strcmp(who->denied, "team") == 0)
		return 0; /* its keys are about to go */
	db_drop(w->db);
	w->err = (struct err){ 0 };
	rc = denied_row(w, who);
	if (rc < 0) {
		log_warn(w->id, "a refused key is not in the audit log: %s", w->err.text);
		db_rollback(w->db);
	} else if (q)
		job_announce(w, q);
	w->err = cause;
	return rc;
}
