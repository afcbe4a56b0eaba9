/*
 * disk.h - the writable disks of capsules: empty qcow2 overlays, and what room the file system has.
 */
#pragma once
#include "err.h"
#include <stdint.h>

/*
 * Writes an empty qcow2 (version 3, 64 KiB clusters in 32 parts) of `size` bytes into the new,
 * empty file fd: four clusters of metadata, no process started. What the overlay lies on is said to
 * QEMU explicitly; `backing` (NULL: none) is only noted in the header, for people with qemu-img.
 */
int disk_overlay(int fd, uint64_t size, const char *backing, struct err *);

/* The virtual size of a qcow2 file. */
int disk_size(int fd, uint64_t *ret, struct err *);

/* Bytes free to us and bytes in all on the file system of dir. */
int disk_room(const char *dir, uint64_t *ret_free, uint64_t *ret_total, struct err *);
