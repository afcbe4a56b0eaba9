/*
 * capsule.h - a capsule on this host: who it is, what it may do next, and the VM that runs it.
 */
#pragma once
#include "agent.h"
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
	EV_HIBERNATE,
	EV_SEALED,
	EV_BACK, /* what was begun did not work: where it came from */
	EV_STOP,
	EV_REMOVED,
};

enum { CAPSULE_ID = 40, ENVS_MAX = 128 };

struct capsule {
	TAILQ_ENTRY(capsule) link;
	struct agent *agent;
	char id[CAPSULE_ID];
	int64_t epoch;
	enum capsule_state state; /* changed by capsule_step() only */
	int64_t since;            /* unix ms of the last change */
	bool never_ran;           /* CAP_ERROR: the same epoch may be started again */
	bool warm;                /* start_mode */
	enum accel accel;
	int took_ms;
	const char *template, *build;
	int vcpus, memory_mb;
	uint64_t disk_size;
	struct vm *vm;    /* NULL: none */
	char vm_name[32]; /* of its folder, also when the process is gone */
	pid_t pid;        /* of the journal: for adoption */
	uint64_t start;
	uid_t uid;
	char why[160];                               /* CAP_ERROR: one sentence */
	char paused_by[16];                          /* who put it to sleep; "" when awake */
	char memory_artifact[65], disk_artifact[65]; /* CAP_HIBERNATED; "": none */
	int exit_status;                             /* of wait(); -1 unknown, or never exited */
	int64_t exited_at;                           /* 0: not */
	struct capsule_op *op;                       /* a create or destroy under way */
	struct capsule_ask *asks;                    /* who waits for it */
	struct idle *idle;
	struct metrics *metrics;
	int64_t logged[LOG_SOURCES]; /* logs.c: bytes before what the newer file holds */
};

/* What a PUT says. Nothing of it is kept once the capsule is up. */
struct capsule_spec {
	int64_t epoch;
	const char *template;
	int vcpus, memory_mb;
	int64_t disk_mb;
	bool cold;
	const char *hostname, *user, *workdir, *token, *team, *template_id;
	struct json_object *envs;
	struct idle_settings idle;
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

/*
 * Sleep (spec 02 §1.2). by: user, idle, host, drain …, kept as paused_by. epoch: at least the
 * capsule's. Each joins the same operation when it is under way already, and is a no-op when its
 * end is reached. What fails leaves the capsule as it was, and says so.
 */
void capsule_pause(struct agent *, const char *id, int64_t epoch, const char *by, void *mem,
    capsule_done *, void *arg);
void capsule_hibernate(struct agent *, const char *id, int64_t epoch, const char *by, void *mem,
    capsule_done *, void *arg);
/* epoch: the new one. From paused, in RAM or on disk. */
void
capsule_resume(struct agent *, const char *id, int64_t epoch, void *mem, capsule_done *, void *arg);

struct capsule *capsule_find(struct agent *, const char *id);
/* One that the journal knows; used by adopt.c. */
struct capsule *capsule_known(struct agent *, const char *id);
/* Appends its journal record: all that is known, under this word. */
void capsule_record(const struct capsule *, const char *what, struct buf *);
/* Why it is in CAP_ERROR, as the control plane calls it. */
const char *capsule_error_code(const struct capsule *);
/* Appends its exit record: {"at":…,"code":…|"signal":…}. */
void capsule_exit_json(const struct capsule *, struct buf *);
/* Its VM was adopted; or it turned out that there is none any more. */
void capsule_adopted(struct capsule *, struct vm *);
void capsule_lost(struct capsule *, bool never_ran);
/* A destroy that the dead agent began. */
void capsule_finish_stop(struct capsule *);

/* capsule_state.c */
int capsule_step(struct capsule *, enum capsule_event, struct err *);
const char *capsule_state_name(enum capsule_state);
void capsule_states_dot(void);
