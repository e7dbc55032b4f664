/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an operation of io_uring is, for those that stand between engine.c and
 * the kernel.
 */
#ifndef SQE_H
#define SQE_H

#include <stdbool.h>

#include <liburing.h>

static inline bool
is_read(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == IORING_OP_READV ||
	       sqe->opcode == IORING_OP_READ ||
	       sqe->opcode == IORING_OP_READ_FIXED;
}

static inline bool
is_write(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == IORING_OP_WRITEV ||
	       sqe->opcode == IORING_OP_WRITE ||
	       sqe->opcode == IORING_OP_WRITE_FIXED;
}

/* Direct I/O: engine.c registers buffers for nothing else. */
static inline bool
is_direct(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == IORING_OP_READ_FIXED ||
	       sqe->opcode == IORING_OP_WRITE_FIXED;
}

/* Of memory in pieces, each an iovec. */
static inline bool
is_vector(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == IORING_OP_READV ||
	       sqe->opcode == IORING_OP_WRITEV;
}

#endif
