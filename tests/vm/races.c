/*
 * races.c - the reconciler and the moves of a capsule between states, 1000 times each, on a real
 * database with a host that answers from here (spec 02 §9 rows 10, 15, 16).
 *
 * usage: races CONNINFO [TRIES]      (a database of an instance, as its owner)
 *
 * host_watch.c is compiled in with its call to the agent replaced, and so are the starts' files,
 * for what is told of a capsule while its host pulls (spec 02 §5.6). What the host "does" while it
 * is asked for its inventory is another connection's doing, as in life.
 */
#define agent_send     fake_agent
#define agent_send_all fake_agents
#include "../../lib/host_watch.c"
#include "../../lib/capsule_op.c"
/* clang-format off */
#define pull   pull_template
#define forget forget_copy
#include "../../lib/host_copy.c"
/* clang-format on */
#undef agent_send
#undef agent_send_all

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static PGconn *other; /* of whoever acts meanwhile */
static struct uuid host, capsule;
static int discards, bad;
static int pulls;
static const char *inventory_says;
static const char *meanwhile;

static void
sql(PGconn *c, const char *text)
{
	PGresult *r = PQexec(c, text);

	if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK) {
		fprintf(stderr, "races: %s: %s", text, PQerrorMessage(c));
		exit(2);
	}
	PQclear(r);
}

static const char *
value(void *mem, const char *text)
{
	PGresult *r = PQexec(other, text);
	const char *v = PQntuples(r) ? talloc_strdup(mem, PQgetvalue(r, 0, 0)) : "";

	PQclear(r);
	return v;
}

static const char *
reason(void *mem)
{
	char id[37];

	return value(mem,
	    talloc_asprintf(mem, "SELECT state_reason FROM capsules WHERE id = '%s'",
		uuid_write(id, &capsule)));
}

/* The host: its inventory is made, then the row changes; nothing else may be asked of it. */
int
fake_agent(struct work *w, const struct agent_call *call, struct json_object **ret)
{
	struct uuid cluster;
	const char *said;

	*ret = NULL;
	if (strncmp(call->path, "/artifacts/", strlen("/artifacts/")) == 0) {
		pulls += strcmp(reason(w), "pulling") == 0;
		return 0;
	}
	if (strcmp(call->path, "/capsules") != 0) {
		discards++;
		return 0;
	}
	if (meanwhile)
		sql(other, meanwhile);
	(void)uuid_read(value(w, "SELECT id FROM cluster"), &cluster);
	said =
	    talloc_asprintf(w, "{\"cluster\":\"%s\",\"journal_complete\":true,\"capsules\":[%s]}",
		id_text(w, "cluster-", &cluster), inventory_says);
	*ret = json_parse(w, said, strlen(said), NULL, &w->err);
	return *ret ? 0 : -1;
}

void
fake_agents(struct work *w, const struct agent_call *calls, size_t n,
    void (*done)(void *, size_t, struct json_object *), void *arg)
{
	struct json_object *answer;
	size_t i;

	for (i = 0; i < n; i++)
		done(arg, i, fake_agent(w, &calls[i], &answer) == 0 ? answer : NULL);
}

static const char *
insert(void *mem, const char *state)
{
	char id[37], h[37];

	return talloc_asprintf(mem,
	    "INSERT INTO capsules (id, team_id, template_id, template_name, template_version, "
	    "host_id, observed_state, vcpus, "
	    "memory_mb, disk_size_mb) SELECT '%s', '00000000-0000-0000-0000-000000000000', "
	    "template_id, 'minimal', version, '%s', "
	    "'%s', 1, 256, 1024 FROM template_versions LIMIT 1",
	    uuid_write(id, &capsule), uuid_write(h, &host), state);
}

static void
clear(void *mem)
{
	char h[37];

	uuid_write(h, &host);
	sql(other, talloc_asprintf(mem, "DELETE FROM capsules WHERE host_id = '%s'", h));
	sql(other, talloc_asprintf(mem, "DELETE FROM host_sightings WHERE host_id = '%s'", h));
}

/* ---- row 10 */

/* What happens between the look at the rows and the inventory's arrival; the state that must hold
 * afterwards. */
