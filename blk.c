/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio-blk device behind the queue (virtio 1.2, 5.2).  Owns the judging
 * of requests and their execution on the disk through io_uring.  Does not know
 * of rings or guest-physical addresses.
 *
 * A request that is refused, or needs no I/O, is done when it is submitted;
 * any other is at any time one operation of the kernel's, continued when that
 * was short.  Either way it comes back through blk_reap().
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <time.h>
#include <unistd.h>

#include <liburing.h>
#include <xentoollog.h>

#include "blk.h"
#include "disk.h"

/* Segments of a request: a chain of BLK_IOVECS less header and status. */
#define SEG_MAX (BLK_IOVECS - 2)

/* What one operation transfers at most; the kernel's own limit is higher. */
#define TRANSFER_MAX (UINT32_C(1) << 30)

/*
 * The largest range discarded or zeroed, in sectors: 1 GiB is quickly given
 * back even in many pieces, but zeros may have to be written.
 */
#define DISCARD_MAX (UINT32_C(1) << 21)
#define ZEROES_MAX  (UINT32_C(1) << 17)

/* What the host can do with a range in place of writing to it. */
#define MAKE_HOLE  (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define MAKE_ZEROS (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

/*
 * Operations started again, per request, after EINTR, EAGAIN, or EFAULT: guest
 * memory can be missing for a moment while more of it is being mapped.
 */
#define RETRIES 16

struct blk {
	xentoollog_logger *log;
	struct disk disk;
	bool read_only;
	bool writeback;
	uint64_t capacity; /* in sectors */
	char serial[VIRTIO_BLK_ID_BYTES];
	struct virtio_blk_config config;
	struct io_uring uring;
	unsigned inflight; /* submitted and not reaped */
	int refusal;	   /* how the last submission ended */
	struct blk_stats stats;
	unsigned errors; /* failed operations since the last message */
	time_t logged;	 /* second of the last message about one */
	STAILQ_HEAD(blk_reqs, blk_req) done;
	/* Flushes: those that the kernel carries out, as one, and the next. */
	struct blk_reqs flushing, flushes;
	struct blk_req *free[BLK_REQS]; /* the last one used comes first */
	unsigned nfree;
	struct blk_req req[BLK_REQS];
};

static void
configure(struct blk *blk)
{
	const struct disk *d = &blk->disk;
	uint32_t block = d->logical;

	blk->capacity = d->size / SECTOR;
	blk->config = (struct virtio_blk_config){
	    .capacity = htole64(blk->capacity),
	    .seg_max = htole32(SEG_MAX),
	    .blk_size = htole32(block),
	    .physical_block_exp = __builtin_ctz(MAX(d->physical / block, 1)),
	    .alignment_offset = MIN(d->alignment / block, UINT8_MAX),
	    .min_io_size = htole16(MIN(d->io_min / block, UINT16_MAX)),
	    .opt_io_size = htole32(d->io_opt / block),
	    .max_discard_sectors = htole32(DISCARD_MAX),
	    .max_discard_seg = htole32(BLK_RANGES),
	    .discard_sector_alignment = htole32(d->hole / SECTOR),
	    .max_write_zeroes_sectors = htole32(ZEROES_MAX),
	    .max_write_zeroes_seg = htole32(BLK_RANGES),
	    .write_zeroes_may_unmap = d->hole != 0,
	};
}

/*
 * Set up the ring.  By a ring can be done what no filter of system calls sees:
 * ours does what is listed here and nothing else, and on our file only.
 */
