/* identity.h - the message that gives a guest its identity (POST /init, spec 06 §11.2). */
#pragma once
#include "buf.h"
#include "json.h"

struct identity {
	int64_t epoch;
	const char *token, *user, *workdir, *hostname;
	const char *machine_id;                /* 32 hex digits */
	const char *capsule, *template, *team; /* ids, or NULL */
	struct json_object *envs;              /* NULL: none */
	uint64_t disk_size;                    /* bytes; 0: not told */
	bool keep;  /* a resume: what is NULL stays as it is in the guest */
	bool other; /* the memory was another capsule's */
};

/* Appends the JSON: with the present time and 64 fresh random bytes. */
void identity_json(struct buf *, const struct identity *);

/* The same for a guest that is nobody yet (a template, a clone of the pool): epoch 0, a name and a
   token (returned, 32 digits) that its capsule's init, of a higher epoch, replaces. */
void identity_rehearsal(struct buf *, const char *user, const char *workdir, char token[33]);

/* 2n hex digits of n random bytes, and NUL. */
void random_hex(char *ret, size_t n);
