/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio-blk device behind the queue (virtio 1.2, 5.2). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

#include <linux/virtio_blk.h>

#include "disk.h"
#include "engine.h"

#define BLK_REQS   256 /* in flight */
#define BLK_IOVECS 256 /* of one request */
#define BLK_RANGES 32  /* of one discard or write zeroes */

/*
 * One request: 'readable' buffers, then 'writable' ones, which the caller of
 * blk_submit() fills in and keeps mapped until blk_reap() returns the request.
 */
struct blk_req {
	struct engine_op op; /* blk.c's; first, so that it can be cast back */
	uint16_t head;	     /* the caller's, identifies the request */
	uint16_t readable;   /* in: number of iovecs the device may read */
	uint16_t writable; /* in: number of iovecs it may write, after those */
	bool status_only;  /* in: all but the status byte is left out: fail */
	uint32_t written;  /* out: bytes written, counted from the first
			      writable byte without a gap (virtio 2.7.8.2) */

	/* The rest is blk.c's. */
	uint64_t data_in_len; /* writable bytes before the status */
	uint32_t type;	      /* VIRTIO_BLK_T_* */
	uint32_t ranges;      /* of 'range' still to be done */
	struct virtio_blk_discard_write_zeroes range[BLK_RANGES];
	struct iovec iov[BLK_IOVECS];
};

/* What outlives this process, a part of the device's state. */
struct blk_state {
	uint16_t write_through; /* no write-back cache (5.2.6.2): 1, or ... */
#define BLK_CHOSEN 2		/* ... by a driver, which a reset leaves */
	uint16_t flush_failed;	/* 1: and so will all further ones */
};

struct blk {
	struct disk disk;
	struct engine *engine; /* to kick for what was submitted, to poll */
	struct grants *grants; /* that iovecs and status are of; or NULL */
	struct blk_stats {     /* since blk_open() */
		unsigned long long requests; /* completed, with any status */
		unsigned long long errors;   /* ... not VIRTIO_BLK_S_OK */
		unsigned long long flushes;  /* requested */
		unsigned long long read;     /* bytes */
		unsigned long long written;  /* bytes */
	} stats;

	/* The rest is blk.c's. */
	struct blk_state *s;  /* the caller's, see blk_adopt() */
	struct blk_state own; /* ... until then */
	char serial[VIRTIO_BLK_ID_BYTES];
	unsigned inflight;		/* submitted and not reaped */
	unsigned errors;		/* I/O errors since the last message */
	time_t logged;			/* second of the last message */
	struct engine_ops done;		/* completed, not reaped yet */
	struct blk_req *free[BLK_REQS]; /* a stack, for warm caches */
	unsigned nfree;
	struct blk_req req[BLK_REQS];
};

/*
 * Open 'path', which must stay, with 'flags' (DISK_*), and set up asynchronous
 * I/O.  'serial' answers VIRTIO_BLK_T_GET_ID: at most VIRTIO_BLK_ID_BYTES
 * characters.  The iovecs of requests are pointers, or grants of 'grants'.
 * NULL on failure, which has been logged to 'log'.
 */
struct blk *blk_open(struct xentoollog_logger *log, const char *path,
    unsigned flags, const char *serial, struct grants *grants);

/* Configuration space (5.2.4), and feature bits offered (5.2.3). */
struct virtio_blk_config blk_config(const struct blk *blk);
uint64_t blk_features(const struct blk *blk);

/*
 * Read the size of the disk again and log it.  No request goes beyond it.  In a
 * file that has been truncated since, reads beyond its end fail, and writes
 * extend it: to check before each would be costly and still a race.
 */
void blk_resize(struct blk *blk);

/* Flush the writes that have completed, and wait. */
void blk_sync(struct blk *blk);

/*
 * Use *s from now on, the state of a predecessor, or zeros.  The caller sets
 * 'write_through', and we 'flush_failed': Linux reports a writeback error only
 * once, so no later flush succeeds, nor a write in write-through mode, until
 * the disk is ejected, after which comes another one.
 */
void blk_adopt(struct blk *blk, struct blk_state *s);

/* Get a request to fill in, or NULL; put one reaped, or not submitted. */
struct blk_req *blk_get(struct blk *blk);
void blk_put(struct blk *blk, struct blk_req *req);

/*
 * Submit a request (5.2.6), to the kernel at the next engine_kick().  False: it
 * has no writable byte for a status, so it is still the caller's.
 */
bool blk_submit(struct blk *blk, struct blk_req *req);

/* A completed request, its status byte written, or NULL.  Never blocks. */
struct blk_req *blk_reap(struct blk *blk);

/*
 * The request in flight after 'req', or after NULL the first; NULL: no more.
 * The memory that it still uses is op.status and op.data.
 */
const struct blk_req *blk_next(
    const struct blk *blk, const struct blk_req *req);

/* Requests submitted and not reaped yet. */
unsigned blk_inflight(const struct blk *blk);
