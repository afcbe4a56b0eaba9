/* unit.h - the suites of tests/unit, one per file of lib/, and what they share. */
#pragma once
#include <check.h>
#include <talloc.h>

/* A talloc context of the running test, freed behind it; an unset error. */
extern void *mem;
extern struct err err;
void setup(void);
void teardown(void);

/* A suite with one test case that has the fixture above. */
Suite *suite_new(const char *name, TCase **ret);

/* A file of the test's own with this text; its path. Removed when mem is freed. */
const char *file_with(const char *text, unsigned mode);

/* What print(arg) writes to the standard output. */
const char *printed_by(void (*print)(const void *), const void *arg);

Suite *buf_suite(void);
Suite *conf_suite(void);
Suite *cron_suite(void);
Suite *crypto_suite(void);
Suite *event_suite(void);
Suite *field_suite(void);
Suite *http_suite(void);
Suite *id_suite(void);
Suite *json_suite(void);
Suite *metric_range_suite(void);
Suite *mustache_suite(void);
Suite *oidc_suite(void);
Suite *password_suite(void);
Suite *principal_suite(void);
Suite *route_suite(void);
Suite *tls_suite(void);
Suite *token_suite(void);
Suite *totp_suite(void);
