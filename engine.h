/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asynchronous operations on the disk's bytes, each of them to its end.  Knows
 * nothing of virtio.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

struct disk;
struct engine;

enum engine_what {
	ENGINE_READ,
	ENGINE_WRITE,
	ENGINE_FLUSH,	 /* fdatasync() */
	ENGINE_ALLOCATE, /* fallocate() */
	ENGINE_DISCARD,	 /* BLKDISCARD, of a device; holds up all else */
};

struct engine_op {
	/* The caller's; the last four change meanwhile. */
	enum engine_what what;
	int mode;	    /* of fallocate() */
	uint64_t offset;    /* in the disk, in bytes */
	uint64_t left;	    /* as many bytes; of data, less than 4 GiB */
	struct iovec *data; /* ... in these, which are the caller's, too */
	unsigned segments;  /* ... as many iovecs */

	/* The outcome: */
	uint64_t done; /* bytes transferred */
	int error;     /* 0, or errno: then 'offset' is where */

	/* The rest is engine.c's, and 'link' the caller's before and after. */
	STAILQ_ENTRY(engine_op) link;
	unsigned retries;
	bool sync;    /* io_uring cannot do it: it is done at once */
	bool cached;  /* the kernel refuses it without the page cache */
	bool direct;  /* the kernel has it so: */
	char *buffer; /* by way of this memory; or NULL */
	uint32_t len; /* ... as many bytes */
};
STAILQ_HEAD(engine_ops, engine_op);

/*
 * Set up the execution of at most 'max' operations at a time on 'disk', which
 * stays the caller's.  NULL on failure, which has been logged to 'disk->log'.
 */
struct engine *engine_open(const struct disk *disk, unsigned max);

/*
 * Start an operation.  It reaches the kernel at the next engine_kick(), many
 * with one system call, and comes back by engine_reap().
 */
void engine_start(struct engine *engine, struct engine_op *op);
void engine_kick(struct engine *engine);

/*
 * Whether engine_kick() has left something that it can go on with at once: it
 * does not do everything in one go, so that there is time for other things.
 */
bool engine_pending(const struct engine *engine);

/*
 * An operation that is over; NULL if there is none at the moment.  Never waits.
 */
struct engine_op *engine_reap(struct engine *engine);

/* Readable (POLLIN) when the kernel has finished something. */
int engine_fd(const struct engine *engine);

/*
 * Keep 'fd' open until the last operation is over, even if this process is
 * killed before; once.  False on failure, which has been logged.
 */
bool engine_retain(struct engine *engine, int fd);

/*
 * Let go of the disk and of 'fd', which io_uring would do only some time after
 * the end of this process.  What is under way is waited for.
 */
void engine_close(struct engine *engine);

#endif
