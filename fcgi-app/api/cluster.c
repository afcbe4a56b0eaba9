/*
 * cluster.c - the platform as one machine: how much there is, how much is used, what is missing
 * (spec 02 §5.8).
 *
 * Queries: sql/queries/cluster.sql.  Tests: tests/http/routes.t, tests/vm/hosts_test.py.
 */
#include "cluster.q.h"
#include "host_shape.h"

static handler cluster_get;

static const struct field cluster_fields[] = {
	FIELD(
	    q_cluster_sum, hosts, "hosts", .flags = NEEDED, .format = "json", .doc = "By status."),
	FIELD(q_cluster_sum, capacity, "capacity", .flags = NEEDED, .format = "json",
	    .doc = "Of hosts that take capsules: memory_mb, vcpus, disk_mb."),
	FIELD(q_cluster_sum, used, "used", .flags = NEEDED, .format = "json",
	    .doc = "Of all hosts: what their capsules were promised, and how many these are."),
	FIELD(q_cluster_sum, capsules, "capsules", .flags = NEEDED, .format = "json",
	    .doc = "By state; without stopped ones."),
	FIELD(q_cluster_sum, artifacts, "artifacts", .flags = NEEDED, .format = "json",
	    .doc = "Disks and memories: total, bytes; one_copy: lost with the host that has it."),
	FIELD(q_cluster_sum, hosts_wanted, "hosts_wanted",
	    .doc =
		"So many of the platform's hosts, of the size they have now, hold what is placed "
		"on them and what waits for a place, within min_hosts and max_hosts of the "
		"scaling; null: none takes capsules."),
	{ 0 },
};

/* clang-format off */
const struct route cluster_routes[] = {
	{ "GET", "/v1/admin/cluster", POOL_API, PLATFORM_READ, cluster_get, "The platform's hosts, capacity and use", 0, 200, OUT(cluster) },
	{ 0 },
};
/* clang-format on */

static int
cluster_get(struct request *r)
{
	const struct conf *conf = r->app->conf;
	struct q_cluster_sum *sum;
	int n =
	    q_cluster_sum_get(r->work.db, &sum, .mem_percent = conf->host_overcommit_memory_percent,
		.cpu_percent = conf->host_overcommit_cpu_percent,
		.tcg_percent = conf->host_overcommit_cpu_tcg_percent);

	return reply_row(r, n, sum);
}
