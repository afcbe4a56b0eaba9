/* hash_slot.c - see hash_slot.h. */
#include "hash_slot.h"
#include "request.h"
#include "cleanup.h"

#include <fcntl.h>
#include <time.h>

enum { SLOTS = 256, WAIT_MS = 3000, STEP_MS = 5 };

static int slot_fd = -1;
static int slot_held = -1;

/* One byte of a file per slot, locked with open-file-description locks: gone with the process. */
static int
open_slots(struct request *r)
{
	auto_talloc char *path =
	    talloc_asprintf(NULL, "%s.hash-slots", r->app->conf->api_ops_socket);

	if (slot_fd < 0)
		slot_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return slot_fd < 0 ? err_sys(&r->work.err, "%s", path) : 0;
}

static bool
try_slot(int i)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = 1 };

	return fcntl(slot_fd, F_OFD_SETLK, &l) == 0;
}

int
hash_slot_take(struct request *r)
{
	int64_t n = r->app->conf->auth_hash_parallel;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int waited, i;

	if (open_slots(r) < 0)
		return -1;
	n = n ? n : cores > 1 ? cores / 2 : 1;
	for (waited = 0; waited < WAIT_MS; waited += STEP_MS) {
		for (i = 0; i < n && i < SLOTS; i++)
			if (try_slot(i)) {
				slot_held = i;
				return 0;
			}
		nanosleep(&(struct timespec){ .tv_nsec = STEP_MS * 1000000L }, NULL);
	}
	reply_header(r, "Retry-After", "3");
	return fail(r, E_UNAVAILABLE, "too many sign-ins at once");
}

void
hash_slot_give(void)
{
	struct flock l = {
		.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = slot_held, .l_len = 1
	};

	if (slot_held >= 0)
		(void)fcntl(slot_fd, F_OFD_SETLK, &l);
	slot_held = -1;
}
