/* pool.h - a pool of processes on one listening socket. */
#pragma once
#include "err.h"

struct app;

/* Serves requests from the socket at descriptor 0 until SIGTERM, or until it has served its share.
 */
int worker_run(struct app *);

/*
 * The master: keeps n processes alive, each `argv` executed with the listening socket as descriptor
 * 0. HUP: new ones start, then the old ones end: no request fails. TERM: all end. Returns the exit
 * status.
 */
int master_run(int n, char **argv, char **check_argv);

/* A listening unix socket with mode 0660; a stale one is replaced, a live one is an error. */
int pool_listen(const char *path, struct err *);
