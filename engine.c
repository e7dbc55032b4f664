/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The execution of operations on the disk through io_uring.  Owns the ring, and
 * what it takes to bring an operation to its end: those that the kernel did in
 * part or not at all, and flushes that are done together.  Does not know what
 * an operation is for.
 *
 * Each operation is at any time at most one of the kernel's, so that there is
 * room in the ring.
 *
 * I/O without the page cache cannot be done on a guest's memory, for to Linux
 * that is no memory of its own.  So it is done on buffers, of which there is a
 * limited amount, and which are given out in the order of arrival.  Whatever is
 * not of whole blocks goes through the page cache all the same, which knows how
 * to write a part of one, and the last one of a file.  The two are never at work
 * at the same time: each finds what the other has written, but only when it
 * begins after that.  Some file systems (FUSE, 9p) cannot even do I/O that is
 * cached on such memory, and get the buffers, too.
 *
 * On a file that is in memory there is nothing to wait for.  io_uring, which
 * does not know, would hand each operation to a thread, which costs more than
 * the operation; so they are done at once.  What is cached io_uring does at once
 * as well, and to start what is not takes it time.  So of either only so much is
 * done before the vCPUs are looked after again.  What io_uring cannot do since
 * the host is short of something is done at once, too, however long that takes.
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
#include <xentoollog.h>

#include "disk.h"
#include "engine.h"

/*
 * How often an operation is started again after EINTR, EAGAIN, ENOMEM or EFAULT:
 * guest memory can be missing for a moment while more of it is being mapped.
 */
#define RETRIES 16

/* Seconds for which the host may have no memory for an operation. */
#define STARVATION_MAX 30

/*
 * The buffers: together; what one operation gets of that at most; and at least,
 * which is as well aligned as any disk wants it.
 */
#define BUFFERS (UINT32_C(4) << 20)
#define PIECE	(UINT32_C(1) << 20)
#define PAGE	UINT32_C(4096)

/*
 * Bytes that are read and written in one go, in whole pages: of what is in
 * memory or cached, some ten microseconds.  For so long a vCPU may have to wait,
 * and the guest learns what is done of many requests while we do the next ones.
 */
#define AT_ONCE (UINT32_C(32) << 10)

/* The files of the ring; the last one is only kept open. */
enum { CACHED, DIRECT, SYNC, RETAINED };

struct engine {
	struct io_uring uring;
	xentoollog_logger *log;
	int refusal;   /* how the last submission ended */
	uint32_t unit; /* of direct I/O, in bytes; 0: there is none */
	char *buffers;
	bool taken[BUFFERS / PAGE];
	bool bounce;	  /* cached I/O needs the buffers, too */
	unsigned busy[2]; /* transfers that the kernel has: cached, direct */
	int fd, sync;	  /* the disk */
	bool in_memory;	  /* ... and nowhere else */
	int64_t budget;	  /* bytes left to transfer in this go */
	bool starved;	  /* no memory: wait for the next go */
	time_t starved_since;	   /* second; 0: it is not */
	struct engine_ops waiting; /* to be handed to the kernel */
	struct engine_ops done;
	/* Flushes: those that the kernel carries out, as one, and the next. */
	struct engine_ops flushing, flushes;
};

/*
 * Set up the ring, with the disk's descriptors and our buffers.  By a ring can
 * be done what no filter of system calls sees: ours does what is listed here and
 * nothing else, and on our file only.
 */
