/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio-blk device behind the queue (virtio 1.2, 5.2).  Owns the
 * validation of requests and the operations that they need.  Does not know of
 * rings or guest-physical addresses, nor how the disk is read and written.
 *
 * A request that is invalid or needs no I/O completes when it is submitted; any
 * other is one operation of the engine's at a time.
 */
#include <endian.h>
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <unistd.h>

#include "blk.h"
#include "grant.h"
#include "log.h"

/*
 * Limits of one range, in sectors: to discard 1 GiB is fast even in many
 * extents, but zeroes may have to be written.
 */
#define DISCARD_MAX	 (UINT32_C(1) << 21)
#define ZEROES_MAX	 (UINT32_C(1) << 17)
#define DISCARD_ONLY_MAX (UINT32_C(1) << 16) /* all else waits meanwhile */

/* Modes of fallocate() for discard and write zeroes. */
#define PUNCH_HOLE (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO_RANGE (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

/* In place of VIRTIO_BLK_S_*: an operation of the request's is in flight. */
#define STARTED (-1)

static uint64_t
capacity(const struct blk *blk)
{
	return blk->disk.size / SECTOR;
}

struct virtio_blk_config
blk_config(const struct blk *blk)
{
	const struct disk *d = &blk->disk;
	uint32_t block = d->logical_block, discard_max = DISCARD_MAX;

	if (d->discard_only)
		discard_max =
		    MAX(DISCARD_ONLY_MAX, d->discard_granularity / SECTOR);
	return (struct virtio_blk_config){
	    .capacity = htole64(capacity(blk)),
	    .seg_max = htole32(BLK_IOVECS - 2), /* header and status */
	    .blk_size = htole32(block),
	    .physical_block_exp =
		__builtin_ctz(MAX(d->physical_block / block, 1)),
	    .alignment_offset = MIN(d->alignment / block, UINT8_MAX),
	    .min_io_size = htole16(MIN(d->io_min / block, UINT16_MAX)),
	    .opt_io_size = htole32(d->io_opt / block),
	    .max_discard_sectors = htole32(discard_max),
	    .max_discard_seg = htole32(BLK_RANGES),
	    .discard_sector_alignment =
		htole32(d->discard_granularity / SECTOR),
	    .max_write_zeroes_sectors = htole32(ZEROES_MAX),
	    .max_write_zeroes_seg = htole32(BLK_RANGES),
	    .write_zeroes_may_unmap =
		d->discard_granularity != 0 && !d->discard_only,
	};
}

struct blk *
blk_open(struct xentoollog_logger *log, const char *path, unsigned flags,
    const char *serial, struct grants *grants)
{
	struct blk *blk = calloc(1, sizeof(*blk));

	if (blk == NULL)
		return log_error(log, errno, "out of memory");
	blk->s = &blk->own;
	memcpy(blk->serial, serial, strnlen(serial, sizeof(blk->serial)));
	STAILQ_INIT(&blk->done);
	/* Not blk_put(), which takes a page of memory for each. */
	for (; blk->nfree < BLK_REQS; blk->nfree++)
		blk->free[blk->nfree] = &blk->req[blk->nfree];
	blk->grants = grants;
	if (disk_open(&blk->disk, log, path, flags))
		blk->engine = engine_open(&blk->disk, BLK_REQS, grants);
	return blk->engine != NULL ? blk : NULL;
}

static bool
can_discard(const struct blk *blk)
{
	return !blk->disk.read_only && blk->disk.discard_granularity != 0;
}

uint64_t
blk_features(const struct blk *blk)
{
	return 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE |
	       1 << VIRTIO_BLK_F_TOPOLOGY | 1 << VIRTIO_BLK_F_FLUSH |
	       1 << VIRTIO_BLK_F_CONFIG_WCE |
	       blk->disk.read_only << VIRTIO_BLK_F_RO |
	       can_discard(blk) << VIRTIO_BLK_F_DISCARD |
	       !blk->disk.read_only << VIRTIO_BLK_F_WRITE_ZEROES;
}

void
blk_resize(struct blk *blk)
{
	uint64_t was = capacity(blk);

	if (!disk_update_size(&blk->disk))
		return;
	log_msg(blk->disk.log, XTL_NOTICE, -1,
	    "%s has %llu sectors, previously %llu", blk->disk.path,
	    (unsigned long long)capacity(blk), (unsigned long long)was);
}

