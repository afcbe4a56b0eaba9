/*
 * qemu.h - QEMU's command line: one machine shape, the same for making, booting and cloning.
 */
#pragma once
#include "agent.h"
#include "priv.h"

/* The network card of every guest: part of the memory image, so equal in all; each has its own
 * network. */
#define QEMU_MAC "52:54:00:12:34:56"

/* What a process is made of; descriptors stay the caller's. */
struct qemu {
	const char *name; /* after "hutch-<instance>-" */
	const struct template *t;
	enum accel accel;
	int vcpus, memory_mb;
	int memory;             /* sealed memory file to map privately, or -1: empty memory */
	int qmp, guest, serial; /* listening sockets */
	int disk;               /* the VM's own overlay, read and write */
	const int *layer;       /* what lies between overlay and upper.qcow2, the lowest first */
	size_t layers;
	const char *node; /* name of the overlay's block node */
	bool incoming;    /* the state comes by migration: no kernel is booted */
	uid_t uid;
	int log;
};

/* Fills argv and descriptors of a spawn record. */
void qemu_command(const struct agent *, const struct qemu *, void *mem, struct priv_spawn *ret);

/* What its cage is made for. */
struct cage_size qemu_size(int vcpus, int memory_mb, enum accel);

/* A word that changes when a memory image made before does not fit any more. */
const char *qemu_machine(const struct agent *, void *mem, int vcpus, int memory_mb);

/* The word alone that names devices, their order and the machine's options. */
const char *qemu_model(void);

/* "QEMU emulator version 7.2.22 (...)": the part behind "version", for the image's key. */
int qemu_version(const char *program, char *ret, size_t len, struct err *);

/* kHz of the time stamp counter, measured for 50 ms; 0 where there is none. */
unsigned long tsc_khz(void);
