/*
 * landlock.h - a process that keeps reading and running what its libraries need, and the files it
 * was given, and can open nothing else for ever. By system calls: no library is needed.
 */
#pragma once
#include <stdbool.h>

/* 0: this kernel has none. */
int landlock_abi(void);
/*
 * Confines the calling process, which must have no_new_privs. read: folders to read and run from,
 * ended by NULL; devices: files to read and write; fds: files that it may open once more through
 * /proc/self/fd, each the way it is open already; network: TCP connections are allowed. -1: errno.
 */
int landlock_enter(int abi, bool network, const char *const *read, const char *const *devices,
    const int *fd, int fds);
