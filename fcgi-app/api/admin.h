/* admin.h - what the routes of platform administration share (spec 01 §2.8). */
#pragma once
#include "admin.q.h"
#include "api.h"
#include "deletion.h"

/* Pages of 100: by number up to 100, beyond only by cursor. */
enum { ADMIN_PAGE = 100 };
struct admin_page {
	struct page key;
	int32_t number, skip;
};
/* text: ?page as it came; whatever is none counts as 1. */
int admin_page_read(struct request *, const char *text, const char *cursor, struct admin_page *);
/* Rows of the page (the query was asked for one more), and how many pages there are. */
int admin_rows(const struct admin_page *, int n);
int64_t admin_pages(int64_t total);

/* The caller as the one who acts, under his name in guards and audit rows. */
struct deletion admin_acts(struct request *);
/* The job that a deletion added, for clients that want to see its end. */
void admin_job(struct request *, int n, const struct uuid *job);