/* A flush has failed, with 'error', or -1: a predecessor's.  Logged once. */
static void
fail_flushes(struct blk *blk, int error)
{
	if (error != -1 && blk->s->flush_failed)
		return;
	blk->s->flush_failed = 1;
	log_msg(blk->disk.log, XTL_CRITICAL, error,
	    "flush failed: data may be lost, and all flushes fail until the "
	    "disk or guest is replaced");
}

void
blk_adopt(struct blk *blk, struct blk_state *s)
{
	blk->s = s;
	if (blk->disk.empty)
		s->flush_failed = 0;
	if (s->flush_failed)
		fail_flushes(blk, -1);
}

void
blk_sync(struct blk *blk)
{
	if (!blk->disk.read_only && fdatasync(blk->disk.sync) < 0)
		fail_flushes(blk, errno);
}

struct blk_req *
blk_get(struct blk *blk)
{
	return blk->nfree > 0 ? blk->free[--blk->nfree] : NULL;
}

void
blk_put(struct blk *blk, struct blk_req *req)
{
	req->op.status = NULL;
	blk->free[blk->nfree++] = req;
}

/* Take the last writable byte, the status, off the iovecs; NULL: none. */
static uint8_t *
iov_pop_status(struct iovec *iov, uint16_t *n)
{
	struct iovec *last;

	while (*n > 0 && iov[*n - 1].iov_len == 0)
		--*n;
	if (*n == 0)
		return NULL;
	last = &iov[*n - 1];
	if (--last->iov_len == 0)
		--*n;
	return (uint8_t *)last->iov_base + last->iov_len;
}

static uint64_t
iov_size(const struct iovec *iov, unsigned n)
{
	uint64_t sum = 0;

	while (n > 0)
		sum += iov[--n].iov_len;
	return sum;
}

/* VIRTIO_BLK_T_GET_ID: the serial, truncated to the guest's buffer. */
static int
get_id(struct blk *blk, struct engine_op *op)
{
	size_t len = MIN(sizeof(blk->serial), op->remaining);

	if (!guest_copy(blk->grants, op->data, blk->serial, len, true, NULL))
		return VIRTIO_BLK_S_IOERR;
	op->done = len;
	return VIRTIO_BLK_S_OK;
}

/* False: it is not granted.  Not inline: it needs a stack that is protected. */
static __attribute__((noinline)) bool
copy_status(struct blk *blk, struct blk_req *req, uint8_t status)
{
	const struct iovec iov = {req->op.status, 1};

	return guest_copy(blk->grants, &iov, &status, 1, true, NULL);
}

/* Complete the request with 'status' (5.2.6), unless it is STARTED. */
static void
complete_req(struct blk *blk, struct blk_req *req, int status)
{
	uint64_t filled = req->op.opcode == ENGINE_READ ? req->op.done : 0;

	if (status == STARTED)
		return;
	blk->stats.requests++;
	blk->stats.errors += status != VIRTIO_BLK_S_OK;
	/* The status byte, the last one, counts if all before were written. */
	req->written = filled + (filled == req->data_in_len);
	if (blk->grants == NULL)
		*req->op.status = status;
	else if ((!req->op.status_written || status != VIRTIO_BLK_S_OK) &&
		 !copy_status(blk, req, status))
		req->written = 0; /* nothing that the driver may believe */
	STAILQ_INSERT_TAIL(&blk->done, &req->op, link);
}

static bool
beyond_capacity(const struct blk *blk, uint64_t sector, uint64_t sectors)
{
	return sectors > capacity(blk) || sector > capacity(blk) - sectors;
}

static int
start(struct blk *blk, struct engine_op *op)
{
	engine_start(blk->engine, op);
	return STARTED;
}

static int
submit_rw(struct blk *blk, struct engine_op *op, uint64_t sector)
{
	if (op->remaining % SECTOR != 0 ||
	    beyond_capacity(blk, sector, op->remaining / SECTOR) ||
	    (op->opcode == ENGINE_WRITE && blk->disk.read_only))
		return VIRTIO_BLK_S_IOERR;
	op->offset = sector * SECTOR;
	return op->remaining == 0 ? VIRTIO_BLK_S_OK : start(blk, op);
}

