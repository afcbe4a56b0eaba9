/*
 * reset.h - connections of another machine's memory: in a fork their other ends talk to the parent.
 *
 * All TCP connections whose other end is outside are reset, whoever holds them, also frozen ones;
 * those within the machine stay.
 */
#pragma once

void reset_connections(void);
