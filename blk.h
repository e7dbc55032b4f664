/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio-blk device behind the queue (virtio 1.2, 5.2). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <linux/virtio_blk.h>

#include "engine.h"

struct xentoollog_logger;
struct disk;

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
	uint32_t written;  /* out: bytes written, counted from the first
			      writable byte without a gap (virtio 2.7.8.2) */

	/* The rest is blk.c's. */
	uint8_t *status; /* address of the status byte; NULL: not in flight */
	uint64_t data_in_len; /* writable bytes before the status */
	uint32_t type;	      /* VIRTIO_BLK_T_* */
	uint32_t ranges;      /* of 'range' still to be done */
	struct virtio_blk_discard_write_zeroes range[BLK_RANGES];
	struct iovec iov[BLK_IOVECS];
};

/*
 * Open 'path', which must stay, with 'flags' (DISK_*), and set up asynchronous
 * I/O.  'serial' answers VIRTIO_BLK_T_GET_ID: at most VIRTIO_BLK_ID_BYTES
 * characters.  NULL on failure, which has been logged to 'log'.
 */
struct blk *blk_open(struct xentoollog_logger *log, const char *path,
    unsigned flags, const char *serial);

/* Configuration space (5.2.4), and feature bits offered (5.2.3). */
struct virtio_blk_config blk_config(const struct blk *blk);
uint64_t blk_features(const struct blk *blk);

/*
 * Read the size of the disk again and log it.  No request goes beyond it.  In a
 * file that has been truncated since, reads beyond its end fail, and writes
 * extend it: to check before each would be costly and still a race.
 */
void blk_resize(struct blk *blk);

/* Statistics since blk_open(). */
struct blk_stats {
	unsigned long long requests; /* completed, with any status */
	unsigned long long errors;   /* ... other than VIRTIO_BLK_S_OK */
	unsigned long long flushes;  /* requested */
	unsigned long long read;     /* bytes */
	unsigned long long written;  /* bytes */
};
const struct blk_stats *blk_stats(const struct blk *blk);

/*
 * Whether writes complete before they are on stable storage (5.2.6.2).
 * blk_sync() flushes those that have completed, and waits.
 */
void blk_set_writeback(struct blk *blk, bool writeback);
void blk_sync(struct blk *blk);

/*
 * Where it is kept that a flush has failed: *failed, which outlives this
 * process, is 0 before and 1 from then on.  Linux reports a writeback error
 * only once, so no later flush succeeds, nor a write in write-through mode.
 */
void blk_keep(struct blk *blk, uint16_t *failed);

/* Get a request to fill in, or NULL; put one reaped, or not submitted. */
struct blk_req *blk_get(struct blk *blk);
void blk_put(struct blk *blk, struct blk_req *req);

/*
 * Submit a request (5.2.6), to the kernel at the next blk_kick().  False: it
 * has no writable byte for a status, so it is still the caller's.
 */
bool blk_submit(struct blk *blk, struct blk_req *req);
void blk_kick(struct blk *blk);

/* Whether blk_kick() has used up its budget and has more to submit. */
bool blk_pending(const struct blk *blk);

/* Whether the host is short of memory for I/O: kick again in a while. */
bool blk_starved(const struct blk *blk);

/* A completed request, its status byte written, or NULL.  Never blocks. */
struct blk_req *blk_reap(struct blk *blk);

/* Submit one to fail: its first iovec is the status byte, and all there is. */
void blk_fail(struct blk *blk, struct blk_req *req);

/*
 * The request in flight after 'req', or after NULL the first; NULL: no more.
 * The memory that it still uses is 'status' and op.data.
 */
const struct blk_req *blk_next(
    const struct blk *blk, const struct blk_req *req);

/* Requests submitted and not reaped yet. */
unsigned blk_inflight(const struct blk *blk);

/* A descriptor that is readable (POLLIN) when blk_reap() should be called. */
int blk_fd(const struct blk *blk);

/* The disk. */
const struct disk *blk_disk(const struct blk *blk);

/* See engine_retain() and engine_close(), after which all is over. */
bool blk_retain(struct blk *blk, int fd);
void blk_close(struct blk *blk);
