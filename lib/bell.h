/* bell.h - what a unit of work remembers to ring after its commit: only for event.c and job.c. */
#pragma once
#include "id.h"
#include "work.h"
#include <stdbool.h>

struct bell {
	struct bell *next;
	const char *queue; /* NULL: the relay's bell */
	char id[ID_SIZE];
	bool urgent;
};

void bell_add(struct work *, const char *queue, const struct uuid *job, bool urgent);
