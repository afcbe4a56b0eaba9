/* main.c - hutch-worker: does what may be slow or must be repeated (spec 04 §2). */
#include "worker.h"
#include "log.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage_text[] =
    "usage: hutch-worker [-n] [-c FILE] | -T jobs | -V | --help\n"
    "  -c FILE  configuration (" SYSCONFDIR "/hutch/hutch.conf)\n"
    "  -n       check the configuration and end\n"
    "  -T jobs  print queues, kinds of jobs and timers\n"
    "SIGTERM: finish the running jobs, then end. SIGHUP: read the configuration again.\n";

static void
print_jobs(void)
{
	const struct job_queue *q;
	const struct job_kind_row *k;
	const struct job_timer *t;

	printf("| queue | work | per team | drain |\n| --- | --- | --- | --- |\n");
	for (q = job_queues; q->name; q++)
		printf("| %s | %s | %d | %d s |\n", q->name, q->doc, q->per_team, q->drain_sec);
	printf("\n| kind | queue | tries | deadline | does | here |\n| --- | --- | --- | --- | --- "
	       "| --- |\n");
	for (k = job_kind_rows; k->name; k++)
		printf("| %s | %s | %d | %d s | %s | %s |\n", k->name, k->queue, k->tries,
		    k->deadline_sec, k->doc, job_kind(k->name) ? "yes" : "no");
	printf("\n| timer | every |\n| --- | --- |\n");
	for (t = job_timers; t->kind; t++)
		printf("| %s | %d s |\n", t->kind, t->period_sec);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
	const char *path = SYSCONFDIR "/hutch/hutch.conf";
	const struct conf *conf;
	struct err e = { 0 };
	bool check = false;
	sigset_t early;
	int c, rc;

	/* a SIGHUP that comes before the parent is ready for it waits, and does not end us */
	sigemptyset(&early);
	sigaddset(&early, SIGHUP);
	sigprocmask(SIG_BLOCK, &early, NULL);
	log_open("worker", LOG_LEVEL_INFO);
	while ((c = getopt_long(argc, argv, "c:nT:Vh", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			path = optarg;
			break;
		case 'n':
			check = true;
			break;
		case 'T':
			if (strcmp(optarg, "jobs") != 0) {
				fputs(usage_text, stderr);
				return 2;
			}
			print_jobs();
			return 0;
		case 'V':
			puts("hutch-worker " PACKAGE_VERSION);
			return 0;
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		default:
			fputs(usage_text, stderr);
			return 2;
		}
	}
	conf = conf_load(NULL, path, &e);
	if (!conf) {
		fprintf(stderr, "hutch-worker: %s\n", e.text);
		return 1;
	}
	rc = check ? 0 : parent_main(path, conf);
	talloc_free((void *)conf);
	return rc;
}
