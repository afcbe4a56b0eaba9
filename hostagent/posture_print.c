/* posture_print.c - the posture as a table for people, or as JSON. */
#include "buf.h"
#include "cleanup.h"
#include "posture.h"

enum { STATUS_WARN = 3, STATUS_FAIL = 4 };

static const char *const levels[] = { "ok", "warn", "fail" };

static void
print_json(const struct posture *p, enum posture_level worst)
{
	auto_talloc char *mem = talloc_new(NULL);
	struct buf b = BUF(mem);
	int i;

	buf_fmt(&b, "{\"level\":\"%s\",\"points\":[", levels[worst]);
	for (i = 0; posture_points[i].name; i++) {
		buf_fmt(&b, "%s\n{\"name\":\"%s\",\"level\":\"%s\",\"reason\":", i ? "," : "",
		    posture_points[i].name, levels[p->point[i].level]);
		buf_json(&b, p->point[i].why);
		buf_str(&b, ",\"next\":");
		buf_json(&b, *p->point[i].next ? p->point[i].next : NULL);
		buf_chr(&b, '}');
	}
	buf_str(&b, "\n]}\n");
	fputs(b.data, stdout);
}

static void
print_table(const struct posture *p)
{
	int i;

	for (i = 0; posture_points[i].name; i++) {
		printf("%-10s %-5s %s\n", posture_points[i].name, levels[p->point[i].level],
		    p->point[i].why);
		if (*p->point[i].next)
			printf("%-10s       -> %s\n", "", p->point[i].next);
	}
}

int
posture_print(const struct conf *k, bool json)
{
	static struct posture p;
	enum posture_level worst = POSTURE_OK;
	int i;

	posture_look(k, "hutch-check", false, &p);
	for (i = 0; posture_points[i].name; i++)
		if (p.point[i].level > worst)
			worst = p.point[i].level;
	if (json)
		print_json(&p, worst);
	else
		print_table(&p);
	return worst == POSTURE_OK ? 0 : worst == POSTURE_WARN ? STATUS_WARN : STATUS_FAIL;
}
