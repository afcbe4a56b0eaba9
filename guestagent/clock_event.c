/* clock_event.c - see clock_event.h. */
#include "clock_event.h"
#include "cleanup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

/*
 * QEMU's and KVM's APIC count nanoseconds; Linux divides by 16 and sets at most 31 bits: so many
 * nanoseconds fit, as max_delta_ns, into a timer that was measured right.
 */
static const double RIGHT_NS = 2147483647.0 * 16;
enum { KEPT = 32768 };
static const double SLOWEST = 0.5, FASTEST = 1.05;

static int
device_check(const char *device, const char *end, struct err *e)
{
	const char *ns = strstr(device, "max_delta_ns:");
	double speed = 0;

	if (strncmp(device, "<NULL>", 6) == 0)
		return err_set(e, E_AGENT, "a processor has no timer");
	if (strncmp(device, "lapic\n", 6) != 0 || !ns || ns > end)
		return 0; /* one whose speed is known, not measured */
	speed = RIGHT_NS / strtod(ns + strlen("max_delta_ns:"), NULL);
	if (speed >= SLOWEST && speed <= FASTEST)
		return 0;
	return err_set(e, E_AGENT, "the timer was measured at %.2f of its speed", speed);
}

int
clock_event_check(const char *list, struct err *e)
{
	static const char of_cpu[] = "Per CPU device:", name[] = "Clock Event Device: ";
	const char *cpu = strstr(list, of_cpu);

	while (cpu) {
		const char *next = strstr(cpu + 1, of_cpu);
		const char *end = next ? next : cpu + strlen(cpu);
		const char *device = strstr(cpu, name);

		if (device && device < end && device_check(device + strlen(name), end, e) < 0)
			return -1;
		cpu = next;
	}
	return 0;
}

int
clock_event_right(struct err *e)
{
	auto_talloc char *text = talloc_size(NULL, KEPT * 2);
	auto_fd fd = open("/proc/timer_list", O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = 0;

	if (!text)
		return 0;
	/* the devices stand behind the timers of all processors: the end is kept */
	while (fd >= 0 && (n = read(fd, text + len, KEPT * 2 - 1 - len)) > 0) {
		len += (size_t)n;
		if (len > KEPT) {
			memmove(text, text + len - KEPT, KEPT);
			len = KEPT;
		}
	}
	text[len] = '\0';
	return clock_event_check(text, e);
}
