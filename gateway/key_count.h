/*
 * key_count.h - requests with API keys, counted by key, route and status; written down every 30 s
 * off the loop (lib/key_use.h), and when the process ends.
 */
#pragma once
#include "request.h"

struct gateway;
struct key_count;

struct key_count *key_count_open(void *mem, struct gateway *);
/* The status of the request's answer is known; requests without a good key are not counted. */
void key_count(struct request *);
/* Before the end of the process: waits for the database. */
void key_count_end(struct key_count *);
