/* identity.c - see identity.h. The order of steps in init_apply() is spec 02 §7's. */
#include "identity.h"

#include "cleanup.h"
#include "freeze.h"
#include "grow.h"
#include "handlers.h"
#include "init.h"
#include "json.h"
#include "log.h"
#include "process.h"
#include "reset.h"
#include "resume.h"
#include "rpc.h"
#include "text.h"
#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#define ENVD_VERSION "0.6.13"

enum { ENTROPY_MAX = 512, BEHIND_NS = 50 * 1000 * 1000, HOSTNAME_LEN = 64 };
#define AHEAD_NS INT64_C(5000000000)

static struct {
	bool ready;
	bool applying; /* an init waits for the programs of resume.d */
	int64_t epoch;
	char *token, *user, *workdir, *machine_id;
	struct json_object *variables;
} self;

/* What /init says, checked. */
struct init {
	int64_t epoch, time_ns;
	const char *token, *user, *workdir, *hostname, *machine_id, *ca_bundle;
	struct json_object *variables;
	uint8_t *entropy;
	size_t entropy_len;
	bool keep;    /* the same capsule goes on: what is not said stays as it is */
	int64_t disk; /* bytes of the writable disk; 0: as many as it has */
	bool other;   /* another capsule from now on: its epochs have nothing to do with ours */
};

/* Members of the message that become variables of every process. */
static const struct {
	const char *member, *names[2];
} labels[] = {
	{ "capsuleId", { "E2B_SANDBOX_ID", "HUTCH_CAPSULE_ID" } },
	{ "templateId", { "E2B_TEMPLATE_ID", "HUTCH_TEMPLATE_ID" } },
	{ "teamId", { "E2B_TEAM_ID", "HUTCH_TEAM_ID" } },
};

bool
identity_ready(void)
{
	return self.ready;
}

bool
identity_token_is(const char *token)
{
	return self.token && text_same_secret(self.token, token);
}

const char *
identity_token(void)
{
	return self.token;
}

const char *
identity_user(void)
{
	return self.user ? self.user : "user";
}

const char *
identity_workdir(void)
{
	return self.workdir;
}

struct json_object *
identity_variables(void)
{
	return self.variables;
}

/* The nonce comes back: on a port the answer to somebody who has left may reach the next to come.
 */
void
identity_health(struct call *c)
{
	const char *nonce = call_header(c, "x-hutch-nonce");
	struct h2_header h[5] = { { "x-hutch-version", PACKAGE_VERSION } };
	double load = 0;
	int n = 2;

	if (getloadavg(&load, 1) < 1)
		load = 0;
	h[1] = (struct h2_header){ "x-hutch-load", talloc_asprintf(c, "%.2f", load) };
	if (self.ready)
		h[n++] = (struct h2_header){ "x-hutch-epoch",
			talloc_asprintf(c, "%" PRId64, self.epoch) };
	if (nonce)
		h[n++] = (struct h2_header){ "x-hutch-nonce", nonce };
	call_reply(c, 204, h, NULL, 0);
}

void
identity_envs(struct call *c)
{
	struct buf b = BUF(c);

	if (self.variables)
		buf_str(&b,
		    json_object_to_json_string_ext(
			self.variables, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	call_reply_json(c, &b);
}

/* ---- the message ---- */

static bool
hostname_ok(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.");

	return n > 0 && n <= HOSTNAME_LEN - 1 && s[n] == '\0' && s[0] != '-' && s[0] != '.';
}

static bool
machine_id_ok(const char *s)
{
	return strlen(s) == 32 && strspn(s, "0123456789abcdef") == 32;
}

static int
read_timestamp(struct json_object *in, int64_t *ns, struct err *e)
{
	struct json_object *v = json_get(in, "timestamp");

	if (!v)
		return 0;
	if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_string))
		return err_set(e, E_BAD_INPUT, "\"timestamp\" is not a time");
	return text_time(json_object_get_string(v), ns, e);
}

static int
check_variables(struct json_object *vars, struct err *e)
{
	if (!vars)
		return 0;
	json_object_object_foreach(vars, key, value)
	{
		if (key[0] == '\0' || strchr(key, '='))
			return err_set(e, E_BAD_INPUT, "\"%s\" is no name of a variable", key);
		if (!json_object_is_type(value, json_type_string))
			return err_set(e, E_BAD_INPUT, "the variable \"%s\" is not a text", key);
	}
	return 0;
}

