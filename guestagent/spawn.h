/* spawn.h - a child process: fork, identity, directory, exec. */
#pragma once
#include "err.h"
#include "user.h"

struct spawn {
	const char *cmd; /* looked for in envp's PATH when it has no slash */
	char *const *argv, *const *envp;
	const char *cwd;
	bool cwd_is_default; /* the user may be barred from it: then it is the home */
	const struct user *user;
	int in, out, err; /* the child's descriptors 0, 1, 2 */
	bool terminal;    /* in is a terminal's slave: make it the controlling one */
	int report;       /* a struct spawn_report is written here if there is no exec */
};

enum spawn_step { SPAWN_IDENTITY, SPAWN_CWD, SPAWN_EXEC };

struct spawn_report {
	enum spawn_step step;
	int error; /* errno */
};

/* The child's pid, which is also its session and process group. */
pid_t spawn(const struct spawn *, struct err *);
/* In a child: signals, umask, limits and OOM score as a program expects them, not as the agent has
 * them. */
void spawn_child_defaults(void);
/* What a failed start means to the caller. */
void spawn_explain(const struct spawn_report *, const char *cmd, const char *cwd, struct err *);
