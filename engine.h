/* SPDX-License-Identifier: BSD-2-Clause */
/* Asynchronous operations on the disk, each carried on until complete. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

struct disk;
struct grants;

enum engine_opcode {
	ENGINE_READ,
	ENGINE_WRITE,
	ENGINE_FLUSH,	 /* fdatasync() */
	ENGINE_ALLOCATE, /* fallocate() */
	ENGINE_DISCARD,	 /* BLKDISCARD, of a device; holds up all else */
};

struct engine_op {
	/* In; the last four change during execution. */
	enum engine_opcode opcode;
	int mode;	    /* of fallocate() */
	uint64_t offset;    /* in the disk, in bytes */
	uint64_t remaining; /* bytes; of data, less than 4 GiB */
	struct iovec *data; /* iovecs, the caller's */
	unsigned segments;  /* number of iovecs */
	uint8_t *status;    /* the caller's, NULL: not in flight; or: */

	/* The outcome: */
	uint64_t done;	     /* bytes transferred */
	int error;	     /* 0, or errno: then 'offset' is where */
	bool status_written; /* as 0, with the last data read */

	/* The rest is engine.c's, and 'link' the caller's before and after. */
	STAILQ_ENTRY(engine_op) link;
	unsigned retries;
	bool sync;	     /* without io_uring, which cannot do it */
	bool force_buffered; /* buffered I/O, after EINVAL from O_DIRECT */
	bool direct;	     /* submitted as O_DIRECT */
	struct iovec bounce; /* by way of this memory; or NULL */
};
STAILQ_HEAD(engine_ops, engine_op);

/*
 * For 'max' operations at a time on the caller's disk, with data that are in
 * 'grants', or in memory (NULL).  NULL: failed.
 */
struct engine *engine_open(
    const struct disk *disk, unsigned max, struct grants *grants);

/* The first 'done' bytes of data have been transferred, to 'offset'. */
void engine_advance(struct engine_op *op, uint64_t done);

/* Queue an operation for engine_reap().  Submit all with one system call. */
void engine_start(struct engine *engine, struct engine_op *op);
void engine_kick(struct engine *engine);

/* Whether engine_kick() has used up its budget and has more to submit. */
bool engine_pending(const struct engine *engine);

/* Whether the host is short of memory for I/O: kick again in a while. */
bool engine_starved(const struct engine *engine);

/* A completed operation, or NULL.  Never blocks. */
struct engine_op *engine_reap(struct engine *engine);

/* Readable (POLLIN) when there are completions. */
int engine_fd(const struct engine *engine);

/* Keep 'fd' open until the last I/O is over, even if killed.  False: failed. */
bool engine_retain(struct engine *engine, int fd);

/* Wait for operations in flight, and close the files at once. */
void engine_close(struct engine *engine);
