/* vm_sleep.c - what a VM does around a sleep: freeze, part from its guest, meet it again, and the
 * disks. */
#include "disk.h"
#include "guest.h"
#include "identity.h"
#include "priv.h"
#include "template.h"
#include "vm_guest.h"
#include "vm_run.h"

#include <fcntl.h>
#include <string.h>

enum {
	FREEZE_MS = 3000,
	GROW_MS = 20000,
	SYNC_MS = 20000,
	MEET_MS = 20000,
	TRY_MS = 8000,
	AGAIN_MS = 60,
	LOOK_MS = 3
};
enum { FLATTEN_MS = 600000, FLATTEN_LOOK_MS = 250, STREAM_ID_LEN = 16 };

/* Calls of the guest's that only say yes or no. */
static void
on_guest(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct vm *vm = arg;
	struct err bad = { 0 };

	(void)len;
	if (!e && status / 100 == 2) {
		flow_next(vm->run->flow);
		return;
	}
	if (!e)
		(void)err_set(&bad, E_AGENT, "the guest answers %d: %.120s", status, body);
	flow_fail(vm->run->flow, e ? e : &bad);
}

static void
ask_guest(struct vm *vm, const char *path, const char *body, uint64_t ms)
{
	struct guest_call call = { .method = "POST",
		.path = path,
		.type = "application/json",
		.body = body,
		.len = strlen(body),
		.timeout_ms = ms };

	vm_ask(vm, vm->run->flow, &call, on_guest, vm);
}

static void
step_freeze(void *user)
{
	struct vm *vm = user;

	vm->frozen = true;
	ask_guest(vm, "/freeze", vm->run->sync ? "{\"sync\":true}" : "{}",
	    vm->run->sync ? SYNC_MS : FREEZE_MS);
}

void
vm_step_thaw(void *user)
{
	struct vm *vm = user;

	ask_guest(vm, "/unfreeze", "{}", FREEZE_MS);
}

static void
step_thawed(void *user)
{
	struct vm *vm = user;

	vm->frozen = false;
	flow_next(vm->run->flow);
}

static const struct step freeze_steps[] = { { "freezing the user's processes", step_freeze },
	{ 0 } };
static const struct step thaw_steps[] = { { "thawing the user's processes", vm_step_thaw },
	{ "thawed", step_thawed }, { 0 } };

void
vm_freeze(struct vm *vm, bool sync, vm_done *done, void *user)
{
	vm->run->sync = sync;
	vm_flow(vm, freeze_steps, done, user);
}

void
vm_thaw(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, thaw_steps, done, user);
}

/* An agent in the guest that is older than the call grows the file system at its next init. */
static void
on_grown(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct vm *vm = arg;

	if (!e && status == 404) {
		log_info(NULL, "vm %s: its file system grows when it wakes", vm->name);
		flow_next(vm->run->flow);
	} else
		on_guest(arg, status, body, len, e);
}

static void
step_grow_guest(void *user)
{
	struct vm *vm = user;
	char text[64];
	struct guest_call call = { .method = "POST",
		.path = "/grow",
		.type = "application/json",
		.body = text,
		.timeout_ms = GROW_MS };

	call.len = (size_t)snprintf(
	    text, sizeof text, "{\"bytes\":%llu}", (unsigned long long)vm->disk_size);
	vm_ask(vm, vm->run->flow, &call, on_grown, vm);
}

static const struct step grow_steps[] = { { "growing the file system", step_grow_guest }, { 0 } };

void
vm_grow_guest(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, grow_steps, done, user);
}

/* Parting: the session says goodbye; it is gone when the guest may see the end of file. */

static void
left(void *arg)
{
	struct vm *vm = arg;
	struct vm_run *r = vm->run;

	TALLOC_FREE(r->again);
	if (vm->guest)
		r->again = timer_new(r, vm->agent->loop, LOOK_MS, 0, left, vm);
	else
		flow_next(r->flow);
}

