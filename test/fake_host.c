/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_uring_submit() and more of a host that fails.  An operation that is to
 * fail becomes one that the kernel refuses at once, and whose result is written
 * over; one that is to be short is given less to do.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/uio.h>

#include <liburing.h>
#include <linux/magic.h>

#include "fake_host.h"

static struct fake_host *host;
static struct iovec shortened[512];

static void attach(void) __attribute__((constructor));

static void
attach(void)
{
	const char *path = getenv(FAKE_HOST);
	int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd != -1)
		host = mmap(NULL, sizeof(*host), PROT_READ | PROT_WRITE,
		    MAP_SHARED, fd, 0);
	if (host == NULL || host == MAP_FAILED)
		abort();
}

/*
 * The disk is on tmpfs, which is hidden from vdisk, or it would not use
 * io_uring.
 */
int
fstatfs(int fd, struct statfs *fs)
{
	(void)fd;
	*fs = (struct statfs){.f_type = EXT4_SUPER_MAGIC};
	return 0;
}

int
sched_yield(void)
{
	host->yields++;
	return 0;
}

static void
record(const struct io_uring_sqe *sqe)
{
	if (sqe->opcode == IORING_OP_FSYNC) {
		host->fsyncs++;
		host->datasyncs += sqe->fsync_flags & IORING_FSYNC_DATASYNC;
	} else if (sqe->opcode == IORING_OP_WRITE ||
		   sqe->opcode == IORING_OP_WRITEV) {
		host->writes++;
	} else {
		host->reads++;
	}
}

/*
 * Let the operation transfer at most host->limit bytes, of one segment.
 */
static void
shorten(struct io_uring_sqe *sqe, unsigned i)
{
	struct iovec *iov = &shortened[i];

	switch (sqe->opcode) {
	case IORING_OP_READV:
	case IORING_OP_WRITEV:
		*iov = *(struct iovec *)(uintptr_t)sqe->addr;
		if (iov->iov_len > host->limit)
			iov->iov_len = host->limit;
		sqe->addr = (uintptr_t)iov;
		sqe->len = 1;
		break;
	case IORING_OP_READ:
	case IORING_OP_WRITE:
		if (sqe->len > host->limit)
			sqe->len = host->limit;
		break;
	default:
		break;
	}
}

static void
overwrite(struct io_uring *ring, uint64_t data, int res)
{
	struct io_uring_cqe *cqe;
	unsigned head;

	io_uring_for_each_cqe(ring, head, cqe)
	{
		if (cqe->user_data == data)
			cqe->res = res;
	}
}

int
io_uring_submit(struct io_uring *ring)
{
	static int (*submit)(struct io_uring *);
	static uint64_t failed[512];
	unsigned n = 0;
	int result;

	if (submit == NULL)
		*(void **)&submit = dlsym(RTLD_NEXT, "io_uring_submit");
	if (host->refuse > 0) {
		host->refuse--;
		return -(int)host->error;
	}
	for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++)
		if (host->hold &&
		    ring->sq.sqes[i & ring->sq.ring_mask].opcode ==
			IORING_OP_FSYNC) {
			host->held++;
			return 0;
		}
	for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
		struct io_uring_sqe *sqe =
		    &ring->sq.sqes[i & ring->sq.ring_mask];

		record(sqe);
		if (host->fail > 0 &&
		    !(host->spare && sqe->opcode == IORING_OP_FSYNC)) {
			host->fail--;
			failed[n++] = sqe->user_data;
			*sqe = (struct io_uring_sqe){.opcode = IORING_OP_READ,
			    .rw_flags = -1,
			    .flags = IOSQE_FIXED_FILE,
			    .user_data = sqe->user_data};
		} else if (host->limit > 0) {
			shorten(sqe, i & ring->sq.ring_mask);
		}
	}
	result = submit(ring);
	while (n > 0)
		overwrite(ring, failed[--n], -(int)host->error);
	return result;
}
