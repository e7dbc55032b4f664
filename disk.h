/* SPDX-License-Identifier: BSD-2-Clause */
/* The file or block device: how it is opened and locked, and its limits. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* In place of a path: there is no medium.  A file of that name is "./none". */
#define DISK_NONE "none"

/* The unit of virtio-blk, whatever blk_size says (virtio 1.2, 5.2.4). */
#define SECTOR 512

/* Flags of disk_open(). */
enum {
	DISK_READ_ONLY = 1 << 0,
	DISK_NO_LOCK = 1 << 1,	  /* do not lock it */
	DISK_DIRECT = 1 << 2,	  /* also open it with O_DIRECT */
	DISK_NO_DISCARD = 1 << 3, /* report that it cannot */
};

struct disk {
	struct xentoollog_logger *log;
	const char *path; /* the caller's */
	int fd;
	int sync;   /* for fdatasync(): 'fd', or opened before it */
	int direct; /* opened with O_DIRECT, or -1 */
	bool device;
	bool empty; /* DISK_NONE: of size 0 */
	bool read_only;
	bool on_tmpfs; /* a file on tmpfs, without DISK_DIRECT */
	/* All in bytes: */
	uint64_t size;
	uint32_t logical_block;	 /* smallest unit of I/O */
	uint32_t physical_block; /* smallest unit without read-modify-write */
	uint32_t alignment;	 /* first physical block starts here */
	uint32_t io_min;	 /* smallest unit that performs */
	uint32_t io_opt;	 /* best unit, 0 if unknown */
	uint32_t discard_granularity; /* 0: no discard */
	bool discard_only; /* by BLKDISCARD, which need not read as zeroes */
};

/*
 * Open 'path', or DISK_NONE, and fill in *disk.  Unless DISK_NO_LOCK, it stays
 * locked for as long as anybody uses disk->fd, shared for DISK_READ_ONLY; a
 * killed predecessor is waited for.  False on failure, logged to 'log'.
 */
bool disk_open(struct disk *disk, struct xentoollog_logger *log,
    const char *path, unsigned flags);

/* Read the size again.  False: it is not valid, was logged, and stays. */
bool disk_update_size(struct disk *disk);
