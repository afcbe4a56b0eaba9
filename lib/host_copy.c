/* host_copy.c - see host_copy.h. A host pulls; here it is told what and from where. */
#include "host_copy.h"
#include "agent.h"
#include "capsule_steps.h"
#include "cleanup.h"
#include "copies.q.h"
#include "life.q.h"
#include "log.h"

enum { COPY_MS = 300000, COPIES = 2 };

static int
pull(struct work *w, const char *address, const char *what, const char *from, const char *digest,
    int64_t wait_ms)
{
	struct buf body = BUF(w);
	struct agent_call call = { .method = "PUT",
		.address = address,
		.path = talloc_asprintf(w, "/artifacts/%s", what),
		.total_ms = wait_ms };
	struct json_object *answer;

	buf_str(&body, "{\"from\":");
	buf_json(&body, from);
	if (digest) {
		buf_str(&body, ",\"digest\":");
		buf_json(&body, digest);
	}
	buf_chr(&body, '}');
	call.body = body.data;
	return agent_send(w, &call, &answer);
}

int
host_bring_template(struct work *w, const struct uuid *host, const char *address, const char *name,
    const struct q_capsule_op *waits, int64_t wait_ms)
{
	struct q_template_source *s;
	int n = q_template_sources(w->db, &s, .host = host, .name = name);

	if (n <= 0)
		return n;
	if (waits && op_waits(w, waits, "pulling") < 0)
		return -1;
	if (pull(w, address, talloc_asprintf(w, "templates/%s", name), s->dial, s->digest,
		wait_ms) < 0)
		return -1;
	return q_host_holds(w->db, .host = host, .name = name) < 0 ? -1 : 1;
}

/* One copy that fails is tried again with the next turn, and keeps no other from being made. */
static void
forget(struct work *w, const char *what)
{
	log_warn(w->id, "copy of %s: %s", what, w->err.text);
	db_rollback(w->db);
	w->err = (struct err){ 0 };
}

static int
artifacts(struct work *w)
{
	struct q_copy_wanted *c;
	int n = q_copies_wanted(w->db, &c, .copies = COPIES), i;

	for (i = 0; i < n; i++) {
		char hex[2 * HASH_SIZE + 1];

		hex_write(hex, c[i].id.p, c[i].id.n);
		if (pull(w, c[i].target_dial, hex, c[i].source_dial, NULL, COPY_MS) < 0 ||
		    q_artifact_held(w->db, .id = c[i].id, .holder = c[i].target) < 0)
			forget(w, hex);
	}
	return n;
}

static int
templates(struct work *w)
{
	struct q_template_wanted *t;
	int n = q_templates_wanted(w->db, &t, .copies = COPIES), i;

	for (i = 0; i < n; i++)
		if (host_bring_template(
			w, t[i].target, t[i].target_dial, t[i].name, NULL, COPY_MS) < 0)
			forget(w, t[i].name);
	return n;
}

int
host_copies(struct work *w, const struct op_env *env)
{
	(void)env;
	return templates(w) < 0 || artifacts(w) < 0 ? -1 : 0;
}
