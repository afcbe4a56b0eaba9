/*
 * capsule.h - a capsule on this host: who it is, what it may do next, and the VM that runs it.
 */
#pragma once
#include "agent.h"
#include "chain.h"
#include "idle.h"
#include "json.h"
#include "logs.h"

enum capsule_state {
	CAP_NEW,
	CAP_STARTING,
	CAP_RUNNING,
	CAP_PAUSING,
	CAP_PAUSED, /* with a process (residency ram), or with its image in the VM's folder (disk)
	             */
	CAP_RESUMING,
	CAP_HIBERNATING,
	CAP_HIBERNATED, /* sealed into artifacts */
	CAP_ERROR,
	CAP_STOPPING,
	CAP_GONE,
};
enum capsule_event {
	EV_START,
	EV_UP,
	EV_FAIL,
	EV_EXITED,
	EV_PAUSE,
	EV_PAUSED,
	EV_RESUME,
	EV_ROLLBACK,
	EV_HIBERNATE,
	EV_SEALED,
	EV_BACK, /* what was begun did not work: where it came from */
	EV_STOP,
	EV_REMOVED,
};

enum { CAPSULE_ID = 40, ENVS_MAX = 128, BOOTS = 3, DISK_MAX_MB = 262144 };

struct capsule_made;

struct capsule {
	TAILQ_ENTRY(capsule) link;
	struct agent *agent;
	char id[CAPSULE_ID];
	int64_t epoch;
	enum capsule_state state; /* changed by capsule_step() only */
	int64_t since;            /* unix ms of the last change */
	bool never_ran;           /* CAP_ERROR: the same epoch may be started again */
	bool warm, restored;      /* start_mode */
	bool persisted;           /* CAP_PAUSED: its image is in the VM's folder, complete */
	struct chain chain;       /* its disks */
	char parent[LAYER_NAME];  /* image artifact that its memory came from */
	enum accel accel;
	int took_ms;
	const char *template, *build;
	int vcpus, memory_mb;
	uint64_t disk_size; /* bytes that its disk is to have: vm->disk_size may be less yet */
	bool grows;         /* it was promised more than what its guest is known to have */
	int64_t grow_at;    /* not before: the last try failed */
	struct vm *vm;      /* NULL: none */
	char vm_name[32];   /* of its folder, also when the process is gone */
	pid_t pid;          /* of the journal: for adoption */
	uint64_t start;
	uid_t uid;
	char why[160];                               /* CAP_ERROR: one sentence */
	char paused_by[16];                          /* who put it to sleep; "" when awake */
	char memory_artifact[65], disk_artifact[65]; /* CAP_HIBERNATED; "": none */
	char memory_parent[65], disk_parent[65];     /* what these lie on; "": none */
	uint64_t sealed_bytes;                       /* of the files that its hibernation made */
	char image_sum[65];        /* persisted: sums_whole() of the image's state file */
	struct capsule_made *made; /* during an answer: what a snapshot made */
	struct capsule_made *last; /* the snapshot made last, and its key */
	char last_key[LAYER_NAME];
	int down_ms;               /* how long it stood still for it */
	struct capsule_spec *kept; /* its identity, for a reboot; of this agent's life */
	unsigned reboots;          /* that the guest asked for */
	int64_t boots[BOOTS];      /* when, the last ones */
	bool boot_loop;            /* CAP_ERROR: it did so too often */
	struct timer *sleep;       /* capsule_sleep.c */
	int64_t save_at;           /* not before: the last try failed */
	int exit_status;           /* of wait(); -1 unknown, or never exited */
	int64_t exited_at;         /* 0: not */
	struct capsule_op *op;     /* a create or destroy under way */
	struct capsule_ask *asks;  /* who waits for it */
	bool hung;                 /* QEMU was killed since it was silent */
	char *said,
	    *set; /* the journal's last record of it, and what a PATCH set since; NULL: none */
	struct idle *idle;
	struct metrics *metrics;
	int64_t logged[LOG_SOURCES]; /* logs.c: bytes before what the newer file holds */
};

/* What a PUT says. The journal never has it; the agent keeps the identity in RAM, for a reboot. */
struct capsule_spec {
	int64_t epoch;
	const char *template;
	int vcpus, memory_mb;
	int64_t disk_mb;
	const char *build; /* of the template; NULL: the newest one */
	bool cold;
	const char *hostname, *user, *workdir, *token, *team, *template_id;
	struct json_object *envs;
	struct json_object *network; /* net.h; NULL: {} */
	struct idle_settings idle;
	/* a start from an image or snapshot; disk NULL: from the template */
	const char *memory, *disk; /* artifacts; memory NULL: a cold boot of that disk */
	bool new_identity;         /* another capsule's memory: names, ids, epoch are new */
};

