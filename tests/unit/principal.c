/* principal.c - lib/principal.c: every role and caller against every permission. */
#include "principal.h"
#include "cleanup.h"
#include "unit.h"

#include <string.h>

static const struct uuid an_id = { { 1 } };

/* spec 01 §2.6 once more, as a picture: A all, o only his own, . nothing; owner admin member viewer
 * auditor */
/* clang-format off */
static const struct {
	enum perm p;
	const char *picture;
	bool scope;
} matrix[] = {
	{ PERM_view, "AAAAA", false },
	{ PERM_capsules_view, "AAAAA", true },
	{ PERM_capsules_create, "AAA..", true },
	{ PERM_capsules_connect, "AAA..", true },
	{ PERM_capsules_update, "AAo..", true },
	{ PERM_capsules_delete, "AAo..", true },
	{ PERM_keys_own, "AAA..", false },
	{ PERM_keys_manage, "AA...", false },
	{ PERM_templates_manage, "AAo..", true },
	{ PERM_snapshots_manage, "AAo..", true },
	{ PERM_volumes_manage, "AAo..", true },
	{ PERM_update, "AA...", false },
	{ PERM_members_manage, "AA...", false },
	{ PERM_manage, "A....", false },
	{ PERM_usage_view, "AAAAA", true },
	{ PERM_quota_view, "AAAAA", true },
	{ PERM_hosts_manage, "AA...", false },
	{ PERM_audit_view, "AA..A", true },
	{ PERM_recordings_view, "AA..A", false },
	{ PERM_roles_manage, "AA...", false },
	{ PERM_channels_manage, "AA...", false },
	{ PERM_storage_manage, "AA...", false },
	{ PERM_ai_manage, "AA...", false },
	{ PERM_billing_view, "AA...", false },
	{ PERM_quota_manage, "A....", false },
	{ PERM_billing_manage, "A....", false },
};
/* clang-format on */
static const char *const roles[] = { "owner", "admin", "member", "viewer", "auditor" };

static enum allowed
allowed(const struct principal *p, enum perm perm)
{
	enum allowed a;

	err = (struct err){ 0 };
	a = principal_allowed(p, perm, &err);
	ck_assert_msg(
	    (a == ALLOW_NO) == (err.code != E_OK), "perm %d: a refusal has a reason", perm);
	return a;
}

START_TEST(users)
{
	const char *row = matrix[_i].picture;
	size_t i;

	for (i = 0; i < nitems(roles); i++) {
		struct principal p = { .type = CALLER_USER,
			.user = &an_id,
			.team = &an_id,
			.role = roles[i],
			.platform_role = "user" };
		enum allowed want = row[i] == 'A' ? ALLOW_ALL
		    : row[i] == 'o'               ? ALLOW_OWN
						  : ALLOW_NO;

		ck_assert_msg(allowed(&p, matrix[_i].p) == want, "%s, %s", roles[i],
		    perm_kinds[matrix[_i].p].name);
		p.team = NULL;
		ck_assert_int_eq(allowed(&p, matrix[_i].p), ALLOW_NO);
		ck_assert_int_eq(err.code, E_NO_TEAM);
	}
}
END_TEST

/* A key needs both: the scope, and the role of who made it. */
START_TEST(keys)
{
	const char *wire = talloc_strdup(mem, perm_kinds[matrix[_i].p].name);
	const char *const none[] = { NULL };
	size_t i;

	*strchrnul((char *)wire, '_') = strchr(wire, '_') ? '.' : '\0';
	for (i = 0; i < nitems(roles); i++) {
		const char *const scopes[] = { "other.thing", wire, NULL };
		struct principal p = { .type = CALLER_KEY,
			.key = &an_id,
			.user = &an_id,
			.team = &an_id,
			.role = roles[i],
			.platform_role = "admin",
			.scopes = none };
		bool own;

		ck_assert_int_eq(allowed(&p, matrix[_i].p), ALLOW_NO);
		p.scopes = NULL;
		ck_assert_int_eq(allowed(&p, matrix[_i].p), ALLOW_NO);
		p.scopes = scopes;
		ck_assert_int_eq(allowed(&p, matrix[_i].p) != ALLOW_NO,
		    role_holds(roles[i], matrix[_i].p, &own));
	}
	ck_assert_int_eq(perm_kinds[matrix[_i].p].scope != NO_KEY, matrix[_i].scope);
	ck_assert_int_eq(perm_find(wire), matrix[_i].p);
	ck_assert_int_eq(perm_find(talloc_asprintf(mem, "team.%s", wire)), matrix[_i].p);
}
END_TEST

START_TEST(whole_matrix)
{
	ck_assert_int_eq(nitems(matrix), PERM__MAX - HOST_TOKEN - 1);
	ck_assert_int_eq(perm_find("no.such"), PERM__MAX);
	ck_assert_int_eq(perm_find(""), PERM__MAX);
	ck_assert_int_eq(perm_find("capsules.views"), PERM__MAX);
	ck_assert_int_eq(perm_find("host"), PERM__MAX);
}
END_TEST