static int
open_ring(struct blk *blk)
{
	struct io_uring_restriction allowed[] = {
	    {.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
		.sqe_flags = IOSQE_FIXED_FILE},
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
	    /* From here on not if read-only. */
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
	    {.opcode = IORING_RESTRICTION_SQE_OP,
		.sqe_op = IORING_OP_FALLOCATE},
	};
	unsigned n = blk->read_only ? 4 : sizeof(allowed) / sizeof(allowed[0]);
	int e;

	e = io_uring_queue_init(BLK_REQS, &blk->uring, IORING_SETUP_R_DISABLED);
	if (e == 0)
		e = io_uring_register_files(&blk->uring, &blk->disk.fd, 1);
	/* Debian 12's liburing does not export its functions for these two. */
	if (e == 0)
		e = io_uring_register(blk->uring.ring_fd,
		    IORING_REGISTER_RESTRICTIONS, allowed, n);
	if (e == 0)
		e = io_uring_register(
		    blk->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	return e;
}

struct blk *
blk_open(struct xentoollog_logger *log, const char *path, unsigned how,
    const char *serial)
{
	struct blk *blk = calloc(1, sizeof(*blk));
	int e;

	if (blk == NULL) {
		xtl_log(log, XTL_ERROR, errno, "vdisk", "no memory");
		return NULL;
	}
	blk->log = log;
	blk->read_only = how & DISK_READ_ONLY;
	blk->writeback = true;
	memcpy(blk->serial, serial, strnlen(serial, sizeof(blk->serial)));
	STAILQ_INIT(&blk->done);
	STAILQ_INIT(&blk->flushing);
	STAILQ_INIT(&blk->flushes);
	while (blk->nfree < BLK_REQS) {
		blk->free[blk->nfree] = &blk->req[blk->nfree];
		blk->nfree++;
	}
	if (!disk_open(&blk->disk, log, path, how))
		goto fail;
	configure(blk);
	e = open_ring(blk);
	if (e < 0) {
		xtl_log(log, XTL_ERROR, -e, "vdisk", "cannot set up io_uring");
		goto fail;
	}
	return blk;
fail:
	free(blk);
	return NULL;
}

const struct virtio_blk_config *
blk_config(const struct blk *blk)
{
	return &blk->config;
}

static bool
can_discard(const struct blk *blk)
{
	return !blk->read_only && blk->disk.hole != 0;
}

uint64_t
blk_features(const struct blk *blk)
{
	return UINT64_C(1) << VIRTIO_BLK_F_SEG_MAX |
	       UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE |
	       UINT64_C(1) << VIRTIO_BLK_F_TOPOLOGY |
	       UINT64_C(1) << VIRTIO_BLK_F_FLUSH |
	       UINT64_C(1) << VIRTIO_BLK_F_CONFIG_WCE |
	       (uint64_t)blk->read_only << VIRTIO_BLK_F_RO |
	       (uint64_t)can_discard(blk) << VIRTIO_BLK_F_DISCARD |
	       (uint64_t)!blk->read_only << VIRTIO_BLK_F_WRITE_ZEROES;
}

void
blk_resize(struct blk *blk)
{
	uint64_t was = blk->capacity;

	if (!disk_measure(&blk->disk))
		return;
	blk->capacity = blk->disk.size / SECTOR;
	blk->config.capacity = htole64(blk->capacity);
	xtl_log(blk->log, XTL_NOTICE, -1, "vdisk",
	    "%s has %llu sectors, and had %llu", blk->disk.path,
	    (unsigned long long)blk->capacity, (unsigned long long)was);
}

const struct blk_stats *
blk_stats(const struct blk *blk)
{
	return &blk->stats;
}

void
blk_set_writeback(struct blk *blk, bool writeback)
{
	blk->writeback = writeback;
}

void
blk_sync(struct blk *blk)
{
	if (fdatasync(blk->disk.fd) < 0)
		xtl_log(blk->log, XTL_ERROR, errno, "vdisk", "flush failed");
}

struct blk_req *
blk_get(struct blk *blk)
{
	return blk->nfree > 0 ? blk->free[--blk->nfree] : NULL;
}

void
blk_put(struct blk *blk, struct blk_req *req)
{
	blk->free[blk->nfree++] = req;
}

/*
 * Take 'len' bytes off the front of the readable buffers, into 'to'.  False if
 * there are not as many.
 */
static bool
take_front(struct iovec *iov, unsigned n, void *to, size_t len)
{
	char *p = to;

	for (; n > 0 && len > 0; iov++, n--) {
		size_t some = MIN(len, iov->iov_len);

		memcpy(p, iov->iov_base, some);
		iov->iov_base = (char *)iov->iov_base + some;
		iov->iov_len -= some;
		p += some;
		len -= some;
	}
	return len == 0;
}

/*
 * Take the last byte of the writable buffers: NULL if there is none.  A buffer
 * that held nothing else is gone then.
 */
static uint8_t *
take_status(struct iovec *iov, uint16_t *n)
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
total(const struct iovec *iov, unsigned n)
{
	uint64_t sum = 0;

	while (n > 0)
		sum += iov[--n].iov_len;
	return sum;
}

/*
 * The first 'done' bytes of what was left are transferred.
 */
static void
advance(struct blk_req *req, uint64_t done)
{
	req->left -= done;
	req->offset += done;
	if (req->type == VIRTIO_BLK_T_IN)
		req->filled += done;
	while (req->segments > 0 && done >= req->data->iov_len) {
		done -= req->data->iov_len;
		req->data++;
		req->segments--;
	}
	if (done > 0) {
		req->data->iov_base = (char *)req->data->iov_base + done;
		req->data->iov_len -= done;
	}
}

/*
 * Write the device's name to the guest, as much of it as there is room for.
 */
static void
get_id(const struct blk *blk, struct blk_req *req)
{
	size_t at = 0;

	while (req->segments > 0 && at < sizeof(blk->serial)) {
		size_t some = MIN(sizeof(blk->serial) - at, req->data->iov_len);

		memcpy(req->data->iov_base, blk->serial + at, some);
		at += some;
		req->data++;
		req->segments--;
	}
	req->filled = at;
}

/*
 * Prepare to write zeros to what is left, or to the first of it.
 */
static void
prepare_zeros(struct io_uring_sqe *sqe, struct blk_req *req)
{
	static const char zeros[4096];
	uint64_t left = req->left;

	/* The memory for the request's own buffers is free by now. */
	req->segments = 0;
	while (req->segments < BLK_IOVECS && left > 0) {
		struct iovec *iov = &req->iov[req->segments++];

		iov->iov_base = (void *)zeros;
		iov->iov_len = MIN(left, sizeof(zeros));
		left -= iov->iov_len;
	}
	req->data = req->iov;
	io_uring_prep_writev(sqe, 0, req->data, req->segments, req->offset);
}

/*
 * Whether the request's operation is a fallocate().
 */
static bool
by_fallocate(const struct blk_req *req)
{
	return (req->type == VIRTIO_BLK_T_DISCARD ||
		   req->type == VIRTIO_BLK_T_WRITE_ZEROES) &&
	       req->mode != 0;
}

/*
 * Hand the rest of the request to io_uring.  There is room: each request has
 * one operation at most.
 */
static void
start(struct blk *blk, struct blk_req *req)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&blk->uring);
	int dsync = blk->writeback ? 0 : RWF_DSYNC;
	void *base = req->segments > 0 ? req->data->iov_base : NULL;
	unsigned one =
	    req->segments > 0 ? MIN(req->data->iov_len, TRANSFER_MAX) : 0;

	if (req->type == VIRTIO_BLK_T_FLUSH)
		io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
	else if (by_fallocate(req))
		io_uring_prep_fallocate(
		    sqe, 0, req->mode, req->offset, req->left);
	else if (req->type == VIRTIO_BLK_T_WRITE_ZEROES)
		prepare_zeros(sqe, req);
	else if (req->type == VIRTIO_BLK_T_IN && req->segments == 1)
		io_uring_prep_read(sqe, 0, base, one, req->offset);
	else if (req->type == VIRTIO_BLK_T_IN)
		io_uring_prep_readv(
		    sqe, 0, req->data, req->segments, req->offset);
	else if (req->segments == 1)
		io_uring_prep_write(sqe, 0, base, one, req->offset);
	else
		io_uring_prep_writev(
		    sqe, 0, req->data, req->segments, req->offset);
	if (req->type == VIRTIO_BLK_T_OUT)
		sqe->rw_flags = dsync;
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, req);
}

