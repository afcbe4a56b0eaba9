/* signed.h - GET or POST /files?signature=… that names no capsule (spec 06 §11.3): it is the one
 * whose token makes this signature. */
#pragma once
#include "request.h"

bool is_signed_url(struct request *);
void signed_request(struct request *);
