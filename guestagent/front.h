/*
 * front.h - HTTP/1.1 on a TCP port in front of the same calls, so that clients can drive the
 * protocol without a machine. Only in the test program: the product speaks HTTP/2 on its port.
 */
#pragma once
#include "err.h"

/* 127.0.0.1 only. token: added to requests without one and without a signature; NULL: none. */
int front_listen(int port, const char *token, struct err *);
/* Carries what sessions have to say; after every round of events. */
void front_flush_all(void);
