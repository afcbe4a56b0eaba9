/*
 * qemu.c - see qemu.h. The reasons for each option: docs/design/vm-engine.md of the measurements.
 *
 * The device list and its order are part of the memory images: changing it changes MACHINE.
 */
#include "qemu.h"
#include "posture.h"
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <x86intrin.h>

/* Bump when the devices, their order or the machine's options change. */
#define MACHINE "microvm-1"

/* Cold boots are 30 % faster so; a capsule has one tenant, the wall is the VM. */
#define KERNEL_TRIM                                                                              \
	"mitigations=off nokaslr lsm=none apparmor=0 audit=0 8250.nr_uarts=0 cryptomgr.notests " \
	"rcupdate.rcu_expedited=1 init_on_alloc=0"

static void __attribute__((format(printf, 2, 3))) arg(struct buf *b, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	buf_add(b, text, strlen(text) + 1);
}

/* The descriptor's number in QEMU. */
static int
give(struct priv_spawn *s, int fd)
{
	s->fd[s->fds] = fd;
	return 3 + s->fds++;
}

/* A file as /dev/fdset/N: QEMU opens by name, gets the descriptor. */
static int
give_file(struct priv_spawn *s, struct buf *b, int fd)
{
	int n = give(s, fd);

	arg(b, "-add-fd");
	arg(b, "set=%d,fd=%d", n, n);
	return n;
}

