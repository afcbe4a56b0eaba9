/* remove.c - see remove.h. */
#include "remove.h"

#include "cleanup.h"
#include "entry.h"
#include "spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

struct removal {
	struct watch watch; /* the child writes its errno here */
	struct call *call;  /* NULL: gone */
	call_fn *done;
	const char *path;
};

/* Removes the entry, first what is in it. 0, or -1 with errno of what was first refused. */
static int
remove_at(int dir, const char *name)
{
	int fd = -1, rc = 0;
	DIR *d = NULL;
	struct dirent *e = NULL;

	if (unlinkat(dir, name, 0) == 0)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -1;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	d = fd >= 0 ? fdopendir(fd) : NULL;
	if (!d) {
		if (fd >= 0)
			(void)close(fd);
		return -1;
	}
	while (rc == 0 && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			rc = remove_at(fd, e->d_name);
	(void)closedir(d);
	return rc < 0 ? -1 : unlinkat(dir, name, AT_REMOVEDIR);
}

static void __attribute__((noreturn)) child(int fd, const char *path)
{
	int error = 0;

	/* Of what the agent has open, an end of a process's pipe must not live on here. */
	fd = dup2(fd, 3);
	(void)close_range(4, ~0u, 0);
	/* The identity stays the user's, as user_enter() made it before the fork. */
	if (remove_at(AT_FDCWD, path) < 0)
		error = errno;
	(void)!write(fd, &error, sizeof error);
	_exit(0);
}

static void
ready(void *arg, uint32_t events)
{
	struct removal *r = arg;
	struct call *c = r->call;
	int error = EIO;

	(void)events;
	if (read(r->watch.fd, &error, sizeof error) < (ssize_t)sizeof error)
		error = EIO; /* the child was killed */
	watch_stop(&r->watch);
	(void)close(r->watch.fd);
	if (c) {
		c->on_gone = NULL;
		errno = error;
		if (error)
			(void)entry_error(&c->err, r->path);
		r->done(c);
	}
	talloc_free(r);
}

static void
gone(struct call *c)
{
	struct removal *r = c->state;

	r->call = NULL;
}

int
remove_tree(struct call *c, const struct user *u, const char *path, call_fn *done)
{
	struct removal *r = NULL;
	int fd[2];
	pid_t pid = -1;

	if (pipe2(fd, O_CLOEXEC) < 0)
		return err_sys(&c->err, "pipe");
	if (user_enter(u, &c->err) == 0) {
		pid = fork();
		if (pid == 0)
			child(fd[1], path);
		user_leave();
	}
	(void)close(fd[1]);
	if (pid < 0) {
		(void)close(fd[0]);
		return err_sys(&c->err, "fork");
	}
	r = talloc_zero(NULL, struct removal);
	if (!r)
		abort();
	*r = (struct removal){
		.watch = { .fd = fd[0], .fn = ready, .arg = r }, .call = c, .done = done
	};
	r->path = talloc_strdup(r, path);
	c->state = r;
	c->on_gone = gone;
	watch_set(&r->watch, EPOLLIN);
	return 0;
}
