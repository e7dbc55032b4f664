/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An interposed io_uring_submit().  Operations are shortened by giving the
 * kernel less to do, so that a short transfer is a real one.  Those that are to
 * fail are replaced by ones that the kernel refuses at once, and whose result
 * is written over.
 */
#include <errno.h>
#include <sys/statfs.h>
#include <sys/uio.h>

#include <check.h>
#include <liburing.h>
#include <linux/magic.h>

#include "fake_uring.h"
#include "sqe.h"

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __real_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs);

ssize_t __real_pread(int fd, void *data, size_t len, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t len, off_t offset);
ssize_t __real_pwrite(int fd, const void *data, size_t len, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t offset);
#pragma weak __real_pread
#pragma weak __real_pwrite

struct fake_uring fake_uring;

static struct iovec shortened[1024];
static unsigned nshortened;

void
fake_uring_init(void)
{
	fake_uring = (struct fake_uring){.file_end = UINT64_MAX};
}

int
__wrap_fstatfs(int fd, struct statfs *fs)
{
	int result = __real_fstatfs(fd, fs);

	if (!fake_uring.show_tmpfs && fs->f_type == TMPFS_MAGIC)
		fs->f_type = EXT4_SUPER_MAGIC;
	return result;
}

static bool
starve(void)
{
	if (fake_uring.starve == 0)
		return false;
	fake_uring.starve--;
	errno = ENOMEM;
	return true;
}

ssize_t
__wrap_pread(int fd, void *data, size_t len, off_t offset)
{
	return starve() ? -1 : __real_pread(fd, data, len, offset);
}

ssize_t
__wrap_pwrite(int fd, const void *data, size_t len, off_t offset)
{
	return starve() ? -1 : __real_pwrite(fd, data, len, offset);
}

static bool
is_refused(const struct io_uring_sqe *sqe)
{
	/* Where fallocate() has its mode, others have a length. */
	return sqe->opcode == IORING_OP_FALLOCATE &&
	       (sqe->len & fake_uring.refuse) != 0;
}

static bool
is_misplaced(const struct io_uring_sqe *sqe)
{
	return is_direct(sqe) && fake_uring.unit != 0 &&
	       (sqe->off % fake_uring.unit != 0 ||
		   sqe->len % fake_uring.unit != 0);
}

/*
 * Whether the memory is not of our own: a buffer of engine.c's is whole pages,
 * and a piece of a request in a test never is.
 */
static bool
is_foreign(const struct io_uring_sqe *sqe)
{
	return fake_uring.no_foreign && (is_read(sqe) || is_write(sqe)) &&
	       (is_vector(sqe) || sqe->addr % 4096 != 0);
}

static uint64_t
length(const struct io_uring_sqe *sqe)
{
	const struct iovec *iov = (const struct iovec *)(uintptr_t)sqe->addr;
	uint64_t sum = 0;

	if (!is_vector(sqe))
		return sqe->len;
	for (unsigned i = 0; i < sqe->len; i++)
		sum += iov[i].iov_len;
	return sum;
}

static void
record(const struct io_uring_sqe *sqe)
{
	if (is_read(sqe))
		fake_uring.reads++;
	else if (is_write(sqe))
		fake_uring.writes++;
	else
		fake_uring.others++;
	fake_uring.directs += is_direct(sqe) && !is_misplaced(sqe);
	if (sqe->opcode == IORING_OP_FSYNC &&
	    (sqe->fsync_flags & IORING_FSYNC_DATASYNC))
		fake_uring.datasyncs++;
	if ((is_read(sqe) || is_write(sqe)) &&
	    sqe->off + length(sqe) > fake_uring.file_end)
		fake_uring.out_of_file++;
}

/*
 * Let the operation transfer at most 'limit' bytes; direct I/O in whole blocks,
 * one at least.
 */
static void
shorten(struct io_uring_sqe *sqe, uint32_t limit)
{
	const struct iovec *iov = (const struct iovec *)(uintptr_t)sqe->addr;
	unsigned n = sqe->len;

	if (is_direct(sqe))
		limit = limit < 512 ? 512 : limit / 512 * 512;
	if (!is_vector(sqe)) {
		if (sqe->len > limit)
			sqe->len = limit;
		return;
	}
	sqe->addr = (uintptr_t)&shortened[nshortened];
	sqe->len = 0;
	for (unsigned i = 0; i < n && limit > 0; i++) {
		struct iovec *to = &shortened[nshortened++];

		ck_assert_uint_le(
		    nshortened, sizeof(shortened) / sizeof(shortened[0]));
		*to = iov[i];
		if (to->iov_len > limit)
			to->iov_len = limit;
		limit -= to->iov_len;
		sqe->len++;
	}
}

static void
replace(struct io_uring_sqe *sqe)
{
	uint64_t data = sqe->user_data;

	*sqe = (struct io_uring_sqe){.opcode = IORING_OP_READ,
	    .rw_flags = -1,
	    .flags = IOSQE_FIXED_FILE,
	    .user_data = data};
}

static void
overwrite_result(struct io_uring *ring, uint64_t data, int res)
{
	struct io_uring_cqe *cqe;
	unsigned head;

	io_uring_for_each_cqe(ring, head, cqe)
	{
		if (cqe->user_data == data) {
			cqe->res = res;
			return;
		}
	}
	ck_abort_msg("an operation was not refused at once");
}

int
__wrap_io_uring_submit(struct io_uring *ring)
{
	unsigned n = io_uring_sq_ready(ring), nfailed = 0;
	static struct {
		uint64_t data;
		int error;
	} failed[4096];
	int result;

	fake_uring.ring = ring;
	if (fake_uring.hold)
		return n;
	if (n > 0)
		fake_uring.submits++;
	nshortened = 0;
	for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
		struct io_uring_sqe *sqe =
		    &ring->sq.sqes[i & ring->sq.ring_mask];

		int error = 0;

		if (is_refused(sqe))
			error = fake_uring.refusal != 0 ? fake_uring.refusal
							: EOPNOTSUPP;
		if (is_misplaced(sqe))
			error = EINVAL;
		if (is_foreign(sqe))
			error = EFAULT;
		record(sqe);
		if (fake_uring.fail > 0 && fake_uring.spare > 0) {
			fake_uring.spare--;
		} else if (fake_uring.fail > 0) {
			fake_uring.fail--;
			error = fake_uring.error;
		}
		if (error != 0) {
			failed[nfailed].data = sqe->user_data;
			failed[nfailed++].error = error;
			replace(sqe);
			continue;
		}
		if (fake_uring.limit > 0 && (is_read(sqe) || is_write(sqe)))
			shorten(sqe, fake_uring.limit);
	}
	if (fake_uring.wait)
		result =
		    io_uring_submit_and_wait(ring, io_uring_cq_ready(ring) + n);
	else
		result = __real_io_uring_submit(ring);
	while (nfailed-- > 0)
		overwrite_result(
		    ring, failed[nfailed].data, -failed[nfailed].error);
	return result;
}
