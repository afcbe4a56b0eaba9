/* vm_save.c - the memory and device state of a stopped VM, through the stream filter into files. */
#include "stream_filter.h"
#include "sums.h"
#include "vm_run.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { WRITE_BACK = 8 << 20 };

struct save {
	struct vm *vm;
	int memory, parent, state; /* where to, and against what; our own */
	int pipe_write;            /* QEMU's end, until it has it */
	bool sum;
	bool before;         /* it was saved before */
	bool sent, filtered; /* QEMU says completed; the filter is through */
	struct filter_job *job;
};

/* Lives as long as the thread does; knows the save only while it waits for it. */
struct filter_job {
	struct save *save;
	struct stream_filter filter;
	struct sums *sums; /* of the thin stream */
	uint64_t written;  /* of it, how far the disk was told */
	struct err err;
	int result;
};

static int
save_free(struct save *s)
{
	cleanup_fd(&s->pipe_write);
	cleanup_fd(&s->memory);
	cleanup_fd(&s->parent);
	cleanup_fd(&s->state);
	if (s->job)
		s->job->save = NULL;
	s->vm->run->save = NULL;
	return 0;
}

static void
save_moved(struct save *s)
{
	struct flow *flow = s->vm->run->flow;

	if (!s->sent || !s->filtered)
		return;
	talloc_free(s);
	flow_next(flow);
}

void
vm_save_event(struct vm *vm)
{
	vm->run->save->sent = true;
	save_moved(vm->run->save);
}

/* Summed beside the filter; and the disk begins before the fsync asks for all of it. */
static void
on_wrote(void *arg, const void *p, size_t n)
{
	struct filter_job *j = arg;
	uint64_t at = j->filter.bytes_out + n;

	sums_add(j->sums, p, n);
	if (at - j->written >= WRITE_BACK) {
		(void)sync_file_range(j->filter.out, (off_t)j->written, (off_t)(at - j->written),
		    SYNC_FILE_RANGE_WRITE);
		j->written = at;
	}
}

static void
filter_run(void *arg)
{
	struct filter_job *j = arg;

	if (j->filter.wrote)
		j->sums = sums_new(j);
	j->result = stream_filter(&j->filter, &j->err);
	if (j->sums)
		sums_end(j->sums);
	/* QEMU gets EPIPE when the filter gave up: the save fails on both sides */
	close(j->filter.in);
}

static void
filter_done(void *arg)
{
	struct filter_job *j = arg;
	struct save *s = j->save;

	cleanup_fd(&j->filter.memory);
	cleanup_fd(&j->filter.parent);
	close(j->filter.out);
	if (s) {
		s->job = NULL;
		s->filtered = true;
		TALLOC_FREE(s->vm->sums);
		s->vm->sums = talloc_move(s->vm, &j->sums);
		if (j->result < 0)
			flow_fail(s->vm->run->flow, &j->err);
		else
			save_moved(s);
	}
	talloc_free(j);
}

static void
step_pipe(void *user)
{
	struct vm *vm = user;
	struct save *s = vm->run->save;
	struct filter_job *j = talloc_zero(NULL, struct filter_job);
	struct err e = { 0 };
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0) {
		err_sys(&e, "pipe");
		talloc_free(j);
		flow_fail(vm->run->flow, &e);
		return;
	}
	(void)fcntl(ends[0], F_SETPIPE_SZ, 1 << 20);
	s->pipe_write = ends[1];
	s->job = j;
	j->save = s;
	j->filter = (struct stream_filter){ .in = ends[0],
		.out = fcntl(s->state, F_DUPFD_CLOEXEC, 0),
		.memory = s->memory < 0 ? -1 : fcntl(s->memory, F_DUPFD_CLOEXEC, 0),
		.parent = s->parent < 0 ? -1 : fcntl(s->parent, F_DUPFD_CLOEXEC, 0),
		.block = "mem",
		.wrote = s->sum ? on_wrote : NULL,
		.arg = j,
		.size = (uint64_t)vm->memory_mb << 20 };
	background(vm->agent->loop, filter_run, filter_done, j);
	/* the default would hold it at 128 MiB/s */
	vm_call(vm, "migrate-set-parameters", "{\"max-bandwidth\":1099511627776}", -1, vm_ok);
}

static void
step_give_pipe(void *user)
{
	struct vm *vm = user;
	struct save *s = vm->run->save;

	vm_call(vm, "getfd", "{\"fdname\":\"save\"}", s->pipe_write, vm_ok);
	close(s->pipe_write);
	s->pipe_write = -1;
}

static void
on_migrate(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;

	(void)ret;
	if (e)
		flow_fail(vm->run->flow, e);
	/* the MIGRATION event and the filter's end move on */
}

static void
step_migrate(void *user)
{
	struct vm *vm = user;

	vm_call(vm, "migrate", "{\"uri\":\"fd:save\"}", -1, on_migrate);
}

/* After a save QEMU saves again only when it ran meanwhile: for a moment, the user's processes
   frozen. A save whose end a dead agent did not see, or whose file was not made durable, is the
   reason. */
static void
on_status(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;

	if (e) {
		flow_fail(vm->run->flow, e);
		return;
	}
	vm->run->save->before = strcmp(json_str(ret, "status", ""), "postmigrate") == 0;
	flow_next(vm->run->flow);
}

static void
step_status(void *user)
{
	vm_call(user, "query-status", NULL, -1, on_status);
}

static void
step_wake(void *user)
{
	struct vm *vm = user;

	if (vm->run->save->before)
		vm_step_cont(vm);
	else
		flow_next(vm->run->flow);
}

static void
step_still(void *user)
{
	struct vm *vm = user;

	if (vm->run->save->before)
		vm_step_stop(vm);
	else
		flow_next(vm->run->flow);
}

static const struct step save_steps[] = {
	{ "looking at it", step_status },
	{ "continuing after an earlier save", step_wake },
	{ "stopping again", step_still },
	{ "preparing the save", step_pipe },
	{ "handing over the pipe", step_give_pipe },
	{ "saving memory", step_migrate },
	{ "saved", vm_step_stopped },
	{ 0 },
};

void
vm_save(struct vm *vm, int memory, int parent, int state, bool sum, vm_done *done, void *user)
{
	struct save *s;

	vm_flow(vm, save_steps, done, user);
	s = talloc_zero(vm->run->flow, struct save);
	s->vm = vm;
	s->memory = memory < 0 ? -1 : fcntl(memory, F_DUPFD_CLOEXEC, 0);
	s->parent = parent < 0 ? -1 : fcntl(parent, F_DUPFD_CLOEXEC, 0);
	s->state = fcntl(state, F_DUPFD_CLOEXEC, 0);
	s->pipe_write = -1;
	s->sum = sum;
	vm->run->save = s;
	talloc_set_destructor(s, save_free);
	flow_deadline(vm->run->flow, 60000 + (uint64_t)vm->memory_mb * 10);
}
