/*
 * process_call.h - how processes are named and started in the guest's protocol: of exec, its
 * streams, terminals and …/processes.
 */
#pragma once
#include "buf.h"
#include "err.h"
#include "field.h"

#include <stdbool.h>
#include <stdint.h>

/* {sel}: pid, tag, pid:N, tag:T. A number is a pid. */
struct process_selector {
	int64_t pid; /* 0: by tag */
	const char *tag;
};
int process_selector_read(const char *text, struct process_selector *, struct err *);
/* Begins the object: {"process":{"pid":7} */
void process_selector_put(struct buf *, const struct process_selector *);

/* SIGKILL, KILL …: SIGNAL_SIGKILL; NULL: none that can be sent. */
const char *process_signal_name(void *mem, const char *name);

/* 1 to 64 letters, digits, dots, underscores, hyphens. -1 with an error; NULL is good. */
int process_tag_check(const char *tag, struct err *);
/* "proc-1a2b3c4d" */
const char *process_tag_new(void *mem, const char *word);
/* The name of a Linux user, as the guest takes it. NULL is good. */
int process_user_check(const char *user, struct err *);

struct process_start {
	const char *cmd, *cwd, *tag;
	const char *const *args;
	const struct pair *envs;
	bool input;         /* standard input is a pipe */
	int64_t cols, rows; /* of a terminal; 0: none */
};
/* The message of Start, with the additive fields on. */
void process_start_put(struct buf *, const struct process_start *);
