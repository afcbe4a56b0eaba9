/* guest_pass.h - the guest protocol from outside (spec 06 §3, §4): port 49983 in the form of E2B's
 * clients. What comes is passed to the guest agent as it is, both ways, byte by byte. */
#pragma once
#include "port_access.h"

void guest_pass(struct request *, const struct port_place *);
/* GET or POST /files with a signature that names no capsule (signed.c found it). */
void guest_pass_signed(struct request *, const struct port_place *);
