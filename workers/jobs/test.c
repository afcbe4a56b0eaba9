/* test.c - kinds of jobs that only tests/jobs asks for; not compiled into a release. */
#ifdef DEV_BUILD
#include "workers/job.h"
#include "db.h"
#include "jobs.q.h"

#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static job_fn test_effect, test_fail, test_crash, test_slow, test_claim;

struct test_in {
	const char *error;
	int64_t retry_after, steps, ms;
};
static const struct field test_in_fields[] = {
	FIELD(test_in, error, "error"),
	FIELD(test_in, retry_after, "retry_after", .min = -1, .max = 3600, .dflt = -1),
	FIELD(test_in, steps, "steps", .min = 1, .max = 1000, .dflt = 1),
	FIELD(test_in, ms, "ms", .min = 0, .max = 60000, .dflt = 0),
	{ 0 },
};

const struct job_kind test_jobs[] = {
	{ "test.effect", test_effect, IN(test_in) },
	{ "test.fail", test_fail, IN(test_in) },
	{ "test.crash", test_crash, IN(test_in) },
	{ "test.slow", test_slow, IN(test_in) },
	{ "test.claim", test_claim, IN(test_in) },
	{ 0 },
};

static void
pause_ms(int64_t ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&t, &t) < 0)
		;
}

/* The effect is a row that can be there once: number n of the job, with the epoch that wrote it. */
static int
effect(struct job *j, int n, bool save)
{
	if (job_begin(j) < 0)
		return -1;
	if (q_job_item_add(j->work.db, .id = &j->ref.id, .n = n,
		.target = talloc_asprintf(j, "%lld", (long long)j->ref.epoch),
		.state = "succeeded") < 0)
		return -1;
	if (save && job_save(j, talloc_asprintf(j, "{\"step\":%d}", n + 1), "working") < 0)
		return -1;
	return job_commit(j);
}

static int
test_effect(struct job *j)
{
	const struct test_in *in = j->in;

	if (effect(j, 0, false) < 0)
		return -1;
	pause_ms(in->ms);
	j->result = "{\"done\":true}";
	return 0;
}

static int
asked_error(struct job *j)
{
	const struct test_in *in = j->in;
	int i;

	for (i = 0; i < E__MAX; i++)
		if (in->error && strcmp(err_kinds[i].name, in->error) == 0)
			return err_set(&j->work.err, (enum err_code)i, "as was asked for");
	return 0;
}

static int
test_fail(struct job *j)
{
	const struct test_in *in = j->in;

	if (effect(j, j->try - 1, false) < 0)
		return -1;
	j->retry_after = in->retry_after;
	return asked_error(j);
}

static int
test_crash(struct job *j)
{
	(void)j;
	kill(getpid(), SIGKILL);
	return 0;
}

static int
test_slow(struct job *j)
{
	const struct test_in *in = j->in;
	int64_t step = 0;

	if (j->checkpoint)
		sscanf(j->checkpoint, "{\"step\": %lld", (long long *)&step);
	for (; step < in->steps; step++) {
		if (job_must_stop(j))
			return job_yield(j);
		if (job_cancelled(j))
			return err_set(&j->work.err, E_CANCELLED, "on request");
		if (effect(j, (int)step, true) < 0)
			return -1;
		pause_ms(in->ms);
	}
	return 0;
}

/* As the operations pool does: adds a job that it takes itself, and ends it well, with an error, or
 * hands it back. */
static int
test_claim(struct job *j)
{
	const struct test_in *in = j->in;
	struct job_new add = { .kind = "test.effect",
		.unique_key = id_text(j, "job-", &j->ref.id),
		.claimed = true,
		.worker = "test" };
	struct job_ref ref = { .epoch = 1 };
	bool mine = false;
	int rc;

	if (job_begin(j) < 0 || job_add(&j->work, &add, &ref.id, &mine) < 0 || job_commit(j) < 0)
		return -1;
	if (!mine)
		return err_set(&j->work.err, E_BUG, "the job was not inserted claimed");
	if (job_fence(&j->work, &ref) < 0 || job_renew(&j->work, &ref, 20) < 0)
		return -1;
	(void)asked_error(j);
	if (in->error && strcmp(in->error, "HAND_BACK") == 0)
		rc = job_hand_back(&j->work, j->queue, &ref);
	else
		rc = job_end_claimed(&j->work, j->queue, &ref, "{\"by\":\"pool\"}");
	if (rc == 0)
		j->work.err = (struct err){ 0 };
	return rc;
}
#endif
