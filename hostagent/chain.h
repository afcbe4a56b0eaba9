/*
 * chain.h - the disks of a capsule: the one it writes, and what lies below it down to the template.
 *
 * A layer is an artifact (its disk.qcow2), or a file of the VM's folder that a snapshot which did
 * not end left behind. All of them are qcow2 and sealed; the lowest lies on the template's
 * upper.qcow2.
 */
#pragma once
#include "agent.h"
#include "json.h"

enum { LAYERS_MAX = 20, LAYERS_GOOD = 8, LAYER_NAME = 65 };

struct chain {
	unsigned active; /* number of the file that is written: disk.qcow2, disk-1.qcow2, … */
	size_t layers;
	char layer[LAYERS_MAX][LAYER_NAME]; /* the lowest first */
};

/* "disk.qcow2" or "disk-N.qcow2"; "d1" or "d1-N", its block node. */
const char *chain_file(unsigned n, char ret[LAYER_NAME]);
const char *chain_node(unsigned n, char ret[LAYER_NAME]);
/* One more layer on top. -1: E_OVERLOADED, it is too deep. */
int chain_push(struct chain *, const char *layer, struct err *);
/* Opens all layers, read only; -1 and none is open. folder: of the VM. */
int chain_open(const struct chain *, int state, int folder, int ret[LAYERS_MAX], struct err *);
/* Members of a journal record: "layers":[…],"active":N. */
void chain_json(const struct chain *, struct buf *);
void chain_read(struct chain *, struct json_object *);
/* The chain of a disk artifact: it and all its parents, each verified once. Blocks. */
int chain_of_artifact(struct chain *, int state, const char *id, struct err *);