/*
 * The request has come to its end with 'status' (5.2.6).
 */
static void
finish(struct blk *blk, struct blk_req *req, uint8_t status)
{
	*req->status = status;
	blk->stats.requests++;
	blk->stats.errors += status != VIRTIO_BLK_S_OK;
	/* The status byte is the last one: it counts if all before it do. */
	req->written = req->filled + (req->filled == req->room);
	STAILQ_INSERT_TAIL(&blk->done, req, link);
}

/*
 * Read or write the data from 'sector' on, if that is all on the disk.
 */
static void
transfer(struct blk *blk, struct blk_req *req, uint64_t sector)
{
	uint64_t sectors = req->left / SECTOR;

	if (req->left % SECTOR != 0 || sectors > blk->capacity ||
	    sector > blk->capacity - sectors ||
	    (req->type == VIRTIO_BLK_T_OUT && blk->read_only)) {
		finish(blk, req, VIRTIO_BLK_S_IOERR);
	} else if (req->left == 0) {
		finish(blk, req, VIRTIO_BLK_S_OK);
	} else {
		req->offset = sector * SECTOR;
		start(blk, req);
	}
}

/*
 * Go on with the next range; after the last one, what was done is stable if
 * other writes are.
 */
static void
next_range(struct blk *blk, struct blk_req *req)
{
	struct virtio_blk_discard_write_zeroes *r;

	while (req->ranges > 0) {
		r = &req->range[--req->ranges];
		req->offset = le64toh(r->sector) * SECTOR;
		req->left = (uint64_t)le32toh(r->num_sectors) * SECTOR;
		req->mode = req->type == VIRTIO_BLK_T_DISCARD || r->flags != 0
				? MAKE_HOLE
				: MAKE_ZEROS;
		if (req->left > 0) {
			start(blk, req);
			return;
		}
	}
	if (blk->writeback) {
		finish(blk, req, VIRTIO_BLK_S_OK);
	} else {
		req->type = VIRTIO_BLK_T_FLUSH;
		STAILQ_INSERT_TAIL(&blk->flushes, req, link);
	}
}

