/* upload.h - files on their way in: written beside the target, renamed when complete. */
#pragma once
#include "call.h"
#include "gzip.h"
#include <sys/types.h>

enum { UPLOAD_FILES_MAX = 1000 };

/* The temporary name: this, 16 hexadecimal digits, n for a new file or r for one that replaces
   another. Who watches the directory sees the file itself appear or be written. */
#define UPLOAD_PREFIX ".hutch-"
enum { UPLOAD_NAME = 7 + 16 + 1 };

/* One file on its way. */
struct incoming {
	int fd; /* -1: none */
	char *target, *temporary;
	mode_t mode;
	bool replaces; /* there is such a file */
};

struct upload {
	struct call *call;
	struct user *user, *owner; /* owner: NULL, the user */
	struct multipart *parts;   /* NULL: the body is the file */
	struct gzip *gzip;         /* NULL: the body is as it is */
	const char *path;          /* as asked, or NULL */
	int64_t mode, mtime;       /* -1: not said */
	bool if_absent;
	struct incoming file;
	struct buf answer;
	char *done[UPLOAD_FILES_MAX]; /* targets of this call, to refuse the same twice */
	size_t ndone;
};

/* A child of the call; freed: what is not complete is gone. */
struct upload *upload_new(struct call *);
/* path: as the caller named it. */
int incoming_begin(struct upload *, const char *path, struct err *);
/* Its place and mode; appends {"name","path","type","metadata"?} to the answer. */
int incoming_end(struct upload *, struct err *);
void incoming_drop(struct upload *);
/* errno of a write. */
int incoming_refuse(struct err *);
