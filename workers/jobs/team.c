/*
 * team.c - what follows a deleted team (team.purge) and a disabled account (user.disable): spec 01
 * §6.1, §6.2. Both are tried for ever; a silent host delays only what waits for it.
 *
 * Queries: sql/queries/cascade.sql, storage.sql. Tests: tests/jobs/deletion.py.
 */
#include "workers/cascade.h"
#include "audit.h"
#include "cascade.q.h"
#include "db.h"
#include "hosts.q.h"
#include "storage.q.h"

#include <inttypes.h>
#include <string.h>

static job_fn team_purge, user_disable_follow;
static job_fn stop_capsules, delete_images, delete_objects, delete_hosts, delete_connections,
    finish;

struct team_args {
	const struct uuid *team;
};
static const struct field team_args_fields[] = {
	FIELD(team_args, team, "team", .flags = NEEDED, .prefix = "team-"),
	{ 0 },
};
struct disable_args {
	const char *const *teams;
};
static const struct field disable_args_fields[] = {
	FIELD(disable_args, teams, "teams", .flags = NEEDED, .max = 1000),
	{ 0 },
};

const struct job_kind team_jobs[] = {
	{ "team.purge", team_purge, IN(team_args) },
	{ "user.disable", user_disable_follow, IN(disable_args) },
	{ 0 },
};

/* The capsules come first, and the end waits for them; whatever is between does not. */
static const struct cascade_step steps[] = {
	{ "capsules", stop_capsules },
	{ "images", delete_images },
	{ "objects", delete_objects },
	{ "hosts", delete_hosts },
	{ "connections", delete_connections },
	{ "finish", finish },
	{ 0 },
};

static const struct uuid *
team_of(const struct job *j)
{
	return ((const struct team_args *)j->in)->team;
}

static const char *
uuid_text(struct job *j, const struct uuid *id)
{
	char text[37];

	return talloc_strdup(j, uuid_write(text, id));
}

static int
team_purge(struct job *j)
{
	struct q_team_at_end *t;
	int n = q_team_purge_state(j->work.db, &t, .id = team_of(j));

	if (n < 0)
		return -1;
	return n && t->deleted && !t->purged ? cascade_run(j, steps) : 0;
}

static int
stop_capsules(struct job *j)
{
	return cascade_stop_capsules(j, team_of(j), true, "team_deleted");
}

static int
delete_images(struct job *j)
{
	if (job_begin(j) < 0 || q_team_snapshots_delete(j->work.db, .team = team_of(j)) < 0 ||
	    q_team_templates_delete(j->work.db, .team = team_of(j)) < 0)
		return -1;
	return job_commit(j);
}

static int
delete_objects(struct job *j)
{
	struct q_connection_secret *c;
	int n = q_connections_of_team(j->work.db, &c, .team = team_of(j)), i;

	for (i = 0; i < n; i++)
		if (storage_delete_objects(j, &c[i]) < 0)
			return -1;
	return n < 0 ? -1 : 0;
}

/* As DELETE /v1/hosts/{id}?force=true. The host ends its capsules itself, when the order reaches
 * it. */
static int
delete_host(struct job *j, const struct q_team_host *h)
{
	const char *id = id_text(j, "host-", h->id);
	struct job_new order = { .kind = "host.decommission",
		.args = talloc_asprintf(j, "{\"host\":\"%s\"}", id),
		.unique_key = id };
	struct q_host_only *capsules;
	const char *meta;
	int n, i;

	if (job_begin(j) < 0)
		return -1;
	n = q_host_only_capsules(j->work.db, &capsules, .host = h->id);
	for (i = 0; i < n; i++)
		if (q_host_capsule_ends(j->work.db, .id = capsules[i].id) < 0)
			return -1;
	if (n < 0 || q_host_delete(j->work.db, .id = h->id) < 0 ||
	    q_host_tokens_forget(j->work.db, .host = h->id) < 0 ||
	    (strcmp(h->status, "pending") != 0 && job_add(&j->work, &order, NULL, NULL) < 0))
		return -1;
	meta = talloc_asprintf(j, "{\"capsules\":%d}", n);
	if (audit_add(&j->work, AUDIT_HOST_DELETE,
		&(struct audit){ .team = team_of(j),
		    .resource_id = id,
		    .metadata = meta,
		    .data = talloc_asprintf(
			j, "{\"reason\":\"team_deleted\",\"capsules\":%d}", n) }) < 0)
		return -1;
	return job_commit(j);
}