static int
open_ring(struct engine *engine, const struct disk *disk, unsigned max)
{
	struct io_uring_restriction allowed[] = {
	    {.opcode = IORING_RESTRICTION_REGISTER_OP,
		.register_op = IORING_REGISTER_FILES_UPDATE},
	    {.opcode = IORING_RESTRICTION_REGISTER_OP,
		.register_op = IORING_UNREGISTER_FILES},
	    {.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
		.sqe_flags = IOSQE_FIXED_FILE},
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
	    {.opcode = IORING_RESTRICTION_SQE_OP,
		.sqe_op = IORING_OP_READ_FIXED},
	    /* From here on not if read-only. */
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
	    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
	    {.opcode = IORING_RESTRICTION_SQE_OP,
		.sqe_op = IORING_OP_WRITE_FIXED},
	    {.opcode = IORING_RESTRICTION_SQE_OP,
		.sqe_op = IORING_OP_FALLOCATE},
	};
	unsigned n = disk->read_only ? 6 : sizeof(allowed) / sizeof(allowed[0]);
	struct iovec buffers = {NULL, BUFFERS};
	const int files[] = {disk->fd, disk->direct, disk->sync, -1};
	struct io_uring *uring = &engine->uring;
	int e;

	e = io_uring_queue_init(max, uring, IORING_SETUP_R_DISABLED);
	if (e == 0)
		e = io_uring_register_files(uring, files, RETAINED + 1);
	if (e == 0 && disk->direct >= 0) {
		engine->unit = disk->logical;
		engine->buffers = aligned_alloc(PAGE, BUFFERS);
		buffers.iov_base = engine->buffers;
		e = io_uring_register_buffers(uring, &buffers, 1);
	}
	/* Debian 12's liburing does not export its functions for these two. */
	if (e == 0)
		e = io_uring_register(
		    uring->ring_fd, IORING_REGISTER_RESTRICTIONS, allowed, n);
	if (e == 0)
		e = io_uring_register(
		    uring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	return e;
}

struct engine *
engine_open(const struct disk *disk, unsigned max)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int e = -ENOMEM;

	if (engine != NULL)
		e = open_ring(engine, disk, max);
	if (e < 0) {
		xtl_log(disk->log, XTL_ERROR, -e, "vdisk",
		    "cannot set up io_uring");
		return NULL;
	}
	engine->log = disk->log;
	engine->fd = disk->fd;
	engine->sync = disk->sync;
	engine->in_memory = disk->in_memory;
	STAILQ_INIT(&engine->waiting);
	STAILQ_INIT(&engine->done);
	STAILQ_INIT(&engine->flushing);
	STAILQ_INIT(&engine->flushes);
	return engine;
}

/*
 * The first 'done' bytes of what was left are transferred.
 */
static void
advance(struct engine_op *op, uint64_t done)
{
	op->left -= done;
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

/*
 * Buffers for 'len' bytes in a row; NULL if there are none at the moment.
 */
static char *
get_buffer(struct engine *engine, uint32_t len)
{
	unsigned wanted = howmany(len, PAGE), found = 0, i = 0;

	while (found < wanted && i < BUFFERS / PAGE)
		found = engine->taken[i++] ? 0 : found + 1;
	if (found < wanted)
		return NULL;
	memset(&engine->taken[i - wanted], true, wanted);
	return engine->buffers + (i - wanted) * PAGE;
}

static void
put_buffer(struct engine *engine, const char *buffer, uint32_t len)
{
	memset(&engine->taken[(buffer - engine->buffers) / PAGE], false,
	    howmany(len, PAGE));
}

/*
 * Copy the next 'len' bytes between the operation's data and its buffer.
 */
static void
copy(const struct engine_op *op, size_t len)
{
	const struct iovec *iov = op->data;
	size_t some;

	for (char *p = op->buffer; len > 0; p += some, len -= some, iov++) {
		some = MIN(len, iov->iov_len);
		if (op->what == ENGINE_READ)
			memcpy(iov->iov_base, p, some);
		else
			memcpy(p, iov->iov_base, some);
	}
}

/*
 * Whether the rest of a transfer can begin now.  If so, it has what it takes.
 */
static bool
admit(struct engine *engine, struct engine_op *op)
{
	uint32_t unit = engine->unit;

	op->direct = unit != 0 && !op->cached && op->offset % unit == 0 &&
		     op->left % unit == 0;
	if (engine->busy[!op->direct] > 0 || engine->budget <= 0)
		return false;
	op->buffer = NULL;
	if (op->direct || engine->bounce) {
		op->len = MIN(op->left, PIECE);
		op->buffer = get_buffer(engine, op->len);
		if (op->buffer == NULL)
			return false;
		if (op->what == ENGINE_WRITE)
			copy(op, op->len);
	}
	engine->busy[op->direct]++;
	return true;
}

static void
release(struct engine *engine, struct engine_op *op, int done)
{
	engine->busy[op->direct]--;
	if (op->buffer == NULL)
		return;
	if (op->what == ENGINE_READ && done > 0)
		copy(op, done);
	put_buffer(engine, op->buffer, op->len);
}

/*
 * Transfer the next segments from or to memory.  The number of bytes or -1.
 */
static ssize_t
transfer_now(int fd, const struct engine_op *op, unsigned segments)
{
	bool read = op->what == ENGINE_READ;
	void *data = op->buffer != NULL ? op->buffer : op->data->iov_base;
	size_t len = op->buffer != NULL ? op->len : op->data->iov_len;

	if (segments == 1 || op->buffer != NULL) /* costs the kernel less */
		return read ? pread(fd, data, len, op->offset)
			    : pwrite(fd, data, len, op->offset);
	return read ? preadv(fd, op->data, segments, op->offset)
		    : pwritev(fd, op->data, segments, op->offset);
}

/*
 * Transfer of the rest what the budget allows, from or to memory; or what the
 * buffer holds.  The number of bytes or -errno.
 */
static ssize_t
transfer(struct engine *engine, struct engine_op *op)
{
	int64_t len = 0, beyond;
	unsigned segments = 0;
	struct iovec *last;
	ssize_t n;

	while (segments < op->segments && len < engine->budget)
		len += op->data[segments++].iov_len;
	last = &op->data[segments - 1];
	beyond = MAX(len - engine->budget, 0);
	last->iov_len -= beyond;
	n = transfer_now(engine->fd, op, segments);
	last->iov_len += beyond;
	engine->budget -= MAX(roundup(n, PAGE), PAGE);
	return n < 0 ? -errno : n;
}

static bool
is_transfer(const struct engine_op *op)
{
	return op->what == ENGINE_READ || op->what == ENGINE_WRITE;
}

/*
 * Do without io_uring what can be done at once.  What io_uring would say.
 */
static int
perform(struct engine *engine, struct engine_op *op)
{
	uint64_t range[] = {op->offset, op->left};
	int result;

	if (is_transfer(op))
		return transfer(engine, op);
	engine->budget = 0;
	if (op->what == ENGINE_FLUSH)
		result = fdatasync(engine->sync);
	else if (op->what == ENGINE_DISCARD)
		result = ioctl(engine->fd, BLKDISCARD, range);
	else
		result = fallocate(engine->fd, op->mode, op->offset, op->left);
	return result < 0 ? -errno : 0;
}

/*
 * Hand the rest of the operation to io_uring, or of a transfer the first of it.
 */
static void
submit(struct engine *engine, struct engine_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->uring);
	bool read = op->what == ENGINE_READ;

	if (op->what == ENGINE_FLUSH)
		io_uring_prep_fsync(sqe, SYNC, IORING_FSYNC_DATASYNC);
	else if (op->what == ENGINE_ALLOCATE)
		io_uring_prep_fallocate(
		    sqe, CACHED, op->mode, op->offset, op->left);
	else if (op->direct)
		io_uring_prep_rw(
		    read ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED, sqe,
		    DIRECT, op->buffer, op->len, op->offset);
	else if (op->buffer != NULL)
		io_uring_prep_rw(read ? IORING_OP_READ : IORING_OP_WRITE, sqe,
		    CACHED, op->buffer, op->len, op->offset);
	else if (op->segments == 1) /* which costs the kernel less */
		io_uring_prep_rw(read ? IORING_OP_READ : IORING_OP_WRITE, sqe,
		    CACHED, op->data->iov_base, op->data->iov_len, op->offset);
	else
		io_uring_prep_rw(read ? IORING_OP_READV : IORING_OP_WRITEV, sqe,
		    CACHED, op->data, op->segments, op->offset);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, op);
}

