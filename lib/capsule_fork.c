/*
 * capsule_fork.c - fork: children of one capsule, made by its host in one call; see capsule_op.h.
 *
 * Where the host has no room for all of them, it seals the capsule as for a snapshot, and each
 * child starts from that where there is room.
 */
#include "capsule_steps.h"
#include "cleanup.h"
#include "crash.h"

#include <inttypes.h>
#include <string.h>

static int
child_json(struct work *w, const struct op_env *env, const struct q_capsule_op *k, struct buf *b)
{
	const char *who = op_identity(w, env, k);

	if (!who)
		return -1;
	buf_fmt(b, "{\"id\":\"%s\",\"epoch\":%" PRId64 ",\"disk_size_mb\":%d,%s,",
	    id_text(w, "cl-", k->id), k->epoch, k->disk_size_mb, who);
	op_times(b, k);
	buf_chr(b, '}');
	return 0;
}

static struct json_object *
answer_of(struct work *w, struct json_object *list, const struct uuid *id)
{
	const char *text = id_text(w, "cl-", id);
	size_t i,
	    n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

	for (i = 0; i < n; i++)
		if (strcmp(json_str(json_object_array_get_idx(list, i), "id", ""), text) == 0)
			return json_object_array_get_idx(list, i);
	return NULL;
}

/* One child: running, or failed for a reason of its own. */
static int
child_settle(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *k, struct json_object *said)
{
	struct json_object *error = said ? json_get(said, "error") : NULL;
	int rc;

	if (said && !error)
		return op_running(w, env, job, k, "pending", said);
	(void)err_set(&w->err,
	    error && strcmp(json_str(error, "code", ""), "out_of_space") == 0 ? E_NO_SPACE
									      : E_AGENT,
	    "fork: %s", error ? json_str(error, "message", "no reason given") : "no answer for it");
	rc = op_failed(w, job, k, k->epoch, "fork", "start_failed");
	if (rc < 0 && !op_unknown(&w->err)) {
		w->err = (struct err){ 0 }; /* its row says it; the others are not concerned */
		return 0;
	}
	return rc;
}

static int
fork_end(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *parent)
{
	struct err cause = w->err;

	w->err = (struct err){ 0 };
	if (op_begin(w, job) < 0 || q_life_op_end(w->db, .id = parent->id, .op = "fork") < 0 ||
	    op_commit(w, env) < 0)
		return -1;
	w->err = cause;
	return cause.code == E_OK ? 0 : -1;
}

/* All of the same moment: those that have a place here, and those that wait for one. */
static int
start_apart(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *parent, struct q_capsule_op **kids, int n,
    struct json_object *answer)
{
	struct job_ref start;
	struct sealed s;
	int i, rc;

	if (op_begin(w, job) < 0 || op_sealed(w, parent->host_id, answer, &s) < 0)
		return -1;
	for (i = 0; i < n; i++) {
		rc = q_life_child_apart(
		    w->db, .id = kids[i]->id, .epoch = kids[i]->epoch, .cold = !s.memory.p);
		if (rc < 0 ||
		    (rc > 0 &&
			(op_image(w, kids[i], &s) < 0 ||
			    capsule_job(w, "capsule.start", kids[i]->team_id,
				&(struct op_args){
				    .capsule = kids[i]->id, .epoch = kids[i]->epoch },
				NULL, &start, NULL) < 0)))
			return -1;
	}
	if (q_life_op_end(w->db, .id = parent->id, .op = "fork") < 0)
		return -1;
	return op_commit(w, env);
}

/* None of them is made. */
static int
all_failed(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct q_capsule_op *parent, struct q_capsule_op **kids, int n)
{
	struct err failed = w->err;
	int i;

	for (i = 0; i < n; i++) {
		w->err = failed;
		if (op_failed(w, job, kids[i], kids[i]->epoch, "fork", "start_failed") < 0 &&
		    w->err.code != failed.code)
			return -1;
	}
	w->err = failed;
	return fork_end(w, env, job, parent);
}

int
capsule_op_fork(struct work *w, const struct op_env *env, const struct job_ref *job,
    const struct op_args *a, int64_t wait_ms)
{
	struct q_capsule_op *parent, **kids;
	struct q_life_child *child;
	struct json_object *answer, *list;
	struct buf body = BUF(w);
	char job_id[ID_SIZE];
	bool apart = false;
	int n = q_capsule_for_op(w->db, &parent, .id = a->capsule), i;

	if (n <= 0)
		return n;
	n = q_life_children(w->db, &child, .parent = a->capsule, .job = &job->id);
	if (n < 0)
		return -1;
	if (n == 0)
		return fork_end(w, env, job, parent);
	crash_point("fork.2");
	kids = talloc_zero_array(w, struct q_capsule_op *, n);
	buf_fmt(&body, "{\"memory\":%s,\"children\":[", a->memory ? "true" : "false");
	for (i = 0; i < n; i++) {
		if (q_capsule_for_op(w->db, &kids[i], .id = child[i].id) <= 0)
			return -1;
		apart = apart || strcmp(child[i].observed_state, "pending") == 0;
		if (i)
			buf_chr(&body, ',');
		if (child_json(w, env, kids[i], &body) < 0)
			return -1;
	}
	buf_str(&body, "]}");
	id_write(job_id, "job-", &job->id);
	if (apart)
		body.data = talloc_asprintf(w, "{\"snapshot\":\"snp-%s\",\"memory\":%s}",
		    job_id + strlen("job-"), a->memory ? "true" : "false");
	/* who was already made by an earlier run of this job is answered again by the agent */
	if (op_call(w, parent, "POST", apart ? "/snapshot" : "/fork", job_id, parent->epoch,
		body.data, wait_ms, &answer) < 0)
		return op_unknown(&w->err) ? -1 : all_failed(w, env, job, parent, kids, n);
	crash_point("fork.6");
	if (apart)
		return start_apart(w, env, job, parent, kids, n, answer);
	list = json_get(answer, "children");
	for (i = 0; i < n; i++)
		if (child_settle(w, env, job, kids[i], answer_of(w, list, kids[i]->id)) < 0)
			return -1;
	return fork_end(w, env, job, parent);
}