static int
init_read(struct call *c, struct json_object *in, struct init *i)
{
	const char *entropy = NULL;
	struct err *e = &c->err;

	i->epoch = -1;
	if (rpc_int(in, "epoch", 0, INT64_MAX, &i->epoch, e) < 0 ||
	    read_timestamp(in, &i->time_ns, e) < 0 ||
	    rpc_str(in, "accessToken", &i->token, e) < 0 ||
	    rpc_object(in, "envVars", &i->variables, e) < 0 ||
	    rpc_str(in, "defaultUser", &i->user, e) < 0 ||
	    rpc_str(in, "defaultWorkdir", &i->workdir, e) < 0 ||
	    rpc_str(in, "hostname", &i->hostname, e) < 0 ||
	    rpc_str(in, "entropy", &entropy, e) < 0 ||
	    rpc_str(in, "machineId", &i->machine_id, e) < 0 ||
	    rpc_str(in, "caBundle", &i->ca_bundle, e) < 0 ||
	    rpc_int(in, "diskSize", 0, INT64_MAX, &i->disk, e) < 0 ||
	    check_variables(i->variables, e) < 0)
		return -1;
	i->keep = json_flag(in, "keep", false) && self.token;
	i->other = json_flag(in, "newIdentity", false);
	if (i->epoch < 0)
		return err_set(e, E_BAD_INPUT, "\"epoch\" is missing");
	if (!i->keep && (!i->token || !i->token[0]))
		return err_set(e, E_BAD_INPUT, "\"accessToken\" is missing");
	if (i->hostname && !hostname_ok(i->hostname))
		return err_set(e, E_BAD_INPUT, "\"hostname\" is not a host name");
	if (i->machine_id && !machine_id_ok(i->machine_id))
		return err_set(e, E_BAD_INPUT, "\"machineId\" is not 32 hexadecimal digits");
	if (i->ca_bundle && trust_check(i->ca_bundle, e) < 0)
		return -1;
	if (entropy && text_base64(c, entropy, &i->entropy, &i->entropy_len, e) < 0)
		return -1;
	if (i->entropy_len > ENTROPY_MAX)
		return err_set(e, E_BAD_INPUT, "\"entropy\" is longer than %d bytes", ENTROPY_MAX);
	return 0;
}

/* ---- the steps; only pid 1 owns the machine, a test build leaves it alone ---- */

static int
mix_entropy(const struct init *i, struct err *e)
{
	struct {
		struct rand_pool_info info;
		uint8_t bytes[ENTROPY_MAX];
	} pool = { .info = { .entropy_count = (int)i->entropy_len * 8,
		       .buf_size = (int)i->entropy_len } };
	auto_fd fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, "/dev/urandom");
	memcpy(pool.info.buf, i->entropy, i->entropy_len);
	if (i->entropy_len && ioctl(fd, RNDADDENTROPY, &pool) < 0)
		return err_sys(e, "add entropy");
	if (ioctl(fd, RNDRESEEDCRNG, 0) < 0)
		return err_sys(e, "reseed the kernel's generator");
	return 0;
}

static int
set_clock(int64_t ns, struct err *e)
{
	struct timespec t;
	int64_t ahead = 0;

	if (ns == 0)
		return 0;
	clock_gettime(CLOCK_REALTIME, &t);
	ahead = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec - ns;
	if (ahead >= -BEHIND_NS && ahead <= AHEAD_NS)
		return 0;
	t = (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
	return clock_settime(CLOCK_REALTIME, &t) < 0 ? err_sys(e, "set the clock") : 0;
}

static int
write_file(const char *path, const char *text, struct err *e)
{
	auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	size_t len = strlen(text);

	if (fd < 0 || write(fd, text, len) != (ssize_t)len)
		return err_sys(e, "write %s", path);
	return 0;
}

/* So that the host name resolves: the line of 127.0.1.1 is ours. */
static int
write_hosts(const char *hostname, struct err *e)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	auto_file *f = fopen("/etc/hosts", "re");
	char line[1024];

	while (f && b.len < 256 * 1024 && fgets(line, sizeof line, f))
		if (strncmp(line, "127.0.1.1", 9) != 0)
			buf_str(&b, line);
	buf_fmt(&b, "127.0.1.1 %s\n", hostname);
	return write_file("/etc/hosts", b.data, e);
}

static int
set_hostname(const char *name, struct err *e)
{
	if (sethostname(name, strlen(name)) < 0)
		return err_sys(e, "set the host name");
	if (write_file("/etc/hostname", name, e) < 0)
		return -1;
	return write_hosts(name, e);
}

/* A boot id of its own: the kernel's was made in the template. */
static int
set_boot_id(struct err *e)
{
	static const char own[] = "/run/hutch.boot_id",
			  kernels[] = "/proc/sys/kernel/random/boot_id";
	static bool mounted;
	uint8_t r[16];
	char id[40];

	if (getrandom(r, sizeof r, 0) != sizeof r)
		return err_sys(e, "getrandom");
	r[6] = (r[6] & 0x0f) | 0x40;
	r[8] = (r[8] & 0x3f) | 0x80;
	(void)snprintf(id, sizeof id,
	    "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\n", r[0], r[1],
	    r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14],
	    r[15]);
	if (write_file(own, id, e) < 0)
		return -1;
	if (!mounted && mount(own, kernels, NULL, MS_BIND, NULL) < 0)
		return err_sys(e, "bind the boot id");
	mounted = true;
	return 0;
}

