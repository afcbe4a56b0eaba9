/* host_shape.h - a host as the API shows it. */
#pragma once
#include "api.h"
#include "hosts.q.h"

#include <string.h>

/* Whose hosts the caller may see: NULL is everybody's. The queries know no others (spec 02 §5.1).
 */
static inline const struct uuid *
host_owner(const struct request *r)
{
	return r->own_only ? r->who.team : NULL;
}

/* Of deleted teams, too: for administrators of the platform, and for a host itself. */
static inline bool
host_orphans(const struct request *r)
{
	return r->who.type != CALLER_USER || strcmp(r->who.platform_role, "admin") == 0;
}

/* What hosts are looked for with: whose, and what their capacity is computed with. */
#define HOST_PERCENTS(r)                                               \
	.owner = host_owner(r), .orphans = host_orphans(r),            \
	.mem_percent = (r)->app->conf->host_overcommit_memory_percent, \
	.cpu_percent = (r)->app->conf->host_overcommit_cpu_percent,    \
	.tcg_percent = (r)->app->conf->host_overcommit_cpu_tcg_percent

static const struct field host_fields[] = {
	FIELD(q_host, id, "id", .flags = NEEDED, .prefix = "host-"),
	FIELD(q_host, type, "type", .flags = NEEDED, .one_of = "regular|byoc"),
	FIELD(q_host, team_id, "team_id", .flags = OMIT, .prefix = "team-"),
	FIELD(q_host, team_name, "team_name", .flags = OMIT),
	FIELD(q_host, name, "name", .flags = NEEDED),
	FIELD(q_host, provider, "provider", .flags = NEEDED),
	FIELD(q_host, availability_zone, "availability_zone", .flags = NEEDED),
	FIELD(q_host, arch, "arch", .flags = NEEDED),
	FIELD(q_host, accel, "accel", .flags = NEEDED),
	FIELD(q_host, cpu_classes, "cpu_classes", .flags = NEEDED),
	FIELD(q_host, cpu_cores, "cpu_cores", .flags = NEEDED),
	FIELD(q_host, memory_mb, "memory_mb", .flags = NEEDED),
	FIELD(q_host, disk_gb, "disk_gb", .flags = NEEDED),
	FIELD(q_host, address, "address", .flags = NEEDED),
	FIELD(q_host, status, "status", .flags = NEEDED,
	    .one_of = "pending|online|unreachable|draining"),
	FIELD(q_host, schedulable, "schedulable", .flags = NEEDED),
	FIELD(q_host, weight, "weight", .flags = NEEDED),
	FIELD(q_host, overcommit_cpu, "overcommit_cpu", .doc = "null: the platform's."),
	FIELD(q_host, overcommit_memory, "overcommit_memory"),
	FIELD(q_host, reserve_memory_mb, "reserve_memory_mb", .flags = NEEDED),
	FIELD(q_host, reserve_disk_mb, "reserve_disk_mb", .flags = NEEDED),
	FIELD(q_host, last_heartbeat_at, "last_heartbeat_at", .format = "date-time"),
	FIELD(q_host, agent_version, "agent_version", .flags = NEEDED),
	FIELD(q_host, conditions, "conditions", .flags = NEEDED, .format = "json"),
	FIELD(q_host, tags, "tags", .flags = NEEDED),
	FIELD(q_host, capacity, "capacity", .flags = NEEDED, .format = "json"),
	FIELD(q_host, used, "used", .flags = NEEDED, .format = "json"),
	FIELD(q_host, cert_expires_at, "cert_expires_at", .format = "date-time"),
	FIELD(q_host, created_by, "created_by", .prefix = "usr-"),
	FIELD(q_host, created_at, "created_at", .flags = NEEDED, .format = "date-time"),
	FIELD(q_host, updated_at, "updated_at", .flags = NEEDED, .format = "date-time"),
	{ 0 },
};
