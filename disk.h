/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The regular file or block device that holds the disk's bytes: how it is
 * opened and locked, and what the host tells of it.
 */
#ifndef DISK_H
#define DISK_H

#include <stdbool.h>
#include <stdint.h>

struct xentoollog_logger;

/* In place of a path: there is no medium.  A file of that name is "./none". */
#define DISK_NONE "none"

/* The unit of virtio-blk, whatever blk_size says (virtio 1.2, 5.2.4). */
#define SECTOR 512

/* How to open a disk. */
enum {
	DISK_READ_ONLY = 1 << 0,
	DISK_NO_LOCK = 1 << 1,	/* others may use it, too */
	DISK_DIRECT = 1 << 2,	/* without the page cache of the host */
	DISK_NO_HOLES = 1 << 3, /* as if it could not have any */
};

struct disk {
	struct xentoollog_logger *log;
	const char *path; /* the caller's */
	int fd;
	int sync;   /* for fdatasync(): 'fd', or opened before it */
	int direct; /* if DISK_DIRECT: without the page cache; else -1 */
	bool device;
	bool empty; /* DISK_NONE: of size 0 */
	bool read_only;
	bool in_memory; /* ... and nowhere else, on tmpfs */
	/* All in bytes: */
	uint64_t size;
	uint32_t logical;   /* smallest unit of I/O */
	uint32_t physical;  /* smallest unit without read-modify-write */
	uint32_t alignment; /* first physical block starts here */
	uint32_t io_min;    /* smallest unit that performs */
	uint32_t io_opt;    /* best unit, 0 if unknown */
	uint32_t hole;	    /* unit in which it can be given back to the host;
			       0 if it cannot */
	bool discard_only;  /* ... with BLKDISCARD, and may not be zeros then */
};

/*
 * Open 'path', or DISK_NONE, and fill in *disk.  Unless DISK_NO_LOCK, it is
 * locked for as long as it is open, by anybody who uses disk->fd: shared for
 * DISK_READ_ONLY, else exclusive.  Somebody else's lock is waited for until he has had the time to
 * die.  False on failure, which has been logged to 'log'.
 */
bool disk_open(struct disk *disk, struct xentoollog_logger *log,
    const char *path, unsigned how);

/*
 * Look at the size again.  False if it is not one that a disk can have, which
 * has been logged; then disk->size is what it was.
 */
bool disk_measure(struct disk *disk);

#endif