static int
delete_hosts(struct job *j)
{
	struct q_team_host *h;
	int n = q_team_hosts(j->work.db, &h, .team = team_of(j)), i;

	for (i = 0; i < n; i++)
		if (delete_host(j, &h[i]) < 0)
			return -1;
	return n < 0 ? -1 : 0;
}

static int
delete_connections(struct job *j)
{
	struct q_connection_secret *c;
	int n = q_connections_of_team(j->work.db, &c, .team = team_of(j));

	return n < 0 ? -1 : storage_purge(j, c, n, team_of(j));
}

/* Capsules that were made in the very moment of the deletion have their items now, too. */
static int
gone(struct job *j, const struct uuid *team)
{
	const char *teams[] = { uuid_text(j, team), NULL };
	int open;

	if (cascade_stop_capsules(j, team, true, "team_deleted") < 0)
		return -1;
	open = cascade_settle(j, teams);
	if (open > 0)
		return err_set(&j->work.err, E_CONFLICT, "%d capsules are not gone yet", open);
	return open;
}

static int
finish(struct job *j)
{
	const struct uuid *team = team_of(j);
	struct q_item_counts *capsules, *objects;
	struct db *db = j->work.db;
	int n;

	if (gone(j, team) < 0)
		return -1;
	if (job_begin(j) < 0 || q_team_members_forget(db, .team = team) < 0 ||
	    q_team_invitations_forget(db, .team = team) < 0 ||
	    q_team_roles_forget(db, .team = team) < 0 ||
	    q_team_quota_forget(db, .team = team) < 0 ||
	    q_team_images_forget(db, .team = team) < 0 ||
	    q_team_points_forget(db, .team = team) < 0 ||
	    q_team_samples_forget(db, .team = team) < 0 ||
	    q_team_answers_forget(db, .team = team) < 0 ||
	    q_team_children_free(db, .team = team) < 0)
		return -1;
	n = q_team_set_purged(db, .team = team);
	if (n < 0 || q_items_count(db, &capsules, .job = &j->ref.id, .prefix = "cl-") < 0 ||
	    q_items_count(db, &objects, .job = &j->ref.id, .prefix = "obj-") < 0)
		return -1;
	j->result = talloc_asprintf(j,
	    "{\"capsules\":%" PRId64 ",\"objects\":%" PRId64 ",\"objects_failed\":%" PRId64 "}",
	    capsules->done, objects->done, objects->failed);
	if (n > 0 &&
	    audit_add(&j->work, AUDIT_TEAM_PURGE,
		&(struct audit){
		    .resource_id = id_text(j, "team-", team), .metadata = j->result }) < 0)
		return -1;
	if (objects->failed)
		j->how = JOB_PARTIAL;
	return job_commit(j);
}

/* The account may be enabled again meanwhile: what was to stop stops all the same. */
static int
user_disable_follow(struct job *j)
{
	const struct disable_args *in = j->in;
	struct uuid team;
	const char **texts;
	int i, n = 0, open;

	while (in->teams[n])
		n++;
	texts = talloc_zero_array(j, const char *, n + 1);
	j->work.actor = (struct actor){ 0 };
	for (i = 0; i < n; i++) {
		if (!id_read(in->teams[i], "team-", &team))
			return err_set(&j->work.err, E_BUG, "%s is no team", in->teams[i]);
		texts[i] = uuid_text(j, &team);
		if (cascade_stop_capsules(j, &team, false, "user_disabled") < 0)
			return -1;
	}
	open = cascade_settle(j, texts);
	if (open > 0)
		return err_set(&j->work.err, E_CONFLICT, "%d capsules are not gone yet", open);
	return open;
}
