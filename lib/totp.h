/*
 * totp.h - one-time passwords of authenticator apps (RFC 6238: HMAC-SHA-1, 6 digits, 30 s), and the
 * codes on paper.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TOTP_SECRET = 20, TOTP_PERIOD = 30 };

/* The code of a step (seconds since 1970 / 30), 0 to 999999. */
uint32_t totp_code(const uint8_t secret[TOTP_SECRET], int64_t step);
/*
 * The step that the code belongs to: the present one, the one before or the one after, and later
 * than last_step (a code is good once); 0: none. now is in seconds. The text is exactly 6 digits.
 */
int64_t
totp_find(const uint8_t secret[TOTP_SECRET], const char *code, int64_t now, int64_t last_step);
/* Base32 without padding (RFC 4648), on mem: how apps take the secret. */
const char *totp_base32(void *mem, const uint8_t *, size_t);
/* otpauth://totp/ISSUER:ACCOUNT?secret=…, on mem. */
const char *totp_url(void *mem, const char *issuer, const char *account, const char *secret32);

/* A backup code d-xxxxx-xxxxx: its index and 50 random bits, on mem. */
const char *backup_code_new(void *mem, int index);
/* Its index, or -1 when it is none; the code in its normal form (lower case, no blanks) goes to
 * *normal. */
int backup_code_read(void *mem, const char *text, const char **normal);
