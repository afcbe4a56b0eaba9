/* conf.c - lib/conf.c: the configuration file, its errors, its sample. */
#include "conf.h"
#include "cleanup.h"
#include "unit.h"

#include <string.h>

/* Braces in strings and remarks are none. */
static const char braces[] = "auth { # {{\n signup = \"{\\\"{\" }\nmail { from = 'it {' }\n";

static const struct conf *
load(const char *text)
{
	return conf_load(mem, file_with(text, 0600), &err);
}

START_TEST(defaults)
{
	const struct conf *c = conf_load(mem, NULL, &err);

	ck_assert_msg(c, "%s", err.text);
	ck_assert_int_eq(c->auth_access_ttl, 3600);
	ck_assert_str_eq(c->auth_signup, "open");
	ck_assert(c->auth_rate_limits);
}
END_TEST

START_TEST(settings)
{
	const struct conf *c = load(
	    "# remark\nhttp { public_url = \"https://x.example\" }\nauth {\n\trate_limits = false\n"
	    "\taccess_ttl = 60\n}\nmail { link_query = on }\n");

	ck_assert_msg(c, "%s", err.text);
	ck_assert_str_eq(c->http_public_url, "https://x.example");
	ck_assert(!c->auth_rate_limits);
	ck_assert(c->mail_link_query);
	ck_assert_int_eq(c->auth_access_ttl, 60);
	ck_assert_int_eq(c->auth_password_min, 8);
}
END_TEST

/* clang-format off */
static const struct {
	const char *text, *says;
} wrong[] = {
	{ "auth { acces_ttl = 60 }", "\"access_ttl\"" },
	{ "http { public_uri = \"x\" }", "\"public_url\"" },
	{ "gatewy { socket = \"x\" }", "\"gateway\"" },
	{ "\n\nauth {\n\tsign_up = \"open\"\n}", ":4:" },
	{ "nonsense = 1", "nonsense" },
	{ "auth { access_ttl = 59 }", "not between 60 and 86400" },
	{ "auth { access_ttl = 86401 }", "auth.access_ttl" },
	{ "auth { access_ttl = -1 }", "not between" },
	{ "auth { access_ttl = \"x\" }", "access_ttl" },
	{ "auth { access_ttl = 99999999999999999999 }", "access_ttl" },
	{ "auth { rate_limits = maybe }", "rate_limits" },
	{ "auth access_ttl = 60 }", "" },
	{ "auth { access_ttl = 60", "} is missing" },
	{ "auth { signup = \"}\" # }\n", "} is missing" },
	{ "}", "" },
};
/* clang-format on */

START_TEST(refuses)
{
	ck_assert_msg(!load(wrong[_i].text), "%s was taken", wrong[_i].text);
	ck_assert_int_eq(err.code, E_CONFIG);
	ck_assert_msg(strstr(err.text, wrong[_i].says), "%s: %s", wrong[_i].text, err.text);
}
END_TEST

START_TEST(takes_braces)
{
	const struct conf *c = load(braces);

	ck_assert_msg(c, "%s", err.text);
	ck_assert_str_eq(c->auth_signup, "{\"{");
}
END_TEST

START_TEST(no_file)
{
	ck_assert_ptr_null(conf_load(mem, "/nonexistent/hutch.conf", &err));
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/hutch.conf"));
}
END_TEST

static void
print_sample(const void *arg)
{
	(void)arg;
	conf_print_sample();
}

static void
print_man(const void *arg)
{
	(void)arg;
	conf_print_man();
}

/* The sample is a configuration, as it is and with every setting's remark sign taken away. */
START_TEST(sample)
{
	char *text = talloc_strdup(mem, printed_by(print_sample, NULL)), *p, *eq, *end;
	const struct conf *plain = load(text), *full, *dflt = conf_load(mem, NULL, &err);

	ck_assert_msg(plain, "%s", err.text);
	for (p = text; (p = strstr(p, "\t# ")); p++) {
		end = strchrnul(p, '\n');
		eq = strstr(p, " = ");
		/* a setting's line: one word, then its value */
		if (eq && eq < end && !memchr(p + 3, ' ', eq - p - 3))
			p[1] = ' ';
	}
	full = load(text);
	ck_assert_msg(full, "%s in %s", err.text, text);
	ck_assert_int_eq(full->auth_access_ttl, dflt->auth_access_ttl);
	ck_assert_str_eq(full->mail_templates, dflt->mail_templates);
	ck_assert_int_eq(full->auth_rate_limits, dflt->auth_rate_limits);
}
END_TEST

START_TEST(man)
{
	const char *text = printed_by(print_man, NULL);

	ck_assert_ptr_nonnull(strstr(text, "## auth\n"));
	ck_assert_ptr_nonnull(strstr(text, "*access_ttl*"));
}
END_TEST

Suite *
conf_suite(void)
{
	TCase *c;
	Suite *s = suite_new("conf", &c);

	tcase_add_test(c, defaults);
	tcase_add_test(c, settings);
	tcase_add_loop_test(c, refuses, 0, nitems(wrong));
	tcase_add_test(c, takes_braces);
	tcase_add_test(c, no_file);
	tcase_add_test(c, sample);
	tcase_add_test(c, man);
	return s;
}