/*
 * Discard or zero the ranges in the data, if all of them are sound.
 */
static void
clear(struct blk *blk, struct blk_req *req)
{
	bool discard = req->type == VIRTIO_BLK_T_DISCARD;
	uint64_t bytes = total(req->iov, req->readable);
	uint8_t status = VIRTIO_BLK_S_OK;

	if (discard ? !can_discard(blk) : blk->read_only)
		status = VIRTIO_BLK_S_UNSUPP;
	else if (bytes % sizeof(req->range[0]) != 0 ||
		 bytes > sizeof(req->range))
		status = VIRTIO_BLK_S_IOERR;
	else
		take_front(req->iov, req->readable, req->range, bytes);
	req->ranges =
	    status == VIRTIO_BLK_S_OK ? bytes / sizeof(req->range[0]) : 0;
	for (unsigned i = 0; i < req->ranges; i++) {
		uint64_t sector = le64toh(req->range[i].sector);
		uint32_t sectors = le32toh(req->range[i].num_sectors);
		uint32_t flags = le32toh(req->range[i].flags);

		if ((flags & ~VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) != 0 ||
		    (discard && flags != 0))
			status = VIRTIO_BLK_S_UNSUPP;
		else if (sectors > (discard ? DISCARD_MAX : ZEROES_MAX) ||
			 sectors > blk->capacity ||
			 sector > blk->capacity - sectors)
			status = VIRTIO_BLK_S_IOERR;
	}
	if (status == VIRTIO_BLK_S_OK)
		next_range(blk, req);
	else
		finish(blk, req, status);
}

bool
blk_submit(struct blk *blk, struct blk_req *req)
{
	struct iovec *writable = req->iov + req->readable;
	struct virtio_blk_outhdr hdr;

	req->status = take_status(writable, &req->writable);
	if (req->status == NULL)
		return false;
	req->room = total(writable, req->writable);
	req->filled = 0;
	req->retries = 0;
	blk->inflight++;
	if (!take_front(req->iov, req->readable, &hdr, sizeof(hdr))) {
		finish(blk, req, VIRTIO_BLK_S_IOERR);
		return true;
	}
	req->type = le32toh(hdr.type);
	req->data = req->type == VIRTIO_BLK_T_OUT ? req->iov : writable;
	req->segments =
	    req->type == VIRTIO_BLK_T_OUT ? req->readable : req->writable;
	req->left = total(req->data, req->segments);
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		advance(req, 0); /* past what the header left empty */
		transfer(blk, req, le64toh(hdr.sector));
		break;
	case VIRTIO_BLK_T_FLUSH:
		STAILQ_INSERT_TAIL(&blk->flushes, req, link);
		blk->stats.flushes++;
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		clear(blk, req);
		break;
	case VIRTIO_BLK_T_GET_ID:
		get_id(blk, req);
		finish(blk, req, VIRTIO_BLK_S_OK);
		break;
	default:
		finish(blk, req, VIRTIO_BLK_S_UNSUPP);
	}
	return true;
}

/*
 * Tell of a failed operation, at most once a second.
 */
static void
log_failure(struct blk *blk, const struct blk_req *req, int error)
{
	const char *what = req->type == VIRTIO_BLK_T_IN	       ? "read"
			   : req->type == VIRTIO_BLK_T_FLUSH   ? "flush"
			   : req->type == VIRTIO_BLK_T_DISCARD ? "discard"
							       : "write";
	char place[32] = "";
	struct timespec now;

	blk->errors++;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == blk->logged)
		return;
	if (req->type != VIRTIO_BLK_T_FLUSH)
		snprintf(place, sizeof(place), " at byte %llu",
		    (unsigned long long)req->offset);
	xtl_log(blk->log, XTL_ERROR, error, "vdisk",
	    "%s%s failed (failures since the last message: %u)", what, place,
	    blk->errors);
	blk->logged = now.tv_sec;
	blk->errors = 0;
}

