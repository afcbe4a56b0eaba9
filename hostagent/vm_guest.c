/* vm_guest.c - see vm_guest.h. */
#include "vm_guest.h"
#include "identity.h"
#include "log.h"
#include "loop.h"

#include <string.h>

enum { AGAIN_MS = 50, PROOF_MS = 8000 };

struct ask {
	struct agent *agent;
	struct vm *vm;
	struct guest_call call; /* its texts are copies */
	guest_answer *answer;
	void *arg;
	int64_t until;
	struct timer *again;
	struct err why; /* of the last refusal */
};

static void ask_again(void *);

/* Its owner may outlive the VM. */
static bool
is_there(const struct ask *a)
{
	struct vm *vm;

	TAILQ_FOREACH(vm, &a->agent->vms, link)
	if (vm == a->vm)
		return vm->state != VM_DYING && vm->state != VM_DEAD;
	return false;
}

static void
ask_end(struct ask *a, int status, const char *body, size_t len, const struct err *e)
{
	guest_answer *answer = a->answer;
	void *arg = a->arg;

	explicit_bzero((void *)a->call.body, a->call.len);
	talloc_steal(NULL, a); /* the answer may free the owner */
	answer(arg, status, body, len, e);
	talloc_free(a);
}

static void
later(struct ask *a)
{
	TALLOC_FREE(a->again);
	a->again = timer_new(a, a->agent->loop, AGAIN_MS, 0, ask_again, a);
}

static void
on_asked(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct ask *a = arg;

	a->why = (struct err){ 0 };
	if (e && e->code == E_CLOSED && now_mono() < a->until && is_there(a)) {
		log_info(NULL, "vm %s: %s: %s; asked again", a->vm->name, a->call.path, e->text);
		(void)err_set(&a->why, E_UNAVAILABLE, "%s", e->text);
		later(a);
		return;
	}
	ask_end(a, status, body, len, e);
}

static void
ask_now(struct ask *a)
{
	struct guest_call call = a->call;
	struct err e = { 0 };
	int64_t left = a->until - now_mono();

	call.timeout_ms = left > 1 ? (uint64_t)left : 1;
	if (vm_guest_open(a->vm, &e) < 0)
		ask_end(a, 0, "", 0, &e);
	else
		guest_call(a->vm->guest, a, &call, on_asked, a);
}

static void
on_proven(void *arg, int status, const char *body, size_t len, const struct err *e)
{
	struct ask *a = arg;

	(void)body;
	(void)len;
	if (!is_there(a) || now_mono() >= a->until)
		ask_end(a, 0, "", 0, &a->why);
	else if (!e && status / 100 == 2)
		ask_now(a);
	else {
		TALLOC_FREE(a->vm->guest);
		later(a);
	}
}

/* What the guest still says to the session before may arrive in this one: a nonce tells them apart.
 */
static void
ask_again(void *arg)
{
	struct ask *a = arg;
	char nonce[33];
	struct guest_call call = {
		.method = "GET", .path = "/health", .nonce = nonce, .timeout_ms = PROOF_MS
	};
	struct err e = { 0 };

	TALLOC_FREE(a->again);
	if (!is_there(a) || now_mono() >= a->until) {
		ask_end(a, 0, "", 0, &a->why);
		return;
	}
	if (a->vm->guest && !guest_takes(a->vm->guest))
		TALLOC_FREE(a->vm->guest);
	random_hex(nonce, 16);
	if (vm_guest_open(a->vm, &e) < 0)
		ask_end(a, 0, "", 0, &e);
	else
		guest_call(a->vm->guest, a, &call, on_proven, a);
}

static const char *
copy(struct ask *a, const char *text)
{
	return text ? talloc_strdup(a, text) : NULL;
}

void
vm_ask(struct vm *vm, void *owner, const struct guest_call *what, guest_answer *answer, void *arg)
{
	struct ask *a = talloc_zero(owner, struct ask);

	*a = (struct ask){ .agent = vm->agent,
		.vm = vm,
		.call = *what,
		.answer = answer,
		.arg = arg,
		.until = now_mono() + (int64_t)what->timeout_ms };
	a->call.path = copy(a, what->path);
	a->call.token = copy(a, what->token);
	a->call.nonce = copy(a, what->nonce);
	a->call.body = talloc_memdup(a, what->len ? what->body : "", what->len ? what->len : 1);
	if (vm->guest && !guest_takes(vm->guest)) {
		(void)err_set(&a->why, E_UNAVAILABLE, "the guest agent is going away");
		later(a);
	} else
		ask_now(a);
}
