/* utf8.h - is it UTF-8 (RFC 3629: no overlong forms, no surrogates)? */
#pragma once
#include <stdbool.h>
#include <stddef.h>

bool utf8_ok(const char *, size_t);
/* The length without a character that the end cuts off; n when there is none. */
size_t utf8_whole(const char *, size_t n);
struct buf;
/* Appends it; what is no UTF-8 becomes U+FFFD. */
void utf8_mend(struct buf *, const char *, size_t);
