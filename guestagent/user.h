/*
 * user.h - Linux users, read from /etc/passwd and /etc/group (a static program has no NSS).
 *
 * Work on a user's files is done with the user's file-system identity, so that the kernel decides.
 */
#pragma once
#include "call.h"
#include <sys/types.h>

struct user {
	const char *name, *home, *shell;
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t ngroups;
};

/* NULL: E_UNAUTHORIZED, "invalid username: '…'". A child of mem. */
struct user *user_find(void *mem, const char *name, struct err *);
/* Who a call acts for: the name when it is given, else its Authorization header's, else the
 * default. */
struct user *user_of(struct call *, const char *name);
/* The names for an entry's owner and group; the number when nobody has it. Valid until the next
 * call. */
const char *user_name(uid_t);
const char *user_group(gid_t);

/* An absolute path without "." and "..": "~" and relative paths start at the home, "" is the
   default workdir. NULL and the error for ~other and for paths longer than PATH_MAX. */
char *user_path(void *mem, const struct user *, const char *path, struct err *);

/* From here on files are opened and made as this user; back with user_leave(). */
int user_enter(const struct user *, struct err *);
void user_leave(void);
