/* sha256.h - SHA-256 (FIPS 180-4) of one text; a static program without a library for it. */
#pragma once
#include <stddef.h>
#include <stdint.h>

void sha256(const void *, size_t, uint8_t digest[32]);
