/*
 * agent.h - what the parts of the host agent share: one loop, one state directory, lists of things.
 */
#pragma once
#include "buf.h"
#include "cleanup.h"
#include "conf.h"
#include "err.h"
#include "loop.h"
#include "log.h"

#include <stdbool.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <uv.h>

struct capsule;
struct certs;
struct control;
struct flat;
struct image;
struct journal;
struct network;
struct posture;
struct priv;
struct scaling;
struct template;
struct vm;

enum accel { ACCEL_UNKNOWN, ACCEL_TCG, ACCEL_KVM };

struct agent {
	uv_loop_t *loop;
	const struct conf *conf;
	struct priv *priv;
	const struct posture *posture; /* what keeps capsules apart here */
	struct network *network;       /* NULL: capsules have no way out */
	struct scaling *scaling;       /* NULL: the control plane has said nothing */
	struct journal *journal;
	struct control *control; /* NULL: works alone */
	struct certs *certs;
	struct uids *uids;
	struct starts *starts;
	struct accel_probe *probe; /* while it runs */
	enum accel accel;
	unsigned long tsc_khz; /* the guest's under TCG */
	int cores;
	int state_fd;      /* the state directory */
	char instance[17]; /* this state directory's random name: part of -name of each VM */
	char boot_id[40];  /* of the machine's boot */
	char qemu_version[64];
	bool fresh; /* the state directory is new */
	bool stopping;
	bool journal_complete; /* nothing was lost when it was read */
	struct timer *upkeep;
	TAILQ_HEAD(vm_list, vm) vms;
	TAILQ_HEAD(capsule_list, capsule) capsules; /* gone ones too, for their epoch */
	TAILQ_HEAD(template_list, template) templates;
	TAILQ_HEAD(image_list, image) images; /* most recently used first */
	TAILQ_HEAD(flat_list, flat) flats;    /* capsule_flat.c */
};

/* "kvm", "tcg" or "unknown". */
const char *accel_name(enum accel);

/* A crash point of spec 02 §1.4: a development build ends here, as by kill -9, when HUTCH_CRASH_AT
 * is `name`. */
#ifdef DEV_BUILD
void crash_point(const char *name);
#else
#define crash_point(name) ((void)0)
#endif
