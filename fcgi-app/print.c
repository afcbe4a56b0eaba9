/* print.c - see print.h. */
#include "print.h"
#include "conf.h"
#include "request.h"
#include "route_print.h"

#include <stdio.h>
#include <string.h>

static void
errors(void)
{
	static const char *const class_name[] = { [PERMANENT] = "permanent",
		[TRANSIENT] = "transient",
		[THROTTLED] = "throttled",
		[BUSY] = "busy" };
	int i;

	for (i = 1; i < E__MAX; i++)
		printf("*%s* (%d, %s)\n\t%s.\n\n", err_kinds[i].slug, err_kinds[i].http,
		    class_name[err_kinds[i].class], err_kinds[i].text);
}

bool
print_topic(const char *topic)
{
	if (route_print(route_tables, topic))
		return true;
	if (strcmp(topic, "errors") == 0)
		errors();
	else if (strcmp(topic, "conf") == 0)
		conf_print_sample();
	else if (strcmp(topic, "man") == 0)
		conf_print_man();
	else
		return false;
	return true;
}