/*
 * Start the flushes that have come since the last ones were started, when those
 * are done.  One operation does for all: whatever was written before any of
 * them was written before it.
 */
static void
start_flushes(struct engine *engine)
{
	if (!STAILQ_EMPTY(&engine->flushing) || STAILQ_EMPTY(&engine->flushes))
		return;
	STAILQ_CONCAT(&engine->flushing, &engine->flushes);
	submit(engine, STAILQ_FIRST(&engine->flushing));
}

void
engine_start(struct engine *engine, struct engine_op *op)
{
	op->done = 0;
	op->error = 0;
	op->retries = 0;
	op->sync = op->what == ENGINE_DISCARD ||
		   (engine->in_memory && is_transfer(op));
	op->cached = false;
	op->buffer = NULL;
	if (op->what == ENGINE_FLUSH) {
		STAILQ_INSERT_TAIL(&engine->flushes, op, link);
		return;
	}
	advance(op, 0); /* past what is empty */
	STAILQ_INSERT_TAIL(&engine->waiting, op, link);
}

/*
 * The kernel has finished with all flushes that it had.
 */
static void
complete_flushes(struct engine *engine, int error)
{
	struct engine_op *op;

	STAILQ_FOREACH (op, &engine->flushing, link)
		op->error = error;
	STAILQ_CONCAT(&engine->done, &engine->flushing);
}

/*
 * The memory of the guest cannot be used by this file system: from now on it
 * gets buffers.  False: it had one, or there are none.
 */
static bool
bounce(struct engine *engine, const struct engine_op *op)
{
	if (engine->buffers == NULL && !engine->in_memory)
		engine->buffers = aligned_alloc(PAGE, BUFFERS);
	engine->bounce = engine->buffers != NULL;
	return engine->bounce && op->buffer == NULL;
}