static int
flush(struct blk *blk, struct engine_op *op)
{
	op->opcode = ENGINE_FLUSH;
	/* Some file systems cannot flush what is never written. */
	if (blk->disk.read_only)
		return VIRTIO_BLK_S_OK;
	return blk->s->flush_failed ? VIRTIO_BLK_S_IOERR : start(blk, op);
}

/*
 * Start on the next range.  After the last one, or a write that has none, comes
 * in write-through mode a flush, merged with others', and not RWF_DSYNC, where
 * one write would get the error of another.
 */
static int
next_range(struct blk *blk, struct blk_req *req)
{
	bool discard = req->type == VIRTIO_BLK_T_DISCARD;
	struct virtio_blk_discard_write_zeroes *r;
	struct engine_op *op = &req->op;

	while (req->ranges > 0) {
		r = &req->range[--req->ranges];
		op->opcode = discard && blk->disk.discard_only
				 ? ENGINE_DISCARD
				 : ENGINE_ALLOCATE;
		op->mode = can_discard(blk) && (discard || r->flags != 0)
			       ? PUNCH_HOLE
			       : ZERO_RANGE;
		op->offset = le64toh(r->sector) * SECTOR;
		op->remaining = (uint64_t)le32toh(r->num_sectors) * SECTOR;
		if (op->remaining > 0)
			return start(blk, op);
	}
	return blk->s->write_through ? flush(blk, op) : VIRTIO_BLK_S_OK;
}

/*
 * Write zeroes to the first part of the range, from the request's iovecs, which
 * are not needed any more; the rest becomes the next range.
 */
static int
write_zeros(struct blk *blk, struct blk_req *req)
{
	static char zeros[4096]; /* never written; const would fill the file */
	struct virtio_blk_discard_write_zeroes *r = &req->range[req->ranges];
	struct engine_op *op = &req->op;
	uint64_t remaining = op->remaining;
	struct iovec *iov = op->data = req->iov;

	for (; iov < req->iov + BLK_IOVECS && remaining > 0; iov++) {
		iov->iov_base = zeros;
		iov->iov_len = MIN(remaining, sizeof(zeros));
		remaining -= iov->iov_len;
	}
	op->segments = iov - req->iov;
	op->opcode = ENGINE_WRITE;
	op->remaining -= remaining;
	r->sector = htole64((op->offset + op->remaining) / SECTOR);
	r->num_sectors = htole32(remaining / SECTOR);
	req->ranges++;
	return start(blk, op);
}

/* Discard or zero the ranges in the data, if all of them are valid. */
static int
handle_discard_zeroes(struct blk *blk, struct blk_req *req)
{
	bool discard = req->type == VIRTIO_BLK_T_DISCARD;
	uint64_t bytes = req->op.remaining;

	if (discard ? !can_discard(blk) : blk->disk.read_only)
		return VIRTIO_BLK_S_UNSUPP;
	if (bytes % sizeof(req->range[0]) != 0 || bytes > sizeof(req->range) ||
	    !guest_copy(
		blk->grants, req->op.data, req->range, bytes, false, NULL))
		return VIRTIO_BLK_S_IOERR;
	req->ranges = bytes / sizeof(req->range[0]);
	for (unsigned i = 0; i < req->ranges; i++) {
		uint64_t sector = le64toh(req->range[i].sector);
		uint32_t sectors = le32toh(req->range[i].num_sectors);
		uint32_t flags = le32toh(req->range[i].flags);

		if ((flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) != 0 ||
		    (discard && flags != 0))
			return VIRTIO_BLK_S_UNSUPP;
		if (sectors > (discard ? DISCARD_MAX : ZEROES_MAX) ||
		    beyond_capacity(blk, sector, sectors))
			return VIRTIO_BLK_S_IOERR;
	}
	return next_range(blk, req);
}

