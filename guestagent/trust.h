/* trust.h - certificates that programs in the machine trust, beside those of its image. */
#pragma once
#include "err.h"

/* pem (NULL: none) takes the place of what was set before: at the end of the bundle
   /etc/ssl/certs/ca-certificates.crt, and where update-ca-certificates finds it. */
int trust_set(const char *root, const char *pem, struct err *);
/* Is it a list of certificates, and nothing else? */
int trust_check(const char *pem, struct err *);