static void
put(struct json_object *o, const char *name, const char *value)
{
	json_object_object_add(o, name, json_object_new_string(value));
}

/* The old variables go whole, the new ones get the labels that processes may rely on. */
static void
set_variables(struct json_object *in, const struct init *i)
{
	struct json_object *all = json_object_new_object();
	const char *text = NULL;

	if (i->variables) {
		json_object_object_foreach(i->variables, key, value)
		{
			put(all, key, json_object_get_string(value));
		}
	}
	put(all, "E2B_SANDBOX", "true");
	put(all, "HUTCH", "true");
	for (size_t n = 0; n < nitems(labels); n++) {
		text = json_str(in, labels[n].member, NULL);
		if (text && strchr(text, '-')) /* theirs have no prefix (spec 06 §2) */
			put(all, labels[n].names[0], strchr(text, '-') + 1);
		if (text)
			put(all, labels[n].names[1], text);
	}
	json_object_put(self.variables);
	self.variables = all;
}

static void
keep_text(char **slot, const char *text)
{
	if (*slot)
		explicit_bzero(*slot, strlen(*slot)); /* one of them is the token */
	TALLOC_FREE(*slot);
	if (text && text[0])
		*slot = talloc_strdup(NULL, text);
}

static int
new_machine(const struct init *i, struct err *e)
{
	char line[40];

	process_forget_ended();
	watchers_forget();
	if (getpid() != 1)
		return 0;
	reset_connections();
	(void)snprintf(line, sizeof line, "%s\n", i->machine_id);
	if (write_file("/etc/machine-id", line, e) < 0)
		return -1;
	return set_boot_id(e);
}

static int
init_apply(struct json_object *in, const struct init *i, struct err *e)
{
	bool machine = getpid() == 1;

	/* Until the end nobody gets in: an init that fails leaves the capsule closed. */
	self.ready = false;
	if (machine && (mix_entropy(i, e) < 0 || set_clock(i->time_ns, e) < 0))
		return -1;
	if (!i->keep || i->token)
		keep_text(&self.token, i->token);
	if (!i->keep || i->variables)
		set_variables(in, i);
	if (!i->keep || i->user)
		keep_text(&self.user, i->user);
	if (!i->keep || i->workdir)
		keep_text(&self.workdir, i->workdir);
	if (machine && i->hostname && set_hostname(i->hostname, e) < 0)
		return -1;
	if (machine && (!i->keep || i->ca_bundle) && trust_set("", i->ca_bundle, e) < 0)
		return -1;
	if (i->machine_id && (!self.machine_id || strcmp(self.machine_id, i->machine_id) != 0) &&
	    new_machine(i, e) < 0)
		return -1;
	if (i->machine_id)
		keep_text(&self.machine_id, i->machine_id);
	self.epoch = i->epoch;
	return 0;
}

static void
init_done(struct call *c)
{
	static const struct h2_header version[] = { { "x-envd-version", ENVD_VERSION },
		{ NULL, NULL } };

	self.ready = true;
	self.applying = false;
	freeze_thaw();
	if (c)
		call_reply(c, 204, version, NULL, 0);
}

/* A file system that keeps its old size is no reason to refuse the capsule. */
static void
init_grown(struct call *c, const struct err *e)
{
	if (e)
		log_warn(NULL, "%s", e->text);
	resume_run(c, init_done);
}

void
identity_init(struct call *c)
{
	struct init i = { 0 };
	struct json_object *in =
	    json_parse(c, c->body.data ? c->body.data : "", c->body.len, NULL, &c->err);

	if (!in || !json_object_is_type(in, json_type_object)) {
		(void)err_set(&c->err, E_BAD_INPUT, "the body is not an object");
		call_fail(c);
		return;
	}
	if (init_read(c, in, &i) < 0) {
		call_fail(c);
		return;
	}
	/* epoch 0 is a template's: a rehearsal, done as often as it is asked for */
	if (self.ready && i.epoch == self.epoch && i.epoch > 0 && !i.other) {
		init_done(c);
		return;
	}
	if (self.applying) {
		(void)err_set(&c->err, E_UNAVAILABLE, "another init is under way");
		call_fail(c);
		return;
	}
	if (self.epoch > i.epoch && !i.other) {
		(void)err_set(&c->err, E_STALE_EPOCH,
		    "epoch %" PRId64 " is past, it is %" PRId64 " now", i.epoch, self.epoch);
		call_fail(c);
		return;
	}
	if (init_apply(in, &i, &c->err) < 0) {
		log_error(NULL, "init: %s", c->err.text);
		call_fail(c);
		return;
	}
	self.applying = true;
	grow_run(c, (uint64_t)i.disk, init_grown);
}
