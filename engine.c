/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The execution of operations on the disk through io_uring.  Owns the ring, and
 * what it takes to bring an operation to its end: those that the kernel did in
 * part or not at all, and flushes that are done together.  Does not know what
 * an operation is for.
 *
 * Each operation is at any time at most one of the kernel's, so that there is
 * room in the ring.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/param.h>

#include <liburing.h>
#include <xentoollog.h>

#include "disk.h"
#include "engine.h"

/* What is transferred at once at most; the kernel's own limit is higher. */
#define TRANSFER_MAX (UINT32_C(1) << 30)

/*
 * How often an operation is started again after EINTR, EAGAIN, or EFAULT: guest
 * memory can be missing for a moment while more of it is being mapped.
 */
#define RETRIES 16

struct engine {
	xentoollog_logger *log;
	struct io_uring uring;
	int refusal; /* how the last submission ended */
	struct engine_ops done;
	/* Flushes: those that the kernel carries out, as one, and the next. */
	struct engine_ops flushing, flushes;
};

/*
 * Set up the ring.  By a ring can be done what no filter of system calls sees:
 * ours does what is listed here and nothing else, and on our file only.
 */
static int
open_ring(struct io_uring *uring, int fd, bool read_only, unsigned max)
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
	unsigned n = read_only ? 4 : sizeof(allowed) / sizeof(allowed[0]);
	int e;

	e = io_uring_queue_init(max, uring, IORING_SETUP_R_DISABLED);
	if (e == 0)
		e = io_uring_register_files(uring, &fd, 1);
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
engine_open(struct xentoollog_logger *log, const struct disk *disk,
    bool read_only, unsigned max)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int e = -ENOMEM;

	if (engine != NULL)
		e = open_ring(&engine->uring, disk->fd, read_only, max);
	if (e < 0) {
		xtl_log(log, XTL_ERROR, -e, "vdisk", "cannot set up io_uring");
		free(engine);
		return NULL;
	}
	engine->log = log;
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
 * Hand the rest of the operation to io_uring.
 */
static void
go_on(struct engine *engine, struct engine_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->uring);
	/* The simpler form costs the kernel less. */
	bool one = op->segments == 1;
	const void *data = one ? op->data->iov_base : (void *)op->data;
	unsigned len =
	    one ? MIN(op->data->iov_len, TRANSFER_MAX) : op->segments;

	if (op->what == ENGINE_FLUSH)
		io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
	else if (op->what == ENGINE_ALLOCATE)
		io_uring_prep_fallocate(sqe, 0, op->mode, op->offset, op->left);
	else if (op->what == ENGINE_READ)
		io_uring_prep_rw(one ? IORING_OP_READ : IORING_OP_READV, sqe, 0,
		    data, len, op->offset);
	else
		io_uring_prep_rw(one ? IORING_OP_WRITE : IORING_OP_WRITEV, sqe,
		    0, data, len, op->offset);
	if (op->what == ENGINE_WRITE && op->stable)
		sqe->rw_flags = RWF_DSYNC;
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, op);
}

void
engine_start(struct engine *engine, struct engine_op *op)
{
	op->done = 0;
	op->error = 0;
	op->retries = 0;
	if (op->what == ENGINE_FLUSH) {
		STAILQ_INSERT_TAIL(&engine->flushes, op, link);
		return;
	}
	advance(op, 0); /* past what is empty */
	go_on(engine, op);
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
	go_on(engine, STAILQ_FIRST(&engine->flushing));
}

/*
 * The kernel has finished with the operation, with result 'res'.
 */
static void
complete(struct engine *engine, struct engine_op *op, int res)
{
	struct engine_op *flush;

	if ((res == -EINTR || res == -EAGAIN || res == -EFAULT) &&
	    op->retries++ < RETRIES) {
		go_on(engine, op);
		return;
	}
	if (op->what == ENGINE_FLUSH) {
		STAILQ_FOREACH (flush, &engine->flushing, link)
			flush->error = -res;
		STAILQ_CONCAT(&engine->done, &engine->flushing);
		return;
	}
	if (res > 0) {
		advance(op, res);
		if (op->left > 0) {
			go_on(engine, op);
			return;
		}
	}
	if (res < 0)
		op->error = -res;
	else if (res == 0 && op->what != ENGINE_ALLOCATE)
		op->error = ENXIO; /* the file is smaller than it was */
	STAILQ_INSERT_TAIL(&engine->done, op, link);
}

void
engine_kick(struct engine *engine)
{
	int e;

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

struct engine_op *
engine_reap(struct engine *engine)
{
	struct io_uring_cqe *cqe;
	struct engine_op *op;

	while ((op = STAILQ_FIRST(&engine->done)) == NULL) {
		/* Before we say "nothing yet", what goes on may do so. */
		if (io_uring_peek_cqe(&engine->uring, &cqe) != 0) {
			engine_kick(engine);
			if (io_uring_peek_cqe(&engine->uring, &cqe) != 0)
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