START_TEST(unknown_role)
{
	struct principal p = { .type = CALLER_USER,
		.user = &an_id,
		.team = &an_id,
		.role = "root",
		.platform_role = "user" };
	enum perm perm;
	bool own;

	for (perm = HOST_TOKEN + 1; perm < PERM__MAX; perm++) {
		ck_assert_int_eq(allowed(&p, perm), ALLOW_NO);
		ck_assert(!role_holds(NULL, perm, &own));
		ck_assert(!role_holds("", perm, &own));
	}
}
END_TEST

/* The rows that are no team permissions: caller by caller. */
START_TEST(callers)
{
	struct principal none = { .platform_role = "user" };
	struct principal host = { .type = CALLER_HOST, .host = &an_id, .platform_role = "user" };
	struct principal key = { .type = CALLER_KEY,
		.key = &an_id,
		.team = &an_id,
		.role = "owner",
		.platform_role = "admin" };
	struct principal user = { .type = CALLER_USER, .user = &an_id, .platform_role = "user" };
	struct principal operator= {
		.type = CALLER_USER, .user = &an_id, .platform_role = "operator"
	};
	struct principal admin = { .type = CALLER_USER, .user = &an_id, .platform_role = "admin" };
	/* a team's own hosts: its owners and administrators, with their own login */
	struct principal owner = { .type = CALLER_USER,
		.user = &an_id,
		.team = &an_id,
		.role = "admin",
		.platform_role = "user" };
	struct principal viewer = { .type = CALLER_USER,
		.user = &an_id,
		.team = &an_id,
		.role = "viewer",
		.platform_role = "user" };
	const struct {
		const struct principal *p;
		const char *may; /* ANYONE … HOST_TOKEN */
	} want[] = { { &none, "y........" }, { &host, "y.......y" }, { &key, "y.y......" },
		{ &user, "yyy......" },
		{ &operator, "yyyy.y..." }, { &admin, "yyyyyyy.." }, { &viewer, "yyy....y." } };
	enum perm perm;
	size_t i;

	for (i = 0; i < nitems(want); i++)
		for (perm = ANYONE; perm <= HOST_TOKEN; perm++)
			ck_assert_msg(
			    (allowed(want[i].p, perm) == ALLOW_ALL) == (want[i].may[perm] == 'y'),
			    "caller %zu, %s", i, perm_kinds[perm].name);
	ck_assert_int_eq(allowed(&owner, HOSTS_OPERATE), ALLOW_OWN);
	ck_assert_int_eq(allowed(&owner, HOSTS_ADMIN), ALLOW_OWN);
	owner.platform_role = "operator";
	ck_assert_int_eq(allowed(&owner, HOSTS_OPERATE), ALLOW_ALL);
	ck_assert_int_eq(allowed(&owner, HOSTS_ADMIN), ALLOW_OWN);
	ck_assert_int_eq(allowed(&viewer, HOSTS_OPERATE), ALLOW_NO);
	ck_assert_int_eq(allowed(&viewer, HOSTS_ADMIN), ALLOW_NO);
	for (perm = HOST_TOKEN + 1; perm < PERM__MAX; perm++) {
		ck_assert_int_eq(allowed(&none, perm), ALLOW_NO);
		ck_assert_int_eq(err.code, E_UNAUTHORIZED);
		ck_assert_int_eq(allowed(&host, perm), ALLOW_NO);
		ck_assert_int_eq(
		    allowed(&admin, perm), ALLOW_NO); /* the platform's admin is in no team */
	}
}
END_TEST

START_TEST(listed)
{
	const char *const scopes[] = { "capsules.view", "keys.manage", NULL };
	struct principal p = {
		.type = CALLER_USER, .user = &an_id, .team = &an_id, .role = "viewer"
	};
	const char *const *list = principal_permissions(mem, &p);

	ck_assert_str_eq(list[0], "view");
	ck_assert_str_eq(list[1], "capsules.view");
	ck_assert_str_eq(list[3], "quota.view");
	ck_assert_ptr_null(list[4]);
	p.type = CALLER_KEY;
	p.scopes = scopes;
	list = principal_permissions(mem, &p);
	ck_assert_str_eq(list[0], "capsules.view");
	ck_assert_ptr_null(list[1]);
	p.team = NULL;
	ck_assert_ptr_null(principal_permissions(mem, &p)[0]);
}
END_TEST

Suite *
principal_suite(void)
{
	TCase *c;
	Suite *s = suite_new("principal", &c);

	tcase_add_loop_test(c, users, 0, nitems(matrix));
	tcase_add_loop_test(c, keys, 0, nitems(matrix));
	tcase_add_test(c, whole_matrix);
	tcase_add_test(c, unknown_role);
	tcase_add_test(c, callers);
	tcase_add_test(c, listed);
	return s;
}