static void
step_leave(void *user)
{
	struct vm *vm = user;

	if (vm->guest)
		guest_leave(vm->guest);
	TALLOC_FREE(vm->run->again);
	vm->run->again = timer_new(vm->run, vm->agent->loop, LOOK_MS, 0, left, vm);
}

static void
step_settle(void *user)
{
	struct vm *vm = user;

	/* a few milliseconds for the guest to see it: not needed, only faster after a restore */
	TALLOC_FREE(vm->run->again);
	vm->run->again = timer_new(vm->run, vm->agent->loop, LOOK_MS, 0, left, vm);
}

static const struct step leave_steps[] = { { "closing the guest session", step_leave },
	{ "the guest sees it", step_settle }, { 0 } };

void
vm_leave(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, leave_steps, done, user);
	flow_deadline(vm->run->flow, VM_CALL_MS);
}

/* Meeting again. */

static void step_meet(void *);

static void
on_met(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct vm *vm = arg;
	struct vm_run *r = vm->run;

	(void)body;
	(void)len;
	if (!e && status / 100 == 2) {
		flow_next(r->flow);
		return;
	}
	/* the guest may take our first bytes for the rest of an old frame: an end of file clears
	 * that */
	TALLOC_FREE(vm->guest);
	TALLOC_FREE(r->again);
	r->again = timer_new(r, vm->agent->loop, AGAIN_MS, 0, step_meet, vm);
}

static void
step_meet(void *user)
{
	struct vm *vm = user;
	char nonce[33];
	struct guest_call call = {
		.method = "GET", .path = "/health", .nonce = nonce, .timeout_ms = TRY_MS
	};
	struct err e = { 0 };

	random_hex(nonce, 16);
	if (vm_guest_open(vm, &e) < 0)
		flow_fail(vm->run->flow, &e);
	else
		guest_call(vm->guest, vm->run->flow, &call, on_met, vm);
}

static const struct step meet_steps[] = { { "the guest's answer", step_meet }, { 0 } };

void
vm_meet(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, meet_steps, done, user);
	flow_deadline(vm->run->flow, MEET_MS);
}

/* A fresh overlay. */

/* The file, twice: QEMU opens the written disk again, read only, when it becomes a layer. */
static void
add_fd(struct vm *vm, const char *file, int flags, unsigned set, qmp_reply *reply)
{
	auto_fd fd = openat(vm->dir, file, flags | O_CLOEXEC);
	char text[64];
	struct err e = { 0 };

	snprintf(text, sizeof text, "{\"fdset-id\":%u}", set);
	if (fd < 0) {
		err_sys(&e, "%s", file);
		flow_fail(vm->run->flow, &e);
	} else
		vm_call(vm, "add-fd", text, fd, reply);
}

static unsigned
set_of(const struct vm *vm)
{
	return 1000 + vm->chain.active + 1;
}

/* A try that failed, or whose agent died, has left its node and its descriptors: opened again, they
   would be those of the file that is removed now. Mostly there is nothing, which is an error. */
static void
on_cleared(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;

	(void)ret;
	if (!e)
		log_info(NULL, "vm %s: a half-made disk is removed", vm->name);
	flow_next(vm->run->flow);
}

static void
step_clear_node(void *user)
{
	struct vm *vm = user;
	char text[LAYER_NAME + 32], node[LAYER_NAME];

	snprintf(
	    text, sizeof text, "{\"node-name\":\"%s\"}", chain_node(vm->chain.active + 1, node));
	vm_call(vm, "blockdev-del", text, -1, on_cleared);
}

static void
step_clear_fds(void *user)
{
	struct vm *vm = user;
	char text[64];

	snprintf(text, sizeof text, "{\"fdset-id\":%u}", set_of(vm));
	vm_call(vm, "remove-fd", text, -1, on_cleared);
}