static const struct meeting {
	const char *name, *before; /* state of the row before, or NULL: none */
	const char *meanwhile;     /* … and then; NULL: it is made */
	const char *says;          /* the inventory; NULL: nothing of it */
	const char *after;
} meetings[] = {
	{ "made in between", NULL, NULL, "running", "running" },
	{ "made in between, not yet there", NULL, NULL, NULL, "running" },
	{ "paused in between, the inventory is older", "running",
	    "observed_state = 'paused', residency = 'ram'", "running", "paused" },
	{ "woken in between, the inventory is older", "paused",
	    "observed_state = 'resuming', epoch = epoch + 1", "paused", "resuming" },
	{ "hibernated in between", "hibernating", "observed_state = 'hibernated', host_id = NULL",
	    "hibernated", "hibernated" },
};

static void
meet(struct db *db, const struct meeting *m)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct work *w = talloc_zero(mem, struct work);
	struct conf conf = { .host_proof_sec = 0 }; /* one look is proof: the strictest */
	struct op_env env = { .conf = &conf };
	struct q_host_seen seen = { .id = &host, .name = "races", .address = "fake" };
	char id[37];
	const char *state;

	capsule = uuid_new();
	uuid_write(id, &capsule);
	w->db = db;
	w->id = "races";
	if (m->before)
		sql(other, insert(mem, m->before));
	meanwhile = m->before
	    ? talloc_asprintf(mem, "UPDATE capsules SET %s WHERE id = '%s'", m->meanwhile, id)
	    : insert(mem, "running");
	inventory_says = m->says
	    ? talloc_asprintf(mem,
		  "{\"id\":\"%s\",\"epoch\":1,\"state\":\"%s\",\"residency\":\"ram\"}",
		  id_text(mem, "cl-", &capsule), m->says)
	    : "";
	discards = 0;
	if (db_unit(db, w, &w->err) < 0 ||
	    visit_all(w, &env, &(const struct q_host_seen *){ &seen }, 1) < 0) {
		fprintf(stderr, "races: %s\n", w->err.text);
		exit(2);
	}
	db_unit_end(db);
	state = value(
	    mem, talloc_asprintf(mem, "SELECT observed_state FROM capsules WHERE id = '%s'", id));
	if (discards || strcmp(state, m->after) != 0) {
		bad++;
		printf("# %s: %s, %d discards\n", m->name, state, discards);
	}
	sql(other, talloc_asprintf(mem, "DELETE FROM capsules WHERE id = '%s'", id));
	clear(mem);
}

/* ---- row 16 */

typedef int move(struct work *);

static int
pause_it(struct work *w)
{
	return q_life_pause(w->db, .id = &capsule, .epoch = 1, .by = "user");
}

static int
wake_it(struct work *w)
{
	return q_life_wake(w->db, .id = &capsule, .epoch = 1, .was = "paused", .host = &host,
	    .from = "held", .reason = "user", .timeout_sec = NULL_INT4);
}

static int
hibernate_it(struct work *w)
{
	return q_life_hibernate(w->db, .id = &capsule, .epoch = 1, .was = "running", .by = "user");
}

static int
idle_it(struct work *w)
{
	struct capsule_report r = { .id = &capsule,
		.epoch = 1,
		.state = "paused",
		.residency = "ram",
		.by = "idle",
		.idle_s = -1 };

	return capsule_reported(w, &r, NULL_INT);
}

/* The call came when the host had just put it to sleep: the gateway waits for the row to say so,
   then wakes it. However late the host's report is, and however often it is said. */
static int
call_it(struct work *w)
{
	static const struct timespec pause = { 0, 200000 };
	int tries, n = 0;

	for (tries = 0; n == 0 && tries < 100000; tries++) {
		n = wake_it(w);
		if (n == 0)
			nanosleep(&pause, NULL);
	}
	return n;
}

static int
end_it(struct work *w)
{
	return q_capsule_stop_wanted(w->db, .id = &capsule, .reason = "user");
}

static const struct race {
	const char *name, *from;
	move *one, *two;
	int least, most;   /* winners */
	const char *after; /* states that may be */
	const char *row;   /* of the spec; NULL: 16 */
} races[] = {
	{ "pause and pause", "running", pause_it, pause_it, 1, 1, "pausing" },
	{ "resume and resume", "paused", wake_it, wake_it, 1, 1, "resuming" },
	{ "pause and hibernate", "running", pause_it, hibernate_it, 1, 1, "pausing hibernating" },
	{ "pause and resume", "running", pause_it, wake_it, 1, 1, "pausing" },
	{ "pause and destroy", "running", pause_it, end_it, 1, 2, "stopping" },
	{ "resume and destroy", "paused", wake_it, end_it, 1, 2, "stopping" },
	{ "the host's idle report and a pause", "running", idle_it, pause_it, 1, 2,
	    "paused pausing" },
	{ "the host's idle report and destroy", "running", idle_it, end_it, 1, 2, "stopping" },
	{ "the host's idle report and a call", "running", idle_it, call_it, 2, 2, "resuming",
	    "15" },
	{ "the idle report said again and a call", "paused", idle_it, call_it, 1, 2, "resuming",
	    "15" },
};

