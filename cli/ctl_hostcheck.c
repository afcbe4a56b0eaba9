/* ctl_hostcheck.c - hutchctl hostcheck: what this machine gives to keep capsules apart. */
#include "buf.h"
#include "cleanup.h"
#include "ctl.h"
#include "posture.h"

#include <string.h>

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

/* Looks only: what it tries out is gone when it ends. Exit status: 0 all well, 3 warnings, 4 worse. */
int
ctl_hostcheck(struct ctl *c)
{
	static struct posture p;
	enum posture_level worst = POSTURE_OK;
	const char *json = ctl_option(c, "json");
	int i;

	if (ctl_done(c) < 0)
		return -1;
	posture_look(c->conf, "hutch-check", false, &p);
	for (i = 0; posture_points[i].name; i++)
		if (p.point[i].level > worst)
			worst = p.point[i].level;
	if (json) {
		print_json(&p, worst);
	} else
		for (i = 0; posture_points[i].name; i++) {
			printf("%-10s %-5s %s\n", posture_points[i].name, levels[p.point[i].level],
			    p.point[i].why);
			if (p.point[i].level != POSTURE_OK && *p.point[i].next)
				printf("%-10s       -> %s\n", "", p.point[i].next);
		}
	return worst == POSTURE_OK ? 0 : worst == POSTURE_WARN ? 3 : 4;
}