static void
step_overlay(void *user)
{
	struct vm *vm = user;
	struct err e = { 0 };
	char file[LAYER_NAME];

	if (vm->chain.layers + 1 >= LAYERS_MAX) {
		(void)err_set(&e, E_OVERLOADED,
		    "the disk has too many layers: they are being flattened, come back later");
		flow_fail(vm->run->flow, &e);
		return;
	}
	(void)unlinkat(vm->dir, chain_file(vm->chain.active + 1, file), 0);
	auto_fd fd = openat(vm->dir, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		err_sys(&e, "%s", file);
		flow_fail(vm->run->flow, &e);
	} else if (disk_overlay(fd, vm->disk_size, NULL, &e) < 0)
		flow_fail(vm->run->flow, &e);
	else
		flow_next(vm->run->flow);
}

static void
step_add_write(void *user)
{
	struct vm *vm = user;
	char file[LAYER_NAME];

	add_fd(vm, chain_file(vm->chain.active + 1, file), O_RDWR, set_of(vm), vm_ok);
}

static void
step_add_read(void *user)
{
	struct vm *vm = user;
	char file[LAYER_NAME];

	add_fd(vm, chain_file(vm->chain.active + 1, file), O_RDONLY, set_of(vm), vm_ok);
}

static void
step_node(void *user)
{
	struct vm *vm = user;
	char text[256], node[LAYER_NAME];

	snprintf(text, sizeof text,
	    "{\"driver\":\"qcow2\",\"node-name\":\"%s\",\"discard\":\"unmap\",\"backing\":null,"
	    "\"file\":{\"driver\":\"file\",\"locking\":\"off\",\"filename\":\"/dev/fdset/%u\"}}",
	    chain_node(vm->chain.active + 1, node), set_of(vm));
	vm_call(vm, "blockdev-add", text, -1, vm_ok);
}

static const struct step prepare_steps[] = { { "removing an earlier try", step_clear_node },
	{ "removing an earlier try", step_clear_fds }, { "making a fresh disk", step_overlay },
	{ "handing it over", step_add_write }, { "handing it over", step_add_read },
	{ "adding it", step_node }, { 0 } };

void
vm_disk_prepare(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, prepare_steps, done, user);
	flow_deadline(vm->run->flow, VM_CALL_MS);
}

static void
on_switched(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;
	char file[LAYER_NAME];

	(void)ret;
	if (e) {
		flow_fail(vm->run->flow, e);
		return;
	}
	(void)chain_push(&vm->chain, chain_file(vm->chain.active, file), &(struct err){ 0 });
	vm->chain.active++;
	flow_next(vm->run->flow);
}

static void
step_switch(void *user)
{
	struct vm *vm = user;
	char text[200], old[LAYER_NAME], new[LAYER_NAME];

	snprintf(text, sizeof text, "{\"node\":\"%s\",\"overlay\":\"%s\"}",
	    chain_node(vm->chain.active, old), chain_node(vm->chain.active + 1, new));
	vm_call(vm, "blockdev-snapshot", text, -1, on_switched);
}

static const struct step switch_steps[] = { { "switching to the fresh disk", step_switch }, { 0 } };

void
vm_disk_switch(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, switch_steps, done, user);
	flow_deadline(vm->run->flow, VM_CALL_MS);
}

/* Which of its disks is written, and how large it is: a dead agent may have switched, or grown it,
   and not have written it down. */

static void
on_blocks(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;
	size_t i,
	    n = ret && json_object_is_type(ret, json_type_array) ? json_object_array_length(ret)
								 : 0;
	char file[LAYER_NAME];
	unsigned active;

	if (e) {
		flow_fail(vm->run->flow, e);
		return;
	}
	for (i = 0; i < n; i++) {
		struct json_object *j = json_get(json_object_array_get_idx(ret, i), "inserted");
		const char *node = json_str(j, "node-name", "");

		if (strncmp(node, "d1", 2) == 0)
			vm->disk_size = (uint64_t)json_int(
			    json_get(j, "image"), "virtual-size", (int64_t)vm->disk_size);
		if (sscanf(node, "d1-%u", &active) != 1)
			continue;
		for (; vm->chain.active < active; vm->chain.active++)
			(void)chain_push(
			    &vm->chain, chain_file(vm->chain.active, file), &(struct err){ 0 });
	}
	flow_next(vm->run->flow);
}

