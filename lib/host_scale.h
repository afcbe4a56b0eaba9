/*
 * host_scale.h - the scaling (spec 02 §5.8) on its way: to the hosts, and back as alerts.
 *
 * Level-triggered: a host names the version that it holds in each inventory; who holds another one
 * is told. A team's own hosts are the team's: they go by their own configuration.
 */
#pragma once
#include "capsule_op.h"
#include "hosts.q.h"

/* The host has answered, and holds this version. NULL: its agent is older than the setting. */
int host_scale(struct work *, const struct q_host_seen *, const char *holds);
/* All of the platform's hosts are told, at the same time; who misses it hears it from the monitor.
 */
int host_scale_all(struct work *, const struct op_env *);
/* What is wrong for host.alert_sec becomes an event, and its end too. */
int host_scale_alerts(struct work *, const struct op_env *);
