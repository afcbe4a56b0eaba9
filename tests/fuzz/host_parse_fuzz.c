/*
 * host_parse_fuzz.c - what the host agent reads from those it does not trust: QEMU's control socket
 * (QEMU is a hostile guest's, once it broke out), manifests of other hosts, numbers of guests.
 *
 * Every command is answered once, the end is told once, nothing comes behind it.
 */
#include "fuzz.h"

#include "cleanup.h"
#include "hostagent/agent.h"
#include "hostagent/artifact.h"
#include "hostagent/loop.h"
#include "hostagent/qmp.h"
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/socket.h>

static uint64_t sum;
static struct fuzz *wire;
static bool wire_whole;

static ssize_t
wire_send(const struct msghdr *m)
{
	return (ssize_t)m->msg_iov->iov_len;
}

#define recv(fd, p, n, flags) fuzz_recv(wire, wire_whole, p, n)
#define sendmsg(fd, m, flags) wire_send(m)
#define fcntl(...)            (-1)
#define close(fd)             (void)(fd)
#include "hostagent/qmp.c"
#undef close
#undef fcntl
#include "hostagent/metrics_sample.c"

/* ---- the loop: one descriptor, one timer */

struct timer {
	void (*fn)(void *);
	void *arg;
};

struct watch {
	int events;
};

static struct timer *timer;
static struct watch *watch;

static int
timer_free(struct timer *t)
{
	(void)t;
	timer = NULL;
	return 0;
}

static int
watch_free(struct watch *w)
{
	(void)w;
	watch = NULL;
	return 0;
}

struct timer *
timer_new(void *mem, uv_loop_t *loop, uint64_t ms, uint64_t again, void (*fn)(void *), void *arg)
{
	(void)loop;
	(void)ms;
	(void)again;
	timer = talloc(mem, struct timer);
	*timer = (struct timer){ fn, arg };
	talloc_set_destructor(timer, timer_free);
	return timer;
}

struct watch *
watch_new(void *mem, uv_loop_t *loop, int fd, int events, void (*fn)(void *, int), void *arg)
{
	(void)loop;
	(void)fd;
	(void)fn;
	(void)arg;
	watch = talloc(mem, struct watch);
	watch->events = events;
	talloc_set_destructor(watch, watch_free);
	return watch;
}

void
watch_events(struct watch *w, int events)
{
	w->events = events;
}

/* ---- QEMU's control socket */

struct owner {
	struct qmp *qmp; /* NULL: freed */
	uint8_t habits;  /* what its callbacks do */
	unsigned asked, answered, gone;
};

static void replied(void *, struct json_object *, const struct err *);

static void
ask(struct owner *o, const char *what)
{
	if (!o->qmp || o->asked > 20)
		return;
	o->asked++;
	qmp_call(o->qmp, what, "{\"a\":1}", -1, replied, o);
}

static void
leave(struct owner *o)
{
	TALLOC_FREE(o->qmp);
}

static void
replied(void *arg, struct json_object *ret, const struct err *e)
{
	struct owner *o = arg;
	const char *text = ret ? json_object_to_json_string(ret) : "";

	fuzz_mark(&sum, e ? '!' : '.');
	fuzz_sum(&sum, text, strlen(text));
	if (++o->answered > o->asked || (e && (e->code == E_OK || !*e->text)))
		abort();
	if (o->habits & 1)
		ask(o, "again");
	if (o->habits & 2 && o->answered == 2)
		leave(o);
}

static void
happened(void *arg, const char *name, struct json_object *data)
{
	struct owner *o = arg;

	(void)json_str(data, "device", "");
	fuzz_mark(&sum, 'e');
	fuzz_sum(&sum, name, strlen(name));
	if (o->gone)
		abort();
	if (o->habits & 4)
		leave(o);
	else if (o->habits & 8)
		ask(o, "more");
}

static void
ended(void *arg, const struct err *e)
{
	struct owner *o = arg;

	fuzz_mark(&sum, 'g');
	if (o->gone++ || e->code == E_OK || !*e->text)
		abort();
	if (o->habits & 16)
		leave(o);
	else
		ask(o, "late");
}

