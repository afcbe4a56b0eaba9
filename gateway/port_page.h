/* port_page.h - the answers of the data plane itself, when no capsule answers: JSON, or a small
 * page for browsers. */
#pragma once
#include "port_access.h"

enum page_code {
	PAGE_NOT_FOUND,
	PAGE_CLOSED,
	PAGE_PAUSED,
	PAGE_STARTING,
	PAGE_NO_HOST,
};

/* In the words of E2B's clients (spec 06 §5) when the place is bare, else in ours (02 §2.8). */
void page_reply(struct request *, const struct port_place *, enum page_code);
/* The door's answer, unless it is open. */
void page_door(struct request *, const struct port_place *, const struct door *);
/* {"code":401,"message":…}: as a guest agent says it. */
void page_guest(struct request *, int status, const char *message);
/* An error of ours, as JSON or page. */
void page_fail(struct request *, const struct port_place *, enum err_code, const char *text);
