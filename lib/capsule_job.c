/* capsule_job.c - the job of an operation on a capsule, for who asks for it; see capsule_op.h. */
#include "capsule_op.h"
#include "cleanup.h"

#include <inttypes.h>

/* When the process that took its own job dies, a worker has it this much later: a legal state
   within 30 s (spec 02 §9, row 3). One that only waits for longer finds itself fenced, and looks
   on. */
enum { CLAIM_SECONDS = 12 };

static const char *
args_json(void *mem, const struct op_args *a)
{
	struct buf b = BUF(mem);

	buf_fmt(&b, "{\"capsule\":\"%s\",\"epoch\":%" PRId64, id_text(mem, "cl-", a->capsule),
	    a->epoch);
	if (a->snapshot)
		buf_fmt(&b, ",\"snapshot\":\"%s\"", id_text(mem, "snp-", a->snapshot));
	if (a->safety)
		buf_fmt(&b, ",\"safety\":\"%s\"", id_text(mem, "snp-", a->safety));
	if (a->destroy)
		buf_str(&b, ",\"destroy\":true");
	buf_fmt(&b, ",\"memory\":%s}", a->memory ? "true" : "false");
	return b.data;
}

int
capsule_job(struct work *w, const char *kind, const struct uuid *team, const struct op_args *a,
    const char *worker, struct job_ref *ret, bool *claimed)
{
	struct job_new job = { .kind = kind,
		.team = team,
		.args = args_json(w, a),
		.unique_key =
		    talloc_asprintf(w, "%s/%" PRId64, id_text(w, "cl-", a->capsule), a->epoch),
		.lock_key = id_text(w, "cl-", a->capsule),
		.claimed = worker != NULL,
		.lease_sec = CLAIM_SECONDS,
		.worker = worker };

	ret->epoch = 1;
	if (claimed)
		*claimed = false;
	return job_add(w, &job, &ret->id, claimed);
}