static void
control(void *mem, struct fuzz f, bool whole)
{
	static const struct qmp_events events = { happened, ended };
	struct owner o = { .habits = fuzz_byte(&f) };

	wire = &f;
	wire_whole = whole;
	o.qmp = qmp_open(mem, NULL, -1, &events, &o);
	ask(&o, "first");
	ask(&o, "second");
	while (o.qmp && watch)
		on_ready(o.qmp, UV_READABLE);
	while (o.qmp && timer)
		timer->fn(timer->arg);
	if (o.qmp && (!o.gone || o.answered != o.asked))
		abort();
	leave(&o);
}

/* ---- manifests */

static void
id_of(const uint8_t *p, size_t n, char ret[ARTIFACT_ID])
{
	unsigned char hash[EVP_MAX_MD_SIZE];

	(void)EVP_Digest(p, n, hash, NULL, EVP_sha256(), NULL);
	for (size_t i = 0; i < (ARTIFACT_ID - 1) / 2; i++)
		snprintf(ret + 2 * i, 3, "%02x", hash[i]);
}

static bool
is_word(const char *s)
{
	return *s && *s != '.' && !strchr(s, '/');
}

static void
manifest(void *mem, struct fuzz f, bool whole)
{
	char id[ARTIFACT_ID];
	struct err e = { 0 };
	struct artifact *a;

	(void)whole;
	id_of(f.p, f.n, id);
	a = artifact_parse(mem, id, f.n ? (const char *)f.p : "", f.n, &e);
	fuzz_mark(&sum, a ? '+' : '-');
	if (!a && (e.code != E_TAMPERED || !*e.text))
		abort();
	if (!a)
		return;
	if (a->files > ARTIFACT_FILES || (*a->template && !is_word(a->template)) ||
	    (a->parent && !artifact_id_ok(a->parent)))
		abort();
	for (size_t i = 0; i < a->files; i++) {
		const struct artifact_file *file = &a->file[i];

		if (!is_word(file->name) || artifact_file(a, file->name)->size > INT64_MAX)
			abort();
		for (size_t k = 0; k < file->chunks; k++)
			if (file->sum[k][0] && !artifact_id_ok(file->sum[k]))
				abort();
		(void)artifact_chunk_is(file, 0, f.p, f.n);
		(void)artifact_chunk_is(file, file->chunks, f.p, f.n);
	}
}

/* ---- what a guest says of itself, and QEMU of its disks */

int
vm_guest_open(struct vm *vm, struct err *e)
{
	(void)vm;
	return err_set(e, E_CLOSED, "there is none");
}

void
guest_call(
    struct guest *g, void *owner, const struct guest_call *call, guest_answer *answer, void *arg)
{
	(void)g;
	(void)owner;
	(void)call;
	(void)answer;
	(void)arg;
	abort();
}

int64_t
now_mono(void)
{
	return 1;
}

int64_t
now_real(void)
{
	return 1;
}

const char *
chain_file(unsigned n, char ret[LAYER_NAME])
{
	(void)n;
	return ret;
}

/* Two answers, one behind the other: the sums can be written as whole numbers. */
static void
numbers(void *mem, struct fuzz f, bool whole)
{
	struct capsule *c = talloc_zero(mem, struct capsule);
	struct metrics m = { .capsule = c };
	const uint8_t *p = NULL;
	struct err e = { 0 };

	(void)whole;
	c->metrics = &m;
	for (int i = 0; i < 2; i++) {
		size_t n = fuzz_piece(&f, f.n, &p);
		struct buf b = BUF(mem);

		buf_need(&b, n);
		buf_add(&b, p, n);
		on_guest(&m, 200, b.data, n, NULL);
		on_blocks(c, json_parse(mem, b.data, n, NULL, &e), NULL);
		for (int k = 0; k < IO; k++)
			if (!(m.left[k] >= 0 && m.left[k] < 1e17F && m.rate[k] <= m.left[k]))
				abort();
	}
	fuzz_sum(&sum, &m.processes, sizeof m.processes);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static fuzz_reader *const readers[] = { control, manifest, numbers };

	return fuzz_read(readers, nitems(readers), &sum, data, size);
}
