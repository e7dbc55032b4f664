/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The execution of operations on the disk by io_uring.  Owns the ring, the
 * retrying of short and failed operations, the bounce buffers of direct I/O and
 * the merging of flushes.  Does not know what an operation is for.
 *
 * Each operation has at most one SQE at a time, so the ring never overflows.
 *
 * Direct I/O is not possible on foreign mappings (VM_PFNMAP: get_user_pages()
 * refuses them), so it uses a bounded pool of bounce buffers, allocated in the
 * order of arrival.  Some file systems (FUSE, 9p) need them for buffered I/O,
 * too.  Requests that are not aligned to the block size fall back to buffered
 * I/O, which does the read-modify-write.  Direct and buffered I/O are never in
 * flight at the same time: they are coherent only one after the other.
 *
 * On tmpfs, which has no NOWAIT, io_uring would punt each operation to a worker
 * thread, which costs more than the operation: so I/O there is synchronous.
 * Each kick has a budget, so that accesses of vCPUs do not wait for long.  What
 * io_uring cannot do for want of resources is synchronous, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/param.h>
#include <time.h>
#include <unistd.h>

#include <liburing.h>
#include <linux/fs.h>

#include "disk.h"
#include "engine.h"
#include "grant.h"
#include "log.h"

/*
 * Retries after EINTR, EAGAIN, ENOMEM or EFAULT: guest memory can be missing
 * for a moment while more of it is being mapped.
 */
#define RETRIES 16

/* Seconds for which the host may have no memory for an operation. */
#define STARVATION_MAX 30

/* Bounce buffers, in units that are aligned enough for any disk. */
#define BOUNCE_POOL_SIZE (UINT32_C(4) << 20)
#define BOUNCE_MAX	 (UINT32_C(1) << 20) /* of one operation */
#define PAGE		 UINT32_C(4096)

/*
 * Bytes of one kick, as NAPI's budget: some ten microseconds of tmpfs or cached
 * I/O, for which a vCPU's access may wait, before completions are signalled.
 */
#define KICK_BUDGET (UINT32_C(32) << 10)

/* The files of the ring; the last one is only kept open. */
enum { CACHED, DIRECT, SYNC, RETAINED };

struct engine {
	struct io_uring uring;
	const struct disk *disk;
	int submit_error; /* result of the last submission */
	char *buffers;
	struct grants *grants; /* that the iovecs are of; NULL: pointers */
	bool bounce_used[BOUNCE_POOL_SIZE / PAGE];
	bool bounce;		  /* cached I/O needs the buffers, too */
	unsigned busy[2];	  /* transfers in flight: buffered, direct */
	int64_t budget;		  /* bytes left for this kick */
	bool starved;		  /* no memory: wait for the next kick */
	time_t starved_since;	  /* second; 0: it is not */
	time_t starvation_logged; /* ... too */
	struct engine_ops queued; /* not submitted yet */
	struct engine_ops done;
	/* Flushes: in flight, merged into one fsync, and those to come. */
	struct engine_ops flushing, flushes;
};

#define ALLOW(kind, what) /* all kinds are a union */                          \
	.opcode = IORING_RESTRICTION_##kind, .sqe_op = (what)

/*
 * Set up the ring with the disk as registered file and our registered buffers.
 * seccomp does not see operations of io_uring, so the ring is restricted to the
 * opcodes listed here, on registered files only.
 */
static int
open_ring(struct engine *engine, unsigned max)
{
	const struct disk *disk = engine->disk;
	/* The last five not if read-only. */
	static const struct io_uring_restriction allowed[] = {
	    {ALLOW(REGISTER_OP, IORING_REGISTER_FILES_UPDATE)},
	    {ALLOW(REGISTER_OP, IORING_UNREGISTER_FILES)},
	    {ALLOW(SQE_FLAGS_REQUIRED, IOSQE_FIXED_FILE)},
	    {ALLOW(SQE_OP, IORING_OP_READ)},
	    {ALLOW(SQE_OP, IORING_OP_READV)},
	    {ALLOW(SQE_OP, IORING_OP_READ_FIXED)},
	    {ALLOW(SQE_OP, IORING_OP_FSYNC)},
	    {ALLOW(SQE_OP, IORING_OP_WRITE)},
	    {ALLOW(SQE_OP, IORING_OP_WRITEV)},
	    {ALLOW(SQE_OP, IORING_OP_WRITE_FIXED)},
	    {ALLOW(SQE_OP, IORING_OP_FALLOCATE)},
	};
	unsigned n =
	    sizeof(allowed) / sizeof(allowed[0]) - (disk->read_only ? 5 : 0);
	const int files[] = {disk->fd, disk->direct, disk->sync, -1};
	struct io_uring *uring = &engine->uring;
	int e;

	if (engine->bounce || disk->direct >= 0) {
		engine->buffers = aligned_alloc(PAGE, BOUNCE_POOL_SIZE);
		if (engine->buffers == NULL)
			return -ENOMEM;
	}
	e = io_uring_queue_init(max, uring, IORING_SETUP_R_DISABLED);
	if (e == 0)
		e = io_uring_register_files(uring, files, RETAINED + 1);
	if (e == 0 && disk->direct >= 0)
		e = io_uring_register_buffers(uring,
		    &(struct iovec){engine->buffers, BOUNCE_POOL_SIZE}, 1);
	/* Debian 12's liburing does not export functions for these two. */
	if (e == 0)
		e = io_uring_register(
		    uring->ring_fd, IORING_REGISTER_RESTRICTIONS, allowed, n);
	if (e == 0)
		e = io_uring_register(
		    uring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	return e;
}

struct engine *
engine_open(const struct disk *disk, unsigned max, struct grants *grants)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int e = -ENOMEM;

	if (engine != NULL) {
		engine->disk = disk;
		engine->grants = grants;
		engine->bounce = grants != NULL;
		e = open_ring(engine, max);
	}
	if (e < 0)
		return log_error(disk->log, -e, "cannot set up io_uring");
	STAILQ_INIT(&engine->queued);
	STAILQ_INIT(&engine->done);
	STAILQ_INIT(&engine->flushing);
	STAILQ_INIT(&engine->flushes);
	return engine;
}

