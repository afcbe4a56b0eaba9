/*
 * clock_event.h - did the kernel measure its timer right?
 *
 * Without a deadline timer (emulation) Linux counts the local APIC's ticks through a tenth of a
 * second, once, at boot (calibrate_APIC_clock(), arch/x86/kernel/apic/apic.c). A host that is busy
 * just then makes it believe in a timer of another speed, or in none ("APIC frequency too slow,
 * disabling apic timer"): sleeps last too long, or for ever, in this machine and in every clone of
 * it.
 */
#pragma once
#include "err.h"

/*
 * list: the text of /proc/timer_list. 0: every processor has a timer, and one that was measured is
 * at most 5 % too fast (sleeps are that much too long) and at least half as fast as it should be
 * (it rings early, and is set again). -1: what is wrong.
 */
int clock_event_check(const char *list, struct err *);
/* The same for the kernel that runs; 0 as well when it does not tell. */
int clock_event_right(struct err *);
