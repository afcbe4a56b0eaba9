/* main.c - runs the suites of lib/ in child processes and prints TAP: one line per test. */
#include "unit.h"
#include "cleanup.h"
#include "err.h"

#include <string.h>
#include <sys/stat.h>

void *mem;
struct err err;

static Suite *(*const suites[])(void) = {
	buf_suite,
	json_suite,
	metric_range_suite,
	id_suite,
	field_suite,
	conf_suite,
	cron_suite,
	crypto_suite,
	password_suite,
	token_suite,
	principal_suite,
	mustache_suite,
	event_suite,
	http_suite,
	route_suite,
	oidc_suite,
	totp_suite,
	tls_suite,
};

void
setup(void)
{
	mem = talloc_new(NULL);
	err = (struct err){ 0 };
}

void
teardown(void)
{
	TALLOC_FREE(mem);
}

Suite *
suite_new(const char *name, TCase **ret)
{
	Suite *s = suite_create(name);

	*ret = tcase_create(name);
	tcase_add_checked_fixture(*ret, setup, teardown);
	tcase_set_timeout(*ret, 60);
	suite_add_tcase(s, *ret);
	return s;
}

static int
forget_file(const char **path)
{
	(void)unlink(*path);
	return 0;
}

const char *
file_with(const char *text, unsigned mode)
{
	const char **held = talloc_zero(mem, const char *);
	char *path = talloc_strdup(mem, "/tmp/hutch-unit-XXXXXX");
	auto_fd fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	*held = path;
	talloc_set_destructor(held, forget_file);
	return path;
}

const char *
printed_by(void (*print)(const void *), const void *arg)
{
	const char *path = file_with("", 0600);
	char *text = talloc_zero_size(mem, 100000);
	int saved = dup(STDOUT_FILENO);
	auto_file *f = NULL;

	(void)fflush(stdout);
	ck_assert_ptr_nonnull(freopen(path, "w", stdout));
	print(arg);
	(void)fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	f = fopen(path, "r");
	ck_assert_int_gt(fread(text, 1, 99999, f), 0);
	return text;
}

int
main(void)
{
	SRunner *runner = srunner_create(NULL);
	size_t i;
	int failed;

	for (i = 0; i < nitems(suites); i++)
		srunner_add_suite(runner, suites[i]());
	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