void
engine_advance(struct engine_op *op, uint64_t done)
{
	op->remaining -= done;
	op->offset += done;
	op->done += done;
	while (op->segments > 0 && done >= op->data->iov_len) {
		done -= op->data->iov_len;
		op->data++;
		op->segments--;
	}
	if (done > 0) {
		op->data->iov_base = (char *)op->data->iov_base + done;
		op->data->iov_len -= done;
	}
}

/* Allocate 'len' contiguous bytes of the bounce pool, or NULL. */
static char *
bounce_get(struct engine *engine, uint32_t len)
{
	unsigned wanted = howmany(len, PAGE), found = 0, i = 0;

	while (found < wanted && i < BOUNCE_POOL_SIZE / PAGE)
		found = engine->bounce_used[i++] ? 0 : found + 1;
	if (found < wanted)
		return NULL;
	memset(&engine->bounce_used[i - wanted], true, wanted);
	return engine->buffers + (i - wanted) * PAGE;
}

/* Copy 'len' bytes between iovecs and bounce buffer.  False: not granted. */
static bool
bounce_copy(struct engine *engine, struct engine_op *op, size_t len)
{
	bool read = op->opcode == ENGINE_READ;
	void *status = read && len == op->remaining ? op->status : NULL;
	bool good = guest_copy(
	    engine->grants, op->data, op->bounce.iov_base, len, read, status);

	op->status_written = status != NULL && good;
	return good;
}

/* Reserve what the rest of a transfer needs.  False: not now. */
static bool
admit(struct engine *engine, struct engine_op *op)
{
	const struct disk *disk = engine->disk;

	op->direct = disk->direct >= 0 && !op->force_buffered &&
		     op->offset % disk->logical_block == 0 &&
		     op->remaining % disk->logical_block == 0;
	if (engine->busy[!op->direct] > 0 || engine->budget <= 0)
		return false;
	op->bounce.iov_base = NULL;
	if (op->direct || engine->bounce) {
		op->bounce.iov_len = MIN(op->remaining, BOUNCE_MAX);
		op->bounce.iov_base = bounce_get(engine, op->bounce.iov_len);
		if (op->bounce.iov_base == NULL)
			return false;
	}
	engine->busy[op->direct]++;
	return true;
}

/* Give back what admit() reserved.  The result is 'res', or of the copy. */
static int
release(struct engine *engine, struct engine_op *op, int res)
{
	char *buffer = op->bounce.iov_base;

	engine->busy[op->direct]--;
	if (buffer == NULL)
		return res;
	if (op->opcode == ENGINE_READ && res > 0 &&
	    !bounce_copy(engine, op, res))
		res = -EFAULT;
	memset(&engine->bounce_used[(buffer - engine->buffers) / PAGE], false,
	    howmany(op->bounce.iov_len, PAGE));
	return res;
}