/*
 * The host has no memory even for what we do ourselves: whether to wait.
 */
static bool
wait_for_memory(struct engine *engine)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (engine->starved_since == 0) {
		xtl_log(engine->log, XTL_WARN, -1, "vdisk",
		    "no memory for I/O: trying again");
		engine->starved_since = now.tv_sec;
	}
	engine->starved = now.tv_sec - engine->starved_since < STARVATION_MAX;
	return engine->starved;
}

/*
 * Whether an operation that ended with 'res' is to be started again: this was
 * no fault of the disk's.  ECANCELED is io_uring's word for a thread that it
 * needs and does not get.  From a flush, ENOMEM can be what became of data.
 */
static bool
is_passing(struct engine *engine, struct engine_op *op, int res)
{
	if (res != -EINTR && res != -EAGAIN && res != -ECANCELED &&
	    (res != -ENOMEM || op->what == ENGINE_FLUSH) &&
	    (res != -EFAULT || !is_transfer(op)))
		return false;
	if (res != -ECANCELED && op->retries++ < RETRIES)
		return true;
	if (res == -EFAULT)
		return bounce(engine, op);
	if (op->sync)
		return res == -ENOMEM && wait_for_memory(engine);
	op->sync = op->cached = true;
	return true;
}

/*
 * The kernel has finished with the operation, with result 'res'.
 */
static void
complete(struct engine *engine, struct engine_op *op, int res)
{
	bool again = res < 0 && is_passing(engine, op, res);

	if (op->what == ENGINE_FLUSH) {
		if (again && !op->sync)
			submit(engine, op);
		else
			complete_flushes(
			    engine, -(again ? perform(engine, op) : res));
		return;
	}
	if (res >= 0)
		engine->starved_since = 0;
	if (is_transfer(op)) {
		release(engine, op, res);
		/* The blocks of what a file is on can be larger. */
		if (res == -EINVAL && op->direct)
			op->cached = again = true;
	}
	if (res > 0) {
		advance(op, res);
		again = op->left > 0;
	} else if (res == 0 && is_transfer(op)) {
		op->error = ENXIO; /* the file is smaller than it was */
	} else if (!again) {
		op->error = -res;
	}
	if (again) /* it came before all that have not been started */
		STAILQ_INSERT_HEAD(&engine->waiting, op, link);
	else
		STAILQ_INSERT_TAIL(&engine->done, op, link);
}

/*
 * Start what waits, in the order of arrival.
 */
static void
start_waiting(struct engine *engine)
{
	struct engine_op *op;

	while ((op = STAILQ_FIRST(&engine->waiting)) != NULL) {
		if (engine->starved || (op->sync && engine->budget <= 0) ||
		    (is_transfer(op) && !admit(engine, op)))
			return;
		STAILQ_REMOVE_HEAD(&engine->waiting, link);
		if (op->sync) {
			complete(engine, op, perform(engine, op));
		} else {
			engine->budget -= roundup(op->left, PAGE);
			submit(engine, op);
		}
	}
}

/*
 * Start what can be started now.
 */
static void
kick(struct engine *engine)
{
	int e;

	start_waiting(engine);
	start_flushes(engine);
	if (io_uring_sq_ready(&engine->uring) == 0)
		return;
	/* What is not taken now stays queued for the next time. */
	e = io_uring_submit(&engine->uring);
	if (e < 0 && e != engine->refusal && e != -EINTR && e != -EAGAIN &&
	    e != -EBUSY)
		xtl_log(engine->log, XTL_CRITICAL, -e, "vdisk",
		    "cannot submit to io_uring");
	engine->refusal = e;
}

void
engine_kick(struct engine *engine)
{
	engine->budget = AT_ONCE;
	engine->starved = false;
	kick(engine);
}

bool
engine_pending(const struct engine *engine)
{
	return engine->budget <= 0 && !engine->starved &&
	       !STAILQ_EMPTY(&engine->waiting);
}

struct engine_op *
engine_reap(struct engine *engine)
{
	struct io_uring_cqe *cqe;
	struct engine_op *op;

	while ((op = STAILQ_FIRST(&engine->done)) == NULL) {
		/* Before we say "nothing yet", what goes on may do so. */
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

	if (e < 0)
		xtl_log(engine->log, XTL_ERROR, -e, "vdisk",
		    "cannot set up io_uring");
	return e >= 0;
}

void
engine_close(struct engine *engine)
{
	io_uring_unregister_files(&engine->uring);
}
