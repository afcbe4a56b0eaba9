/* migration.h - the numbered files of sql/migrations, compiled in. */
#pragma once

struct migration {
	int number;
	const char *name; /* of the file */
	const char *text;
};
extern const struct migration migrations[]; /* ends with number 0 */