/* Transfer what the budget allows, or the buffer holds.  Bytes or -errno. */
static ssize_t
transfer_sync(struct engine *engine, struct engine_op *op)
{
	const struct iovec *data =
	    op->bounce.iov_base != NULL ? &op->bounce : op->data;
	bool read = op->opcode == ENGINE_READ;
	int64_t len = 0, excess;
	unsigned segments = 0;
	int fd = engine->disk->fd;
	ssize_t n;

	while (segments < op->segments && len < engine->budget)
		len += op->data[segments++].iov_len;
	excess = MAX(len - engine->budget, 0);
	op->data[segments - 1].iov_len -= excess;
	if (segments == 1 || data == &op->bounce) /* cheaper */
		n = read
			? pread(fd, data->iov_base, data->iov_len, op->offset)
			: pwrite(fd, data->iov_base, data->iov_len, op->offset);
	else
		n = read ? preadv(fd, data, segments, op->offset)
			 : pwritev(fd, data, segments, op->offset);
	op->data[segments - 1].iov_len += excess;
	engine->budget -= MAX(roundup(n, PAGE), PAGE);
	return n < 0 ? -errno : n;
}

static bool
is_transfer(const struct engine_op *op)
{
	return op->opcode == ENGINE_READ || op->opcode == ENGINE_WRITE;
}

/* Without io_uring, an operation that is no transfer, with the same result. */
static int
perform(struct engine *engine, const struct engine_op *op)
{
	uint64_t range[] = {op->offset, op->remaining};
	int fd = engine->disk->fd, e;

	engine->budget = 0;
	e = op->opcode == ENGINE_FLUSH ? fdatasync(engine->disk->sync)
	    : op->opcode == ENGINE_DISCARD
		? ioctl(fd, BLKDISCARD, range)
		: fallocate(fd, op->mode, op->offset, op->remaining);
	return e < 0 ? -errno : 0;
}

static void
submit(struct engine *engine, struct engine_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->uring);
	bool read = op->opcode == ENGINE_READ;
	const struct iovec *data =
	    op->bounce.iov_base != NULL ? &op->bounce : op->data;

	if (op->opcode == ENGINE_FLUSH)
		io_uring_prep_fsync(sqe, SYNC, IORING_FSYNC_DATASYNC);
	else if (op->opcode == ENGINE_ALLOCATE)
		io_uring_prep_fallocate(
		    sqe, CACHED, op->mode, op->offset, op->remaining);
	else if (op->direct)
		io_uring_prep_rw(
		    read ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED, sqe,
		    DIRECT, data->iov_base, data->iov_len, op->offset);
	else if (op->segments == 1 || data == &op->bounce) /* cheaper */
		io_uring_prep_rw(read ? IORING_OP_READ : IORING_OP_WRITE, sqe,
		    CACHED, data->iov_base, data->iov_len, op->offset);
	else
		io_uring_prep_rw(read ? IORING_OP_READV : IORING_OP_WRITEV, sqe,
		    CACHED, data, op->segments, op->offset);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, op);
}

void
engine_start(struct engine *engine, struct engine_op *op)
{
	op->done = 0;
	op->error = 0;
	op->retries = 0;
	op->sync = op->opcode == ENGINE_DISCARD ||
		   (engine->disk->on_tmpfs && is_transfer(op));
	op->force_buffered = false;
	engine_advance(op, 0); /* skip empty iovecs */
	if (op->opcode == ENGINE_FLUSH)
		STAILQ_INSERT_TAIL(&engine->flushes, op, link);
	else
		STAILQ_INSERT_TAIL(&engine->queued, op, link);
}

/* The host has no memory even for synchronous I/O: whether to wait. */
static bool
wait_for_memory(struct engine *engine)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (engine->starved_since == 0)
		engine->starved_since = now.tv_sec;
	if (engine->starvation_logged != now.tv_sec)
		log_msg(engine->disk->log, XTL_WARN, -1,
		    "no memory for I/O: trying again");
	engine->starvation_logged = now.tv_sec;
	engine->starved = now.tv_sec - engine->starved_since < STARVATION_MAX;
	return engine->starved;
}

/* The file system needs bounce buffers.  False: this had one, or none left. */
static bool
bounce(struct engine *engine, const struct engine_op *op)
{
	if (engine->buffers == NULL && !engine->disk->on_tmpfs &&
	    (engine->buffers = aligned_alloc(PAGE, BOUNCE_POOL_SIZE)) == NULL)
		return wait_for_memory(engine);
	engine->bounce = engine->buffers != NULL;
	return engine->bounce && op->bounce.iov_base == NULL;
}

/*
 * Whether to retry after 'res', which is not the disk's fault.  ECANCELED: no
 * worker thread for io_uring.  From a flush ENOMEM can be a writeback error.
 */
static bool
is_passing(struct engine *engine, struct engine_op *op, int res)
{
	if (res != -EINTR && res != -EAGAIN && res != -ECANCELED &&
	    (res != -ENOMEM || op->opcode == ENGINE_FLUSH) &&
	    (res != -EFAULT || !is_transfer(op) || engine->grants != NULL))
		return false;
	if (res != -ECANCELED && op->retries++ < RETRIES)
		return true;
	if (res == -EFAULT)
		return bounce(engine, op);
	if (op->sync)
		return res == -ENOMEM && wait_for_memory(engine);
	op->sync = op->force_buffered = true;
	return true;
}