/*
 * Start the flushes that have come since the last ones were started, when those
 * are done.  One operation does for all: whatever was written before any of
 * them was written before it.
 */
static void
start_flushes(struct blk *blk)
{
	if (!STAILQ_EMPTY(&blk->flushing) || STAILQ_EMPTY(&blk->flushes))
		return;
	STAILQ_CONCAT(&blk->flushing, &blk->flushes);
	start(blk, STAILQ_FIRST(&blk->flushing));
}

static void
finish_flushes(struct blk *blk, uint8_t status)
{
	struct blk_req *req;

	while ((req = STAILQ_FIRST(&blk->flushing)) != NULL) {
		STAILQ_REMOVE_HEAD(&blk->flushing, link);
		finish(blk, req, status);
	}
}

/*
 * The host cannot do with the range what was asked of it.
 */
static void
do_otherwise(struct blk *blk, struct blk_req *req)
{
	if (req->type == VIRTIO_BLK_T_DISCARD) {
		finish(blk, req, VIRTIO_BLK_S_UNSUPP);
	} else {
		req->mode = req->mode == MAKE_HOLE ? MAKE_ZEROS : 0;
		start(blk, req);
	}
}

/*
 * The kernel has finished an operation of the request with result 'res': finish
 * the request, or go on with what is left of it.
 */
static void
complete(struct blk *blk, struct blk_req *req, int res)
{
	if ((res == -EINTR || res == -EAGAIN || res == -EFAULT) &&
	    req->retries++ < RETRIES) {
		start(blk, req);
	} else if (req->type == VIRTIO_BLK_T_FLUSH) {
		if (res < 0)
			log_failure(blk, req, -res);
		finish_flushes(
		    blk, res < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
	} else if (res == -EOPNOTSUPP && by_fallocate(req)) {
		do_otherwise(blk, req);
	} else if (res < 0) {
		log_failure(blk, req, -res);
		finish(blk, req, VIRTIO_BLK_S_IOERR);
	} else if (by_fallocate(req)) {
		next_range(blk, req);
	} else if (res == 0) {
		/* The file has become smaller than the disk. */
		log_failure(blk, req, ENXIO);
		finish(blk, req, VIRTIO_BLK_S_IOERR);
	} else {
		*(req->type == VIRTIO_BLK_T_IN ? &blk->stats.read
					       : &blk->stats.written) += res;
		advance(req, res);
		if (req->left > 0)
			start(blk, req);
		else if (req->type == VIRTIO_BLK_T_WRITE_ZEROES)
			next_range(blk, req);
		else
			finish(blk, req, VIRTIO_BLK_S_OK);
	}
}

void
blk_kick(struct blk *blk)
{
	int e;

	start_flushes(blk);
	if (io_uring_sq_ready(&blk->uring) == 0)
		return;
	/* What is not taken now stays queued for the next time. */
	e = io_uring_submit(&blk->uring);
	if (e < 0 && e != blk->refusal && e != -EINTR && e != -EAGAIN &&
	    e != -EBUSY)
		xtl_log(blk->log, XTL_CRITICAL, -e, "vdisk",
		    "cannot submit to io_uring");
	blk->refusal = e;
}

struct blk_req *
blk_reap(struct blk *blk)
{
	struct io_uring_cqe *cqe;
	struct blk_req *req;

	while (STAILQ_EMPTY(&blk->done)) {
		/* Before we say "nothing yet", what goes on may do so. */
		if (io_uring_peek_cqe(&blk->uring, &cqe) != 0) {
			blk_kick(blk);
			if (io_uring_peek_cqe(&blk->uring, &cqe) != 0)
				return NULL;
		}
		req = io_uring_cqe_get_data(cqe);
		complete(blk, req, cqe->res);
		io_uring_cqe_seen(&blk->uring, cqe);
	}
	req = STAILQ_FIRST(&blk->done);
	STAILQ_REMOVE_HEAD(&blk->done, link);
	blk->inflight--;
	return req;
}

unsigned
blk_inflight(const struct blk *blk)
{
	return blk->inflight;
}

int
blk_fd(const struct blk *blk)
{
	return blk->uring.ring_fd;
}