/* Start what the request asks for, or return its status. */
static int
submit(struct blk *blk, struct blk_req *req)
{
	struct engine_op *op = &req->op;
	struct virtio_blk_outhdr hdr;

	op->data = req->iov;
	op->segments = req->readable;
	op->remaining = iov_size(op->data, op->segments);
	if (op->remaining < sizeof(hdr) ||
	    !guest_copy(blk->grants, op->data, &hdr, sizeof(hdr), false, NULL))
		return VIRTIO_BLK_S_IOERR;
	engine_advance(op, sizeof(hdr));
	op->done = 0;
	req->type = le32toh(hdr.type);
	if (req->type == VIRTIO_BLK_T_OUT) {
		op->opcode = ENGINE_WRITE;
	} else if (req->type == VIRTIO_BLK_T_IN ||
		   req->type == VIRTIO_BLK_T_GET_ID) {
		op->data = req->iov + req->readable;
		op->segments = req->writable;
		op->remaining = req->data_in_len;
	}
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		return submit_rw(blk, op, le64toh(hdr.sector));
	case VIRTIO_BLK_T_FLUSH:
		blk->stats.flushes++;
		if (blk->disk.empty) /* what was written is not here */
			return VIRTIO_BLK_S_IOERR;
		return flush(blk, op);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return handle_discard_zeroes(blk, req);
	case VIRTIO_BLK_T_GET_ID:
		return get_id(blk, op);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

bool
blk_submit(struct blk *blk, struct blk_req *req)
{
	struct iovec *writable = req->iov + req->readable;

	req->op = (struct engine_op){.opcode = ENGINE_READ,
	    .status = iov_pop_status(writable, &req->writable)};
	if (req->op.status == NULL)
		return false;
	req->data_in_len = iov_size(writable, req->writable);
	if (req->status_only) /* nothing is written from their start */
		req->data_in_len = UINT64_MAX;
	req->ranges = 0;
	blk->inflight++;
	complete_req(blk, req, submit(blk, req));
	return true;
}

/* Log a failed operation that is no flush, at most once a second. */
static void
log_failure(struct blk *blk, const struct blk_req *req)
{
	const struct engine_op *op = &req->op;
	const char *name = op->opcode == ENGINE_READ	       ? "read"
			   : req->type == VIRTIO_BLK_T_DISCARD ? "discard"
							       : "write";
	struct timespec now;

	blk->errors++;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == blk->logged)
		return;
	log_error(blk->disk.log, op->error,
	    "%s at byte %llu failed (failures since the last message: %u)",
	    name, (unsigned long long)op->offset, blk->errors);
	blk->logged = now.tv_sec;
	blk->errors = 0;
}

/* The host does not support the fallocate(): use the next best way. */
static int
fall_back(struct blk *blk, struct blk_req *req)
{
	if (req->type == VIRTIO_BLK_T_DISCARD)
		return VIRTIO_BLK_S_UNSUPP;
	if (req->op.mode != PUNCH_HOLE)
		return write_zeros(blk, req);
	req->op.mode = ZERO_RANGE;
	return start(blk, &req->op);
}

/* An operation is complete: start the next one, or return the status. */
static int
complete_op(struct blk *blk, struct blk_req *req)
{
	struct engine_op *op = &req->op;

	*(op->opcode == ENGINE_READ ? &blk->stats.read : &blk->stats.written) +=
	    op->done;
	/* EINVAL: a block device needs whole blocks. */
	if ((op->opcode == ENGINE_ALLOCATE || op->opcode == ENGINE_DISCARD) &&
	    (op->error == EOPNOTSUPP || op->error == EINVAL))
		return fall_back(blk, req);
	if (op->opcode == ENGINE_FLUSH && op->error != 0)
		fail_flushes(blk, op->error);
	if (op->opcode == ENGINE_FLUSH)
		return blk->s->flush_failed ? VIRTIO_BLK_S_IOERR
					    : VIRTIO_BLK_S_OK;
	if (op->error != 0) {
		log_failure(blk, req);
		return VIRTIO_BLK_S_IOERR;
	}
	return op->opcode == ENGINE_READ ? VIRTIO_BLK_S_OK
					 : next_range(blk, req);
}

struct blk_req *
blk_reap(struct blk *blk)
{
	struct blk_req *req;

	while ((req = (struct blk_req *)STAILQ_FIRST(&blk->done)) == NULL) {
		req = (struct blk_req *)engine_reap(blk->engine);
		if (req == NULL)
			return NULL;
		complete_req(blk, req, complete_op(blk, req));
	}
	STAILQ_REMOVE_HEAD(&blk->done, link);
	blk->inflight--;
	return req;
}

const struct blk_req *
blk_next(const struct blk *blk, const struct blk_req *req)
{
	req = req == NULL ? blk->req : req + 1;
	while (req < blk->req + BLK_REQS && req->op.status == NULL)
		req++;
	return req < blk->req + BLK_REQS ? req : NULL;
}

unsigned
blk_inflight(const struct blk *blk)
{
	return blk->inflight;
}