/* An operation has completed with 'res': queue the rest, retry, or return. */
static void
complete(struct engine *engine, struct engine_op *op, int res)
{
	bool again;

	if (is_transfer(op))
		res = release(engine, op, res);
	again = res < 0 && is_passing(engine, op, res);
	if (op->opcode == ENGINE_FLUSH) {
		if (again && !op->sync) {
			submit(engine, op);
			return;
		}
		res = again ? perform(engine, op) : res;
		STAILQ_FOREACH (op, &engine->flushing, link)
			op->error = -res;
		STAILQ_CONCAT(&engine->done, &engine->flushing);
		return;
	}
	if (!again) /* the next may wait as long */
		engine->starved_since = 0;
	/* The file system may need a larger alignment. */
	if (res == -EINVAL && is_transfer(op) && op->direct)
		op->force_buffered = again = true;
	if (res > 0) {
		engine_advance(op, res);
		again = op->remaining > 0;
	} else if (res == 0 && is_transfer(op)) {
		op->error = ENXIO; /* beyond the end of a truncated file */
	} else if (!again) {
		op->error = -res;
	}
	if (again) /* keeps its place in the order */
		STAILQ_INSERT_HEAD(&engine->queued, op, link);
	else
		STAILQ_INSERT_TAIL(&engine->done, op, link);
}

/* Submit queued operations, in the order of arrival. */
static void
start_queued(struct engine *engine)
{
	struct engine_op *op;

	while ((op = STAILQ_FIRST(&engine->queued)) != NULL) {
		if (engine->starved || (op->sync && engine->budget <= 0) ||
		    (is_transfer(op) && !admit(engine, op)))
			return;
		STAILQ_REMOVE_HEAD(&engine->queued, link);
		if (op->opcode == ENGINE_WRITE && op->bounce.iov_base != NULL &&
		    !bounce_copy(engine, op, op->bounce.iov_len)) {
			complete(engine, op, -EFAULT);
		} else if (op->sync) {
			complete(engine, op,
			    is_transfer(op) ? transfer_sync(engine, op)
					    : perform(engine, op));
		} else {
			engine->budget -= roundup(op->remaining, PAGE);
			submit(engine, op);
		}
	}
}

static void
kick(struct engine *engine)
{
	int e;

	start_queued(engine);
	/* One fsync for all flushes since the last, once that is complete. */
	if (STAILQ_EMPTY(&engine->flushing) &&
	    !STAILQ_EMPTY(&engine->flushes)) {
		STAILQ_CONCAT(&engine->flushing, &engine->flushes);
		submit(engine, STAILQ_FIRST(&engine->flushing));
	}
	if (io_uring_sq_ready(&engine->uring) == 0)
		return;
	/* SQEs that are not consumed stay for the next time. */
	e = io_uring_submit(&engine->uring);
	if (e < 0 && e != engine->submit_error && e != -EINTR && e != -EAGAIN &&
	    e != -EBUSY)
		log_msg(engine->disk->log, XTL_CRITICAL, -e,
		    "cannot submit to io_uring");
	engine->submit_error = e;
}

void
engine_kick(struct engine *engine)
{
	engine->budget = KICK_BUDGET;
	engine->starved = false;
	kick(engine);
}

bool
engine_pending(const struct engine *engine)
{
	return engine->budget <= 0 && !engine->starved &&
	       !STAILQ_EMPTY(&engine->queued);
}

bool
engine_starved(const struct engine *engine)
{
	return engine->starved || io_uring_sq_ready(&engine->uring) > 0;
}

struct engine_op *
engine_reap(struct engine *engine)
{
	struct io_uring_cqe *cqe;
	struct engine_op *op;

	while ((op = STAILQ_FIRST(&engine->done)) == NULL) {
		/* What was resubmitted may complete at once. */
		if (!io_uring_peek_batch_cqe(&engine->uring, &cqe, 1)) {
			kick(engine);
			if (!STAILQ_EMPTY(&engine->done))
				continue;
			if (!io_uring_peek_batch_cqe(&engine->uring, &cqe, 1))
				return NULL;
		}
		complete(engine, io_uring_cqe_get_data(cqe), cqe->res);
		io_uring_cqe_seen(&engine->uring, cqe);
	}
	STAILQ_REMOVE_HEAD(&engine->done, link);
	return op;
}

int
engine_fd(const struct engine *engine)
{
	return engine->uring.ring_fd;
}

bool
engine_retain(struct engine *engine, int fd)
{
	int e =
	    io_uring_register_files_update(&engine->uring, RETAINED, &fd, 1);

	return e >= 0 ||
	       log_error(engine->disk->log, -e, "cannot set up io_uring");
}

void
engine_close(struct engine *engine)
{
	io_uring_unregister_files(&engine->uring);
}
