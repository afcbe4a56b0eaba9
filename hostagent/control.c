/* control.c - see control.h. */
#include "control.h"
#include "capsule.h"

int
control_start(struct agent *a, struct err *e)
{
	(void)a; (void)e;
	return 0;
}

void
control_changed(const struct capsule *c)
{
	(void)c;
}
