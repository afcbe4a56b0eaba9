/* idle.h - has a connection ended while nobody used it? */
#pragma once
#include <poll.h>
#include <stdbool.h>

/* True when something can be read where no answer is due: the server's farewell, or the end. Asked
   before use, it spares the caller an error for what is long over (a restart of the server). */
static inline bool
idle_ended(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}
