/*
 * init.h - the first process of the machine: from the kernel's hand-over to a usable Linux.
 *
 * Only called as pid 1. What fails is told to the kernel log (console) and gone past where
 * possible; without a root file system the machine powers off.
 */
#pragma once
#include "err.h"

#include <stdbool.h>
#include <stdint.h>

/* Initramfs stage: modules, disks, overlay, new root. Does nothing when there is no /m/order. */
void init_root(void);
/* Then: the mounts programs expect, network, limits. */
void init_system(void);
/* Grows the writable file system to its disk's size, after the host made that larger. 1: done, or
   there is none; 0: the disk has less than `least` bytes yet, nothing was done; -1. */
int init_grow(uint64_t least, struct err *);
/* sync, then the machine is off, or asks its host for a new boot. */
void init_end(bool off) __attribute__((noreturn));
