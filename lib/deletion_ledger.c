/* deletion_ledger.c - see deletion_ledger.h. */
#include "deletion_ledger.h"
#include "db.h"

#include <stdlib.h>
#include <string.h>
#include <talloc.h>

struct ledger_row {
	enum audit_kind kind;
	struct audit row;
	size_t at; /* rows of one team stay in their order */
};

void
ledger_add(struct ledger *l, enum audit_kind kind, const struct uuid *team, const char *resource_id,
    const struct uuid *subject, const char *metadata)
{
	l->rows = talloc_realloc(l->w->db->mem, l->rows, struct ledger_row, l->n + 1);
	l->rows[l->n] = (struct ledger_row){ kind,
		{ .team = team,
		    .resource_id = resource_id,
		    .subject = subject,
		    .metadata = metadata },
		l->n };
	l->n++;
}

static int
by_team(const void *a, const void *b)
{
	const struct ledger_row *x = a, *y = b;
	int c = memcmp(x->row.team->b, y->row.team->b, sizeof x->row.team->b);

	return c ? c : x->at < y->at ? -1 : 1;
}

int
ledger_write(struct ledger *l)
{
	size_t i;

	if (l->n)
		qsort(l->rows, l->n, sizeof *l->rows, by_team);
	for (i = 0; i < l->n; i++)
		if (audit_add(l->w, l->rows[i].kind, &l->rows[i].row) < 0)
			return -1;
	return 0;
}
