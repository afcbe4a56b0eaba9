/* metrics_in.h - what metrics.c and metrics_sample.c share; nobody else includes it. */
#pragma once
#include "capsule.h"
#include "metrics.h"

enum { TIERS = 3, IO = 4 };
enum io { IO_RX, IO_TX, IO_RD, IO_WR };

/* What happened in one step that begins at `at`. */
struct point {
	uint32_t at; /* unix seconds */
	float cpu;   /* percent of its vCPUs */
	uint32_t mem_kb, guest_kb, cache_kb, disk_kb;
	float io[IO]; /* bytes in this step */
};

struct ring {
	struct point *point; /* grows to the tier's slots, then goes round */
	size_t room, head, count;
	struct point sum; /* of the step that is not over */
	size_t summed;
	uint32_t queued; /* all up to this one were queued for the control plane */
};

struct metrics {
	struct capsule *capsule;
	struct ring ring[TIERS];
	bool own_cgroup;    /* where cpu and memory come from: its cgroup, else its process */
	pid_t pid;          /* of the last sample: another process counts from zero */
	uint64_t cpu_ns;    /* then */
	int64_t at_ms;      /* now_mono() of it */
	uint64_t total[IO]; /* counters as they were read last */
	float rate[IO]; /* bytes a second to hand out, read at once, spent over the next seconds */
	float left[IO]; /* what of it is left */
	uint32_t guest_kb;   /* 0: the guest did not say */
	uint32_t cache_kb;   /* its page cache, not within guest_kb; 0: the same */
	int processes;       /* -1: the same */
	int64_t guest_heard; /* now_mono() of its last answer; 0: never */
	bool guest_asked;
};

struct metrics *metrics_of(struct capsule *);
/* One second's point goes into all tiers. */
void metrics_add(struct metrics *, const struct point *);
/* metrics_sample.c: looks at one capsule; false: nothing to add yet. */
bool metrics_look(struct metrics *, struct point *ret);
/* What is asked for each ten seconds: QEMU's block counters, the guest. */
void metrics_ask(struct metrics *);
