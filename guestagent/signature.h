/* signature.h - signed URLs of /files (spec 06 §11.3). */
#pragma once
#include "call.h"

/* The call's signature is good for its path, direction and user, and not past. -1: c->err. */
int signature_check(struct call *);