/* NULL: the capsule is as asked. Called from the loop, once; never when mem was freed before. */
typedef void capsule_done(void *arg, struct capsule *, const struct err *);

/* Starts it, or joins a start with this epoch. The spec's members belong to the start from then on:
   they must be below spec_mem, which moves to it when it takes one. mem owns the waiting. */
void capsule_start(struct agent *, const char *id, const struct capsule_spec *, void *spec_mem,
    void *mem, capsule_done *, void *arg);
/* Destroys it with all that belongs to it. epoch: at least the capsule's. */
void
capsule_stop(struct agent *, const char *id, int64_t epoch, void *mem, capsule_done *, void *arg);

/* The same, but what is on disk stays a day below quarantine/. */
void capsule_discard(
    struct agent *, const char *id, int64_t epoch, void *mem, capsule_done *, void *arg);
/* Removes what has been there for a day. */
void quarantine_sweep(struct agent *);

/*
 * Sleep (spec 02 §1.2). by: user, idle, host, drain …, kept as paused_by. epoch: at least the
 * capsule's. Each joins the same operation when it is under way already, and is a no-op when its
 * end is reached. What fails leaves the capsule as it was, and says so.
 */
void capsule_pause(struct agent *, const char *id, int64_t epoch, const char *by, void *mem,
    capsule_done *, void *arg);
void capsule_hibernate(struct agent *, const char *id, int64_t epoch, const char *by, void *mem,
    capsule_done *, void *arg);
/* memory: false is the disk alone. */
void capsule_hibernate_as(struct agent *, const char *id, int64_t epoch, const char *by,
    bool memory, void *mem, capsule_done *, void *arg);
/* The guest switched itself off; it booted anew. */
void capsule_powered_off(struct capsule *);
void capsule_rebooted(struct capsule *);
/* Now and then: paused ones whose image is saved give their memory back when the host is short of
   it, deep disks are flattened, quarantine is emptied. */
void capsule_upkeep(struct agent *);
/* epoch: the new one. From paused, in RAM or on disk. */
void
capsule_resume(struct agent *, const char *id, int64_t epoch, void *mem, capsule_done *, void *arg);
/* A cold boot of the disk that is in its folder, with the spec's identity and sizes, under its
   epoch: of one that failed, or of a paused one, whose memory is given up. */
void capsule_resume_cold(struct agent *, const char *id, const struct capsule_spec *,
    void *spec_mem, void *mem, capsule_done *, void *arg);

/* A snapshot, while it runs on: capsule->made has the ids during done(). The same key (or none)
   again gets the same one. */
void capsule_snapshot(struct agent *, const char *id, int64_t epoch, const char *key, bool memory,
    void *mem, capsule_done *, void *arg);
/* In place: the spec (with disk, perhaps memory) under its epoch, the new one. What fails before
   the image is loaded leaves it as it was. */
void capsule_rollback(struct agent *, const char *id, const struct capsule_spec *, void *spec_mem,
    void *mem, capsule_done *, void *arg);
/* warm, cold or restored. */
const char *capsule_start_mode(const struct capsule *);
/* capsule_grow.c: its disk is to have at least so many bytes. true: it grows now, done() when its
   guest has them; false: when it runs, or when what it does now is over. The caller writes it down.
 */
bool capsule_grow(struct capsule *, uint64_t bytes, void *mem, capsule_done *, void *arg);

struct capsule *capsule_find(struct agent *, const char *id);
/* One that the journal knows; used by adopt.c. */
struct capsule *capsule_known(struct agent *, const char *id);
/* Appends its journal record: all that is known, under this word. */
void capsule_record(const struct capsule *, const char *what, struct buf *);
/* The same, which is what the journal is to have of it from now on: it is rewritten from that,
   never from the state in memory, which follows what is on disk. */
const char *capsule_say(struct capsule *, const char *what);
/* The record of what a PATCH sets: it names no state, for the PATCH may come at any moment, also
   between a record that is on disk and the state that follows it. */
const char *capsule_say_set(struct capsule *);
/* Why it is in CAP_ERROR, as the control plane calls it. */
const char *capsule_error_code(const struct capsule *);
/* Appends its exit record: {"at":…,"code":…|"signal":…}. */
void capsule_exit_json(const struct capsule *, struct buf *);
/* Its VM was adopted; or it turned out that there is none any more. */
void capsule_adopted(struct capsule *, struct vm *);
void capsule_lost(struct capsule *, bool never_ran);
/* It slept, or was on its way, and has no process: its image is on disk, or it is lost. */
void capsule_slept(struct capsule *);
/* A destroy that the dead agent began. */
void capsule_finish_stop(struct capsule *);

/* capsule_state.c */
int capsule_step(struct capsule *, enum capsule_event, struct err *);
const char *capsule_state_name(enum capsule_state);
void capsule_states_dot(void);