static void
machine(const struct agent *a, const struct qemu *q, struct priv_spawn *s, struct buf *b)
{
	arg(b, "%s", a->conf->agent_qemu);
	arg(b, "-name");
	arg(b, "hutch-%s-%s", a->instance, q->name);
	arg(b, "-nodefaults");
	arg(b, "-no-user-config");
	arg(b, "-display");
	arg(b, "none");
	arg(b, "-no-reboot");
	arg(b, "-sandbox");
	arg(b, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	arg(b, "-M");
	arg(b,
	    "microvm,x-option-roms=off,rtc=on,isa-serial=off,pic=off,pit=off,memory-backend=mem");
	arg(b, "-cpu");
	arg(b, q->accel == ACCEL_KVM ? "host" : "max");
	arg(b, "-accel");
	arg(b, q->accel == ACCEL_KVM ? "kvm" : "tcg,thread=multi,tb-size=64");
	arg(b, "-m");
	arg(b, "%d", q->memory_mb);
	arg(b, "-smp");
	arg(b, "%d", q->vcpus);
	/* modern virtio: the legacy variant has devices that do not probe */
	arg(b, "-global");
	arg(b, "virtio-mmio.force-legacy=false");
	arg(b, "-object");
	if (q->memory >= 0)
		arg(b, "memory-backend-file,id=mem,size=%dM,mem-path=/proc/self/fd/%d,share=off",
		    q->memory_mb, give(s, q->memory));
	else
		arg(b, "memory-backend-ram,id=mem,size=%dM", q->memory_mb);
}

static void
kernel(const struct agent *a, const struct qemu *q, struct priv_spawn *s, struct buf *b)
{
	arg(b, "-kernel");
	arg(b, "/proc/self/fd/%d", give(s, q->t->vmlinux));
	arg(b, "-initrd");
	arg(b, "/proc/self/fd/%d", give(s, q->t->initramfs));
	arg(b, "-append");
	/* under TCG the kernel cannot measure the TSC on this machine and would wait for ever */
	if (q->accel != ACCEL_KVM && a->tsc_khz)
		arg(b,
		    "reboot=t panic=-1 quiet console=hvc0 tsc_early_khz=%lu "
		    "tsc=reliable " KERNEL_TRIM " groot=/dev/vdb glower=/dev/vda",
		    a->tsc_khz);
	else
		arg(b,
		    "reboot=t panic=-1 quiet console=hvc0 " KERNEL_TRIM
		    " groot=/dev/vdb glower=/dev/vda");
}

/* One below the other, each a node of its own: nothing in an image's header makes QEMU open a file.
   Without QEMU's locks: that a file has one writer is the agent's promise, and a disk that becomes
   a layer is opened by others at once. */
static void
disks(const struct qemu *q, struct priv_spawn *s, struct buf *b)
{
	size_t i;

	int root = give_file(s, b, q->t->rootfs);

	arg(b, "-blockdev");
	arg(b, "driver=raw,node-name=d0,read-only=on,file.driver=file,file.filename=/dev/fdset/%d",
	    root);
	arg(b, "-device");
	arg(b, "virtio-blk-device,drive=d0,id=b0");
	for (i = 0; i <= q->layers; i++) {
		int fd = give_file(s, b, i ? q->layer[i - 1] : q->t->upper);
		char below[40] = "";

		if (i)
			snprintf(below, sizeof below, ",backing=l%zu", i - 1);
		arg(b, "-blockdev");
		arg(b,
		    "driver=qcow2,node-name=l%zu,read-only=on,file.driver=file,file.locking=off,"
		    "file.filename=/dev/fdset/%d%s",
		    i, fd, below);
	}
	int disk = give_file(s, b, q->disk);

	arg(b, "-blockdev");
	arg(b,
	    "driver=qcow2,node-name=%s,discard=unmap,file.driver=file,file.locking=off,"
	    "file.filename=/dev/fdset/"
	    "%d,backing=l%zu",
	    q->node, disk, q->layers);
	arg(b, "-device");
	arg(b, "virtio-blk-device,drive=%s,id=b1", q->node);
}

static void
channels(const struct agent *a, const struct qemu *q, struct priv_spawn *s, struct buf *b)
{
	arg(b, "-chardev");
	arg(b, "socket,id=qmp,fd=%d,server=on,wait=off", give(s, q->qmp));
	arg(b, "-mon");
	arg(b, "chardev=qmp,mode=control");
	arg(b, "-chardev");
	arg(b, "socket,id=guest,fd=%d,server=on,wait=off", give(s, q->guest));
	/* what the guest prints goes to who is connected, else nowhere: no guest fills a disk */
	arg(b, "-chardev");
	arg(b, "socket,id=serial,fd=%d,server=on,wait=off", give(s, q->serial));
	arg(b, "-device");
	arg(b, "virtio-serial-device");
	arg(b, "-device");
	arg(b, "virtconsole,chardev=serial");
	arg(b, "-device");
	arg(b, "virtserialport,chardev=guest,name=hutch.0");
	arg(b, "-device");
	arg(b, "virtio-rng-device");
	arg(b, "-netdev");
	if (a->posture->cage.tap) {
		/* the launcher puts the tap device behind our descriptors: say it last */
		s->tap = true;
		arg(b, "tap,id=n0,fd=%d", 3 + s->fds);
	} else
		/* restrict: neither the internet nor, through 10.0.2.2, this machine's loopback */
		arg(b, "user,id=n0,restrict=on");
	arg(b, "-device");
	arg(b, "virtio-net-device,netdev=n0,mac=" QEMU_MAC);
}

struct cage_size
qemu_size(int vcpus, int memory_mb, enum accel accel)
{
	return (struct cage_size){ .vcpus = (uint32_t)vcpus,
		.memory_mb = (uint32_t)memory_mb,
		.kvm = accel == ACCEL_KVM };
}

void
qemu_command(const struct agent *a, const struct qemu *q, void *mem, struct priv_spawn *ret)
{
	struct buf b = BUF(mem);

	*ret = (struct priv_spawn){
		.uid = q->uid, .log = q->log, .size = qemu_size(q->vcpus, q->memory_mb, q->accel)
	};
	machine(a, q, ret, &b);
	if (!q->incoming)
		kernel(a, q, ret, &b);
	disks(q, ret, &b);
	channels(a, q, ret, &b);
	if (q->incoming) {
		arg(&b, "-incoming");
		arg(&b, "defer");
	}
	ret->argv = b.data;
	ret->argv_len = b.len;
}

const char *
qemu_machine(const struct agent *a, void *mem, int vcpus, int memory_mb)
{
	return talloc_asprintf(mem, MACHINE " %s cpus=%d memory=%d qemu=%s", accel_name(a->accel),
	    vcpus, memory_mb, a->qemu_version);
}

const char *
qemu_model(void)
{
	return MACHINE;
}

int
qemu_version(const char *program, char *ret, size_t len, struct err *e)
{
	char *const argv[] = { (char *)program, (char *)"--version", NULL },
		    *const env[] = { NULL };
	char text[256] = "", *p;
	posix_spawn_file_actions_t actions;
	int out[2], rc, status;
	ssize_t n;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0)
		return err_sys(e, "pipe");
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	rc = posix_spawn(&pid, program, &actions, NULL, argv, env);
	(void)posix_spawn_file_actions_destroy(&actions);
	close(out[1]);
	n = rc == 0 ? read(out[0], text, sizeof text - 1) : 0;
	close(out[0]);
	if (rc != 0) {
		errno = rc;
		return err_sys(e, "%s", program);
	}
	(void)waitpid(pid, &status, 0);
	text[n > 0 ? n : 0] = '\0';
	p = strstr(text, "version ");
	if (!p)
		return err_set(e, E_CONFIG, "%s does not tell its version", program);
	p += strlen("version ");
	snprintf(ret, len, "%.*s", (int)strcspn(p, "\n"), p);
	return 0;
}

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

unsigned long
tsc_khz(void)
{
	double from = seconds(), to;
	uint64_t first = __rdtsc();
	struct timespec nap = { .tv_nsec = 50000000 };

	nanosleep(&nap, NULL);
	to = seconds();
	return (unsigned long)((__rdtsc() - first) / (to - from) / 1000 + 0.5);
}