struct runner {
	struct db *db;
	move *fn;
	int won;
	pthread_t thread;
};
static pthread_barrier_t gate;

static void *
run(void *arg)
{
	struct runner *k = arg;
	auto_talloc char *mem = talloc_new(NULL);
	struct work *w = talloc_zero(mem, struct work);

	w->db = k->db;
	w->id = "races";
	if (db_unit(k->db, w, &w->err) < 0)
		exit(2);
	db_begin(k->db);
	pthread_barrier_wait(&gate);
	k->won = k->fn(w);
	if (k->won < 0 || db_commit(k->db) < 0) {
		printf("# %s\n", w->err.text);
		k->won = -10;
	}
	db_unit_end(k->db);
	return NULL;
}

static void
compete(struct db *const db[2], const struct race *r)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct runner k[2] = { { db[0], r->one, 0, 0 }, { db[1], r->two, 0, 0 } };
	const char *state;
	char id[37];
	int i;

	capsule = uuid_new();
	sql(other, insert(mem, r->from));
	for (i = 0; i < 2; i++)
		pthread_create(&k[i].thread, NULL, run, &k[i]);
	for (i = 0; i < 2; i++)
		pthread_join(k[i].thread, NULL);
	state = value(mem,
	    talloc_asprintf(mem, "SELECT observed_state FROM capsules WHERE id = '%s'",
		uuid_write(id, &capsule)));
	if (k[0].won + k[1].won < r->least || k[0].won + k[1].won > r->most || !*state ||
	    !strstr(r->after, state)) {
		bad++;
		printf("# %s: %d and %d, %s\n", r->name, k[0].won, k[1].won, state);
	}
	clear(mem);
}

/* ---- a start that waits for its host */

/* The host has neither the template nor the image: two pulls, and the row says so while they last.
 */
static void
pull_both(struct db *db)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct work *w = talloc_zero(mem, struct work);
	struct q_capsule_op *c;
	char id[37], h[37], hex[2 * HASH_SIZE + 1];
	uint8_t disk[HASH_SIZE];

	capsule = uuid_new();
	crypto_random(disk, sizeof disk);
	hex_write(hex, disk, sizeof disk);
	sql(other, insert(mem, "starting"));
	sql(other,
	    talloc_asprintf(mem,
		"UPDATE capsules SET wake_from = 'image', wake_cold = true WHERE id = '%s'; "
		"UPDATE hosts SET holds = '{}' WHERE id = '%s'; "
		"INSERT INTO artifacts (id, kind, bytes) VALUES ('\\x%s', 'disk', 1); "
		"INSERT INTO artifact_copies (artifact_id, holder, state) SELECT '\\x%s', id, "
		"'ready' "
		"FROM hosts WHERE name <> 'races' AND 'minimal' = ANY (holds) LIMIT 1; "
		"INSERT INTO capsule_images (capsule_id, epoch, team_id, disk_artifact, cpu_class, "
		"bytes) "
		"SELECT id, 1, team_id, '\\x%s', '', 1 FROM capsules WHERE id = '%s'",
		uuid_write(id, &capsule), uuid_write(h, &host), hex, hex, hex, id));
	w->db = db;
	w->id = "races";
	pulls = 0;
	if (db_unit(db, w, &w->err) < 0 || q_capsule_for_op(db, &c, .id = &capsule) <= 0 ||
	    op_pull(w, c, 1000) < 0) {
		fprintf(stderr, "races: %s\n", w->err.text);
		exit(2);
	}
	db_unit_end(db);
	if (pulls != 2 || *reason(mem)) {
		bad++;
		printf("# %d pulls were told of, then \"%s\"\n", pulls, reason(mem));
	}
	sql(other,
	    talloc_asprintf(mem,
		"DELETE FROM capsule_images WHERE capsule_id = '%s'; DELETE FROM artifact_copies "
		"WHERE "
		"artifact_id = '\\x%s'; DELETE FROM artifacts WHERE id = '\\x%s'",
		id, hex, hex));
	clear(mem);
}

/* ---- a hibernation that the host tells of before its answer is heard */