/* A flattening that nobody waits for any more would be in the way of the next snapshot. */
static void
on_no_job(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;

	(void)ret;
	(void)e;
	vm_call(vm, "query-block", NULL, -1, on_blocks);
}

void
vm_step_blocks(void *user)
{
	vm_call(user, "block-job-cancel", "{\"device\":\"flatten\"}", -1, on_no_job);
}

/* Flattening: QEMU copies what lies between the template's image and the written file. */

static void step_look(void *);

static void
on_jobs(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;
	struct vm_run *r = vm->run;

	TALLOC_FREE(r->again);
	if (e)
		flow_fail(r->flow, e);
	else if (json_object_is_type(ret, json_type_array) && json_object_array_length(ret))
		r->again = timer_new(r, vm->agent->loop, FLATTEN_LOOK_MS, 0, step_look, vm);
	else
		flow_next(r->flow);
}

static void
step_look(void *user)
{
	vm_call(user, "query-block-jobs", NULL, -1, on_jobs);
}

/* The lowest layer is the template's image, which all clones share: 1; it lies on the template: 0.
 */
static int
on_image(const struct vm *vm)
{
	return vm->chain.layers && strcmp(vm->parent, vm->chain.layer[0]) == 0;
}

static void
step_stream(void *user)
{
	struct vm *vm = user;
	char text[200], node[LAYER_NAME];

	/* what is below is said at each start, by descriptor: its name here and now, which QEMU
	   would write into the disk, means nothing later */
	snprintf(text, sizeof text,
	    "{\"job-id\":\"flatten\",\"device\":\"%s\",\"base-node\":\"l%d\",\"backing-file\":"
	    "\"\"}",
	    chain_node(vm->chain.active, node), on_image(vm));
	vm_call(vm, "block-stream", text, -1, vm_ok);
}

static void
on_named(void *arg, struct json_object *ret, const struct err *e)
{
	struct vm *vm = arg;
	size_t i,
	    n = ret && json_object_is_type(ret, json_type_array) ? json_object_array_length(ret)
								 : 0;
	char want[LAYER_NAME];
	struct err bad = { 0 };

	if (e) {
		flow_fail(vm->run->flow, e);
		return;
	}
	/* a job that failed leaves the list as one that is done: the layers tell */
	(void)chain_node(vm->chain.active, want);
	for (i = 0; i < n; i++) {
		struct json_object *in = json_get(json_object_array_get_idx(ret, i), "inserted");

		if (strcmp(json_str(in, "node-name", ""), want) != 0)
			continue;
		if (json_int(in, "backing_file_depth", LAYERS_MAX) > on_image(vm) + 1) {
			(void)err_set(&bad, E_QEMU, "the layers are still there");
			flow_fail(vm->run->flow, &bad);
			return;
		}
		vm->chain.layers = (size_t)on_image(vm);
	}
	flow_next(vm->run->flow);
}

static void
step_named(void *user)
{
	vm_call(user, "query-block", NULL, -1, on_named);
}

static const struct step flatten_steps[] = { { "flattening the disk", step_stream },
	{ "flattening the disk", step_look }, { "looking at the disk", step_named }, { 0 } };

void
vm_disk_flatten(struct vm *vm, vm_done *done, void *user)
{
	vm_flow(vm, flatten_steps, done, user);
	flow_deadline(vm->run->flow, FLATTEN_MS);
}

void
vm_disk_flatten_cancel(struct vm *vm)
{
	if (vm->qmp)
		qmp_call(vm->qmp, "block-job-cancel", "{\"device\":\"flatten\"}", -1, NULL, NULL);
}
