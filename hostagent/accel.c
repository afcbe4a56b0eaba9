/* accel.c - see accel.h. */
#include "accel.h"
#include "json.h"
#include "template.h"
#include "vm.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

enum { PROBE_MS = 3000, PROBE_MEMORY_MB = 256, CACHE_MAX = 4096 };

struct accel_probe {
	struct agent *agent;
	struct vm *vm;
	void (*ready)(struct agent *);
};

static const char *const names[] = { "unknown", "tcg", "kvm" };

const char *
accel_name(enum accel a)
{
	return names[a];
}

/* What the answer depends on. */
static const char *
key(struct agent *a, void *mem)
{
	struct utsname u;

	(void)uname(&u);
	return talloc_asprintf(mem, "%s %s %s", u.release, a->qemu_version, a->boot_id);
}

static enum accel
remembered(struct agent *a)
{
	auto_talloc char *mem = talloc_new(NULL);
	char *text = talloc_size(mem, CACHE_MAX);
	auto_fd fd = openat(a->state_fd, "accel.json", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, CACHE_MAX);
	struct err e = { 0 };
	struct json_object *j = n < 0 ? NULL : json_parse(mem, text, n, NULL, &e);

	if (!j || strcmp(json_str(j, "key", ""), key(a, mem)) != 0)
		return ACCEL_UNKNOWN;
	return strcmp(json_str(j, "accel", ""), "kvm") == 0 ? ACCEL_KVM : ACCEL_TCG;
}

static void
remember(struct agent *a)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	auto_fd fd =
	    openat(a->state_fd, "accel.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	buf_str(&b, "{\"key\":");
	buf_json(&b, key(a, mem));
	buf_fmt(&b, ",\"accel\":\"%s\"}\n", accel_name(a->accel));
	if (fd < 0 || write(fd, b.data, b.len) != (ssize_t)b.len ||
	    renameat(a->state_fd, "accel.new", a->state_fd, "accel.json") < 0)
		log_warn(NULL, "accel.json cannot be written");
}

static void
decide(struct agent *a, enum accel accel, const char *why)
{
	a->accel = accel;
	log_info(NULL, "accelerator: %s (%s)", accel_name(accel), why);
}

static void
probed(void *user, const struct err *e)
{
	struct accel_probe *p = user;
	struct agent *a = p->agent;
	char why[200];

	if (e)
		snprintf(why, sizeof why, "a probe guest does not boot under KVM: %.150s", e->text);
	decide(a, e ? ACCEL_TCG : ACCEL_KVM, e ? why : "a probe guest booted");
	remember(a);
	vm_destroy(p->vm, NULL, NULL);
	p->ready(a);
	talloc_free(p);
}

void
accel_choose(struct agent *a, void (*ready)(struct agent *))
{
	const char *want = a->conf->agent_accel;
	struct err e = { 0 };
	struct vm_spec spec = {
		.vcpus = 1, .memory_mb = PROBE_MEMORY_MB, .accel = ACCEL_KVM, .boot_ms = PROBE_MS
	};
	struct accel_probe *p;
	enum accel known = remembered(a);

	if (strcmp(want, "auto") != 0)
		decide(a, strcmp(want, "kvm") == 0 ? ACCEL_KVM : ACCEL_TCG, "configured");
	else if (known != ACCEL_UNKNOWN)
		decide(a, known, "known since this boot");
	else if (access("/dev/kvm", F_OK) < 0)
		decide(a, ACCEL_TCG, "no /dev/kvm");
	else if (!(spec.t = template_find(a, "minimal", &e)))
		decide(a, ACCEL_TCG,
		    "no template minimal to try KVM with; asked again at the next start");
	if (a->accel != ACCEL_UNKNOWN) {
		ready(a);
		return;
	}
	p = talloc_zero(a, struct accel_probe);
	p->agent = a;
	p->ready = ready;
	p->vm = vm_start(a, &spec, probed, p);
}
