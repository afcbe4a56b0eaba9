/*
 * posture.h - what this machine gives to keep capsules apart, point by point, with the reason and
 * the next step. hutchctl hostcheck prints it; the agent takes its cage and conditions from it.
 */
#pragma once
#include "conf.h"
#include "confine.h"
#include "netns.h"

enum posture_level { POSTURE_OK, POSTURE_WARN, POSTURE_FAIL };

enum { POSTURE_POINTS = 24, POSTURE_TEXT = 240 };

struct posture {
	struct cage cage;
	struct net_plan plan; /* when the cage has taps */
	struct {
		enum posture_level level;
		char why[POSTURE_TEXT], next[POSTURE_TEXT];
	} point[POSTURE_POINTS]; /* of posture_points[] */
};

extern const struct posture_point {
	const char *name;      /* "kvm" */
	const char *condition; /* of the host when it is not ok: "accel_tcg"; NULL: none */
	void (*look)(const struct conf *, struct posture *, int i);
} posture_points[];

/*
 * Looks at everything; takes some 100 ms, makes and removes a network namespace. make: as the
 * agent, for good: control groups and the host's packet rules are made. group: of the control
 * groups, "hutch-<instance>".
 */
void posture_look(const struct conf *, const char *group, bool make, struct posture *ret);

/* Looks only, and prints it: what it tries out is gone afterwards. 0 all well, 3 warnings, 4 worse.
 */
int posture_print(const struct conf *, bool json);