static void
hibernated_told(struct db *db)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct work *w = talloc_zero(mem, struct work);
	struct capsule_report r = { .id = &capsule,
		.epoch = 1,
		.state = "hibernated",
		.by = "user",
		.memory = talloc_asprintf(mem, "%064d", 1),
		.disk = talloc_asprintf(mem, "%064d", 2),
		.cpu_class = "races",
		.bytes = 4711,
		.idle_s = -1 };
	const char *said;
	char id[37];

	capsule = uuid_new();
	sql(other, insert(mem, "hibernating"));
	w->db = db;
	w->id = "races";
	if (db_unit(db, w, &w->err) < 0 || capsule_reported(w, &r, NULL_INT) != 1) {
		fprintf(stderr, "races: %s\n", w->err.text);
		exit(2);
	}
	db_unit_end(db);
	uuid_write(id, &capsule);
	said = value(mem,
	    talloc_asprintf(mem,
		"SELECT concat_ws(' ', i.bytes, a.bytes, a.cpu_class, e.data->>'bytes') FROM "
		"capsule_images i JOIN artifacts a ON a.id = i.memory_artifact "
		"JOIN events e USING (capsule_id) WHERE i.capsule_id = '%s'",
		id));
	if (strcmp(said, "4711 4711 races 4711") != 0) {
		bad++;
		printf("# its image: %s\n", said);
	}
	sql(other,
	    talloc_asprintf(mem,
		"DELETE FROM capsule_images WHERE capsule_id = '%s'; "
		"DELETE FROM artifact_copies WHERE artifact_id IN ('\\x%s', '\\x%s'); "
		"DELETE FROM artifacts WHERE id IN ('\\x%s', '\\x%s'); "
		"DELETE FROM capsules WHERE id = '%s'", /* it is on no host: not among the cleared
	                                                 */
		id, r.memory, r.disk, r.memory, r.disk, id));
}

/* ---- a session of the database that ended unused */

/* As after a restart of PostgreSQL: whoever comes next hears nothing of it. */
static void
idle_session(struct db *db)
{
	auto_talloc char *mem = talloc_new(NULL);
	int pid = PQbackendPID(db_raw(db)), i;
	const char *alive =
	    talloc_asprintf(mem, "SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid);
	struct err e = { 0 };
	struct q_capsule_op *row;

	sql(other, talloc_asprintf(mem, "SELECT pg_terminate_backend(%d)", pid));
	for (i = 0; i < 1000 && strcmp(value(mem, alive), "0") != 0; i++)
		usleep(10000);
	if (db_unit(db, mem, &e) < 0 || q_capsule_for_op(db, &row, .id = &capsule) < 0) {
		bad++;
		printf("# %s\n", e.text);
	}
	db_unit_end(db);
}

static int
said(const char *what, const char *name, int tries)
{
	printf("%s races: %s: %s (%d tries)\n", bad ? "not ok" : "ok", what, name, tries);
	fflush(stdout);
	return bad > 0;
}

int
main(int argc, char **argv)
{
	auto_talloc char *mem = talloc_new(NULL);
	int tries = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 1000, i, failed = 0;
	struct db *db[2];
	char h[37];
	size_t k;

	if (argc < 2) {
		fprintf(stderr, "usage: races CONNINFO [TRIES]\n");
		return 64;
	}
	other = PQconnectdb(argv[1]);
	for (i = 0; i < 2; i++)
		db[i] = db_open(mem, argv[1], "races", 10000);
	host = uuid_new();
	sql(other,
	    talloc_asprintf(mem,
		"INSERT INTO hosts (id, name, address, status, schedulable) VALUES ('%s', 'races', "
		"'unix:/none', "
		"'online', false)",
		uuid_write(h, &host)));
	pull_both(db[0]);
	failed += said("5.6", "a start that waits for its host says so", 1);
	bad = 0;
	hibernated_told(db[0]);
	failed += said("16", "a hibernation told of before its answer", 1);
	bad = 0;
	idle_session(db[0]);
	failed += said("I11", "a session that ended unused", 1);
	for (k = 0; k < nitems(meetings); k++) {
		for (i = 0, bad = 0; i < tries; i++)
			meet(db[0], &meetings[k]);
		failed += said("10", meetings[k].name, tries);
	}
	pthread_barrier_init(&gate, NULL, 2);
	for (k = 0; k < nitems(races); k++) {
		for (i = 0, bad = 0; i < tries; i++)
			compete(db, &races[k]);
		failed += said(races[k].row ? races[k].row : "16", races[k].name, tries);
	}
	sql(other, talloc_asprintf(mem, "DELETE FROM hosts WHERE id = '%s'", h));
	PQfinish(other);
	return failed ? 1 : 0;
}
