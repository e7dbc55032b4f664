/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests of virtio-blk (virtio 1.2, 5.2.6) on files in the temporary
 * directory, in any framing, succeeding and failing.  Every buffer of a request
 * is a piece of memory of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <liburing.h>
#include <linux/magic.h>
#include <linux/virtio_blk.h>

#include "blk.h"
#include "cases.h"
#include "disk.h"
#include "fake_log.h"
#include "fake_uring.h"

#define SECTORS	     64
#define SECTOR	     512
#define MAX_LEN	     (SECTORS * SECTOR)
#define KICK_BUDGET  (32 * 1024) /* of what is in memory */

#define BLOCK	     4096 /* of most file systems */
#define UNTOUCHED    0xee /* never a byte of the disk or of a serial */
#define FEATURE(bit) (UINT64_C(1) << (bit))

static struct fake_log lg;
static struct blk *blk;
static int fd = -1;
static char path[64];

static time_t later; /* than it is, in seconds */

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);

int
__wrap_clock_gettime(clockid_t id, struct timespec *t)
{
	int result = __real_clock_gettime(id, t);

	t->tv_sec += later;
	return result;
}

static unsigned direct; /* DISK_DIRECT, or 0: how disks are opened, besides */
static bool no_direct;	/* as file systems in memory were before Linux 6.6 */

int __real_open(const char *name, int flags, ...);
int __wrap_open(const char *name, int flags, ...);

int __real_io_uring_register_buffers(
    struct io_uring *ring, const struct iovec *iov, unsigned n);
int __wrap_io_uring_register_buffers(
    struct io_uring *ring, const struct iovec *iov, unsigned n);

int
__wrap_open(const char *name, int flags, ...)
{
	if (!(flags & O_DIRECT) || !no_direct)
		return __real_open(name, flags, 0600);
	errno = EINVAL;
	return -1;
}

/* With _FORTIFY_SOURCE, open() of two arguments is this. */
int __wrap___open_2(const char *name, int flags);

int
__wrap___open_2(const char *name, int flags)
{
	return __wrap_open(name, flags);
}

/*
 * What a process had locked, and an ordinary user may lock little, the kernel
 * takes back a moment after its end.
 */
int
__wrap_io_uring_register_buffers(
    struct io_uring *ring, const struct iovec *iov, unsigned n)
{
	int e;

	for (int i = 0; i < 10000; i++) {
		e = __real_io_uring_register_buffers(ring, iov, n);
		if (e != -ENOMEM)
			break;
		usleep(1000);
	}
	return e;
}

static bool no_buffers; /* the host has no memory for as much as those */

void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *
__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return no_buffers ? NULL : __real_aligned_alloc(alignment, size);
}

static int cannot_punch; /* the errno of that, or 0: it can */

int __real_fallocate(int file, int mode, off_t offset, off_t len);
int __wrap_fallocate(int file, int mode, off_t offset, off_t len);

int
__wrap_fallocate(int file, int mode, off_t offset, off_t len)
{
	if (cannot_punch == 0 || !(mode & FALLOC_FL_PUNCH_HOLE))
		return __real_fallocate(file, mode, offset, len);
	errno = cannot_punch;
	return -1;
}

/* What a request is to write, and has read. */
static uint8_t out[MAX_LEN + SECTOR], in[MAX_LEN + SECTOR];
static uint32_t written;

/*
 * Lengths of the pieces into which the readable and the writable bytes of a
 * request are cut; the last one before a 0 repeats.
 */
struct framing {
	const char *what;
	size_t readable[6], writable[6];
};

static const struct framing natural = {
    "header, data, status", {16, SIZE_MAX}, {SIZE_MAX}};
static const struct framing *framing;

/*
 * A file of 'size' bytes that has no name any more; 'path' leads to it.
 */
static void
make_file(off_t size, mode_t mode)
{
	const char *dir = getenv("TMPDIR");
	char name[256];

	/* Of which the first may be in memory. */
	if (dir == NULL)
		dir = direct ? "/var/tmp" : "/tmp";
	snprintf(name, sizeof(name), "%s/check_blk.XXXXXX", dir);
	fd = fake_uring.show_tmpfs ? memfd_create(name, 0) : mkstemp(name);
	ck_assert_int_ge(fd, 0);
	unlink(name);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
}

static uint8_t
pattern(uint64_t offset)
{
	return 1 + (offset / SECTOR * 31 + offset) % 200;
}

static void
open_disk(uint64_t size, bool read_only)
{
	make_file(size, 0600);
	for (uint64_t i = 0; i < size && i < MAX_LEN; i++)
		in[i] = pattern(i);
	ck_assert_int_ge(pwrite(fd, in, size < MAX_LEN ? size : MAX_LEN, 0), 0);
	blk = blk_open(&lg.logger, path,
	    direct | (read_only ? DISK_READ_ONLY : 0), "serial-0123", NULL);
	ck_assert_ptr_nonnull(blk);
}

static void
setup(void)
{
	fake_log_init(&lg);
	fake_uring_init();
	framing = &natural;
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = 201 + i % 37;
}

static void
setup_disk(void)
{
	setup();
	open_disk(MAX_LEN, false);
}

static void
setup_memory(void)
{
	setup();
	fake_uring.show_tmpfs = true;
	open_disk(MAX_LEN, false);
}

/* For who opens a disk of another size. */
static void
setup_direct_later(void)
{
	setup();
	direct = DISK_DIRECT;
}

static void
setup_direct(void)
{
	setup_direct_later();
	open_disk(MAX_LEN, false);
}

/* As of a file on a device with such blocks. */
static void
setup_direct_4096(void)
{
	setup_direct();
	fake_uring.unit = BLOCK;
}

static void
setup_direct_4096_later(void)
{
	setup_direct_later();
	fake_uring.unit = BLOCK;
}

static void
expect_on_disk(uint64_t offset, const uint8_t *data, size_t len)
{
	static uint8_t disk[MAX_LEN];

	ck_assert_int_eq(pread(fd, disk, len, offset), (ssize_t)len);
	ck_assert_mem_eq(disk, data, len);
}

static void
expect_disk_untouched(void)
{
	static uint8_t want[MAX_LEN];
	struct stat st;

	for (size_t i = 0; i < sizeof(want); i++)
		want[i] = pattern(i);
	expect_on_disk(0, want, sizeof(want));
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, MAX_LEN);
}

/*
 * A request on its way: the bytes are in pieces, and the pieces in iovecs.
 */
struct job {
	struct blk_req *req;
	unsigned nreadable, nwritable;
	struct iovec piece[BLK_IOVECS];
};

static unsigned
cut(struct iovec *piece, const uint8_t *from, size_t len, const size_t *cuts)
{
	unsigned n = 0;

	while (len > 0) {
		size_t some = *cuts < len ? *cuts : len;

		ck_assert_uint_lt(n, BLK_IOVECS);
		piece[n].iov_base = malloc(some > 0 ? some : 1);
		ck_assert_ptr_nonnull(piece[n].iov_base);
		piece[n].iov_len = some;
		memcpy(piece[n].iov_base, from, some);
		from += some;
		len -= some;
		n++;
		if (cuts[1] != 0)
			cuts++;
	}
	return n;
}

static struct job *
build(const uint8_t *r, size_t rlen, size_t wlen)
{
	static uint8_t w[MAX_LEN + SECTOR + 1];
	struct job *job = calloc(1, sizeof(*job));

	ck_assert_ptr_nonnull(job);
	memset(w, UNTOUCHED, wlen);
	job->req = blk_get(blk);
	ck_assert_ptr_nonnull(job->req);
	job->nreadable = cut(job->piece, r, rlen, framing->readable);
	job->nwritable =
	    cut(job->piece + job->nreadable, w, wlen, framing->writable);
	ck_assert_uint_le(job->nreadable + job->nwritable, BLK_IOVECS);
	job->req->readable = job->nreadable;
	job->req->writable = job->nwritable;
	job->req->written = UINT32_MAX;
	memcpy(job->req->iov, job->piece, sizeof(job->piece));
	return job;
}

/*
 * Submit a request with 'out_len' bytes of data for the disk and room for
 * 'in_len' bytes and the status.
 */
static struct job *
submit(uint32_t type, uint64_t sector, size_t out_len, size_t in_len)
{
	uint8_t r[sizeof(struct virtio_blk_outhdr) + sizeof(out)];
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};
	struct job *job;

	memcpy(r, &hdr, sizeof(hdr));
	memcpy(r + sizeof(hdr), out, out_len);
	job = build(r, sizeof(hdr) + out_len, in_len + 1);
	ck_assert(blk_submit(blk, job->req));
	return job;
}

static struct blk_req *
reap(void)
{
	struct pollfd p = {.fd = engine_fd(blk->engine), .events = POLLIN};
	struct blk_req *req;

	while ((req = blk_reap(blk)) == NULL)
		if (engine_pending(blk->engine))
			engine_kick(blk->engine);
		else
			ck_assert_int_eq(poll(&p, 1, 5000), 1);
	return req;
}

/*
 * Take the finished request apart: the status is returned, the data is in 'in'
 * and not one byte less than 'written' was written.
 */
static uint8_t
dispose(struct job *job)
{
	uint8_t w[MAX_LEN + SECTOR + 1];
	size_t len = 0, done = 0;

	for (unsigned i = 0; i < job->nreadable + job->nwritable; i++) {
		if (i >= job->nreadable) {
			memcpy(w + len, job->piece[i].iov_base,
			    job->piece[i].iov_len);
			len += job->piece[i].iov_len;
		}
		free(job->piece[i].iov_base);
	}
	written = job->req->written;
	blk_put(blk, job->req);
	free(job);
	while (done < len && w[done] != UNTOUCHED)
		done++;
	ck_assert_uint_le(written, done);
	ck_assert_uint_ge(len, 1);
	memcpy(in, w, len - 1);
	return w[len - 1];
}

static uint8_t
request(uint32_t type, uint64_t sector, size_t out_len, size_t in_len)
{
	struct job *job = submit(type, sector, out_len, in_len);

	ck_assert_uint_eq(blk_inflight(blk), 1);
	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), job->req);
	ck_assert_uint_eq(blk_inflight(blk), 0);
	return dispose(job);
}

static void
expect_read(uint64_t sector, size_t len)
{
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, sector, 0, len), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, len + 1);
	for (size_t i = 0; i < len; i++)
		ck_assert_uint_eq(in[i], pattern(sector * SECTOR + i));
}

static void
expect_write(uint64_t sector, size_t len)
{
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, sector, len, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 1);
	expect_on_disk(sector * SECTOR, out, len);
}

static bool
readable(int on)
{
	struct pollfd p = {.fd = on, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* Opening. */

static void
expect_refused(const char *name, bool read_only)
{
	ck_assert_ptr_null(blk_open(&lg.logger, name,
	    direct | (read_only ? DISK_READ_ONLY : 0), "", NULL));
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_msg(strstr(lg.last, name) != NULL, "'%s' does not name %s",
	    lg.last, name);
	ck_assert_ptr_null(strchr(lg.last, '\n'));
}

START_TEST(a_disk_that_is_not_there_is_refused)
{
	expect_refused("/nonexistent/disk", _i);
	ck_assert_ptr_nonnull(strstr(lg.last, strerror(ENOENT)));
}
END_TEST

START_TEST(a_directory_is_refused)
{
	expect_refused("/proc/self", _i);
	ck_assert_ptr_nonnull(strstr(lg.last, "regular file"));
}
END_TEST

START_TEST(a_character_device_is_refused)
{
	expect_refused("/dev/null", _i);
}
END_TEST

START_TEST(a_fifo_is_refused_and_not_waited_for)
{
	char name[64];
	int p[2];

	ck_assert_int_eq(pipe(p), 0);
	close(p[1]);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", p[0]);
	expect_refused(name, _i);
}
END_TEST

START_TEST(an_empty_file_is_refused)
{
	make_file(0, 0600);
	expect_refused(path, _i);
}
END_TEST

START_TEST(a_file_of_less_than_a_sector_is_refused)
{
	make_file(511, 0600);
	expect_refused(path, _i);
}
END_TEST

START_TEST(a_file_that_may_not_be_written_is_a_disk_only_if_read_only)
{
	bool root = geteuid() == 0;

	make_file(MAX_LEN, 0444);
	if (root) /* who may write it */
		ck_assert_int_eq(seteuid(65534), 0);
	expect_refused(path, false);
	ck_assert_ptr_nonnull(strstr(lg.last, strerror(EACCES)));
	blk = blk_open(&lg.logger, path, DISK_READ_ONLY, "", NULL);
	ck_assert_ptr_nonnull(blk);
	ck_assert_uint_eq(lg.lines, 1);
	if (root) /* leak detection needs a process that can be looked at */
		ck_assert_int_eq(seteuid(0) | prctl(PR_SET_DUMPABLE, 1), 0);
}
END_TEST

START_TEST(a_file_of_odd_size_loses_its_last_bytes_and_says_so)
{
	open_disk(3 * SECTOR + 511, _i);
	ck_assert_uint_eq(blk_config(blk).capacity, 3);
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, path));
	expect_read(2, SECTOR);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, 3, 0, SECTOR), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(the_configuration_describes_the_disk)
{
	struct virtio_blk_config c;
	static const struct virtio_blk_config zero;

	open_disk(MAX_LEN, _i);
	c = blk_config(blk);
	ck_assert_uint_eq(lg.lines, 0);
	ck_assert_uint_eq(c.capacity, SECTORS);
	ck_assert_uint_eq(c.blk_size, SECTOR);
	/* Every request as large as that fits in with header and status. */
	/* A chain has a header and a status, too. */
	ck_assert_uint_eq(c.seg_max, BLK_IOVECS - 2);
	/* A physical block is at most a page, and I/O sizes are multiples. */
	ck_assert_uint_le(SECTOR << c.physical_block_exp, 4096);
	ck_assert_uint_eq(c.alignment_offset, 0);
	ck_assert_uint_ge(c.min_io_size, 1);
	ck_assert_uint_eq(c.min_io_size % (1 << c.physical_block_exp), 0);
	ck_assert_uint_eq(c.opt_io_size % c.min_io_size, 0);
	ck_assert_uint_ge(c.max_discard_sectors, SECTORS);
	ck_assert_uint_eq(c.max_discard_seg, BLK_RANGES);
	if (!_i)
		ck_assert_uint_eq(c.discard_sector_alignment, c.min_io_size);
	ck_assert_uint_ge(c.max_write_zeroes_sectors, SECTORS);
	ck_assert_uint_eq(c.max_write_zeroes_seg, BLK_RANGES);
	ck_assert_uint_eq(c.write_zeroes_may_unmap, !_i);
	/* What is not offered is zero. */
	ck_assert_uint_eq(c.size_max, 0);
	ck_assert_mem_eq(&c.geometry, &zero.geometry, sizeof(c.geometry));
	ck_assert_uint_eq(c.wce, 0);
	ck_assert_uint_eq(c.num_queues, 0);
	ck_assert_mem_eq(&c.unused1, &zero.unused1,
	    (const char *)(&c + 1) - (const char *)&c.unused1);
}
END_TEST

START_TEST(the_capacity_of_a_large_disk_is_in_sectors_of_512_bytes)
{
	make_file((off_t)5 << 40, 0600);
	blk = blk_open(&lg.logger, path, 0, "", NULL);
	ck_assert_ptr_nonnull(blk);
	ck_assert_uint_eq(blk_config(blk).capacity, UINT64_C(5) << 31);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, (UINT64_C(5) << 31) - 1, 0, SECTOR),
	    VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, SECTOR + 1);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, (UINT64_C(5) << 31) - 3, SECTOR, 0),
	    VIRTIO_BLK_S_OK);
	expect_on_disk((UINT64_C(5) << 40) - 3 * SECTOR, out, SECTOR);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, UINT64_C(5) << 31, SECTOR, 0),
	    VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(on_a_resize_the_size_is_read_again)
{
	open_disk(MAX_LEN, _i);
	ck_assert_int_eq(ftruncate(fd, 2 * MAX_LEN + 100), 0);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, SECTORS, 0, SECTOR), VIRTIO_BLK_S_IOERR);
	blk_resize(blk);
	ck_assert_uint_eq(blk_config(blk).capacity, 2 * SECTORS);
	ck_assert_uint_eq(lg.lines, 2);
	ck_assert_ptr_nonnull(strstr(lg.last, path));
	ck_assert_ptr_nonnull(strstr(lg.last, "128 sectors, previously 64"));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 2 * SECTORS - 1, 0, SECTOR),
	    VIRTIO_BLK_S_OK);
	/* It may also be smaller, and what began before that fails. */
	fake_uring.hold = true;
	submit(VIRTIO_BLK_T_IN, SECTORS, 0, SECTOR);
	ck_assert_int_eq(ftruncate(fd, MAX_LEN / 2), 0);
	blk_resize(blk);
	ck_assert_uint_eq(blk_config(blk).capacity, SECTORS / 2);
	fake_uring.hold = false;
	ck_assert_uint_eq(*reap()->op.status, VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, SECTORS / 2, 0, SECTOR),
	    VIRTIO_BLK_S_IOERR);
	expect_read(SECTORS / 2 - 1, SECTOR);
}
END_TEST

START_TEST(a_disk_may_grow_beyond_2_tib)
{
	const uint64_t sectors = UINT64_C(5) << 31;

	open_disk(MAX_LEN, false);
	ck_assert_int_eq(ftruncate(fd, sectors * SECTOR), 0);
	blk_resize(blk);
	ck_assert_uint_eq(blk_config(blk).capacity, sectors);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, sectors - 1, SECTOR, 0), VIRTIO_BLK_S_OK);
	expect_on_disk((sectors - 1) * SECTOR, out, SECTOR);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, sectors, SECTOR, 0), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(a_disk_that_is_no_disk_any_more_keeps_its_size)
{
	open_disk(MAX_LEN, false);
	ck_assert_int_eq(ftruncate(fd, SECTOR - 1), 0);
	blk_resize(blk);
	ck_assert_uint_eq(blk_config(blk).capacity, SECTORS);
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, path));
}
END_TEST

START_TEST(what_is_done_is_counted)
{
	const struct blk_stats *s;

	open_disk(MAX_LEN, false);
	s = &blk->stats;
	expect_read(1, 3 * SECTOR);
	fake_uring.limit = 100;
	expect_write(2, SECTOR);
	request(VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	request(VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	request(VIRTIO_BLK_T_OUT, SECTORS, SECTOR, 0);
	request(VIRTIO_BLK_T_GET_ID, 0, 0, 20);
	ck_assert_uint_eq(s->requests, 6);
	ck_assert_uint_eq(s->errors, 1);
	ck_assert_uint_eq(s->flushes, 2);
	ck_assert_uint_eq(s->read, 3 * SECTOR);
	ck_assert_uint_eq(s->written, SECTOR);
}
END_TEST

START_TEST(the_features_are_those_that_work)
{
	uint64_t f;

	open_disk(MAX_LEN, _i);
	f = blk_features(blk);
	ck_assert(f & FEATURE(VIRTIO_BLK_F_SEG_MAX));
	ck_assert(f & FEATURE(VIRTIO_BLK_F_BLK_SIZE));
	ck_assert(f & FEATURE(VIRTIO_BLK_F_TOPOLOGY));
	ck_assert(f & FEATURE(VIRTIO_BLK_F_FLUSH));
	ck_assert(f & FEATURE(VIRTIO_BLK_F_CONFIG_WCE));
	ck_assert_int_eq((f & FEATURE(VIRTIO_BLK_F_RO)) != 0, _i);
	ck_assert_int_eq((f & FEATURE(VIRTIO_BLK_F_DISCARD)) != 0, !_i);
	ck_assert_int_eq((f & FEATURE(VIRTIO_BLK_F_WRITE_ZEROES)) != 0, !_i);
	/* Nothing that would need a field, a request or a second queue. */
	ck_assert_uint_eq(
	    f & ~(FEATURE(VIRTIO_BLK_F_SEG_MAX) |
		    FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
		    FEATURE(VIRTIO_BLK_F_TOPOLOGY) |
		    FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_RO) |
		    FEATURE(VIRTIO_BLK_F_DISCARD) |
		    FEATURE(VIRTIO_BLK_F_CONFIG_WCE) |
		    FEATURE(VIRTIO_BLK_F_WRITE_ZEROES)),
	    0);
}
END_TEST

/* Locks. */

/*
 * Lock 'len' bytes of the file from 'first' on, as another program does.
 */
static int
lock_as_other(short type, off_t first, off_t len)
{
	struct flock lock = {.l_type = type, .l_start = first, .l_len = len};
	int other = open(path, O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(other, 0);
	ck_assert_int_eq(fcntl(other, F_OFD_SETLK, &lock), 0);
	return other;
}

static bool
opens(unsigned how)
{
	return blk_open(&lg.logger, path, how, "", NULL) != NULL;
}

static const struct {
	unsigned first, second; /* how the disk is opened */
	bool refused;
} pairs[] = {
    {0, 0, true},
    {0, DISK_READ_ONLY, true},
    {DISK_READ_ONLY, 0, true},
    {DISK_READ_ONLY, DISK_READ_ONLY, false},
    {0, DISK_NO_LOCK, false},
    {DISK_NO_LOCK, 0, false},
};

START_TEST(a_disk_has_one_writer_or_any_number_of_readers)
{
	make_file(MAX_LEN, 0600);
	ck_assert(opens(pairs[_i].first));
	if (pairs[_i].refused) {
		expect_refused(path, pairs[_i].second);
		ck_assert_ptr_nonnull(strstr(lg.last, "another vdisk"));
	} else
		ck_assert(opens(pairs[_i].second));
}
END_TEST

/*
 * QEMU locks a byte from 100 on for what it does, and one from 200 on for what
 * others must not do: 0 to rely on the contents, 1 to write, 3 to resize.
 */
START_TEST(a_disk_that_qemu_writes_is_refused)
{
	make_file(MAX_LEN, 0600);
	lock_as_other(F_RDLCK, 100, 2);
	lock_as_other(F_RDLCK, 201, 1);
	expect_refused(path, _i);
}
END_TEST

START_TEST(a_disk_that_qemu_reads_can_be_read_and_not_written)
{
	make_file(MAX_LEN, 0600);
	lock_as_other(F_RDLCK, 100, 1);
	lock_as_other(F_RDLCK, 201, 1);
	lock_as_other(F_RDLCK, 203, 1);
	ck_assert(opens(DISK_READ_ONLY));
	expect_refused(path, false);
}
END_TEST

/*
 * What QEMU does to find out whether it may do 'what'.
 */
static bool
qemu_may(unsigned what)
{
	struct flock used = {
	    .l_type = F_RDLCK, .l_start = 100 + what, .l_len = 1};
	struct flock unshared = {
	    .l_type = F_WRLCK, .l_start = 200 + what, .l_len = 1};
	int other = open(path, O_RDWR | O_CLOEXEC);
	bool may = fcntl(other, F_OFD_SETLK, &used) == 0 &&
		   fcntl(other, F_OFD_GETLK, &unshared) == 0 &&
		   unshared.l_type == F_UNLCK;

	close(other);
	return may;
}

START_TEST(qemu_notices_that_a_disk_is_in_use)
{
	make_file(MAX_LEN, 0600);
	ck_assert(qemu_may(0) && qemu_may(1));
	ck_assert(opens(_i));
	ck_assert(!qemu_may(1));
	ck_assert_int_eq(qemu_may(0), _i == DISK_READ_ONLY);
}
END_TEST

START_TEST(a_lock_that_is_about_to_go_is_waited_for)
{
	int other;

	make_file(MAX_LEN, 0600);
	other = lock_as_other(F_WRLCK, 0, 0);
	if (fork() == 0) {
		usleep(100000);
		_exit(0); /* and the last user of the lock is gone */
	}
	close(other);
	ck_assert(opens(0));
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

/* Requests, 5.2.6, in any framing, 2.7.4. */

static const struct framing framings[] = {
    {"header, data, status", {16, SIZE_MAX}, {512, SIZE_MAX}},
    {"one readable, one writable", {SIZE_MAX}, {SIZE_MAX}},
    {"header byte by byte", {1, 1, 1, 1, 1, 1}, {100, SIZE_MAX}},
    {"header in three, the last with data", {4, 4, 100, SIZE_MAX}, {SIZE_MAX}},
    {"header split in its sector", {9, 7, SIZE_MAX}, {SIZE_MAX}},
    {"data split in mid-sector", {16, 100, 413, SIZE_MAX}, {100, SIZE_MAX}},
    {"data in odd pieces", {16, 31}, {33}},
    {"status with the last bytes of data", {16, 1000}, {1023, SIZE_MAX}},
    {"status with half a sector", {16, 1000}, {256, SIZE_MAX}},
    {"data in pages", {16, 4096}, {4096}},
};

START_TEST(reads_and_writes_work_in_any_framing)
{
	static const uint16_t sectors[] = {0, 1, 31};

	framing = &framings[_i];
	for (unsigned i = 0; i < 3; i++)
		expect_read(sectors[i], 2 * SECTOR);
	expect_read(SECTORS - 1, SECTOR);
	if (framing->readable[0] > 1)
		for (unsigned i = 0; i < 3; i++)
			expect_write(sectors[i], 2 * SECTOR);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 1);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(empty_buffers_in_between_change_nothing)
{
	/* iovecs of length 0 at every place. */
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN, .sector = 3};
	uint8_t data[SECTOR], status = UNTOUCHED;
	struct blk_req *req = blk_get(blk);
	struct iovec iov[] = {{&hdr, 0}, {&hdr, 4}, {&hdr, 0},
	    {(char *)&hdr + 4, 12}, {&hdr, 0}, {data, 0}, {data, 100},
	    {data, 0}, {data + 100, SECTOR - 100}, {data, 0}, {&status, 1},
	    {data, 0}};

	memcpy(req->iov, iov, sizeof(iov));
	req->readable = 5;
	req->writable = 7;
	ck_assert(blk_submit(blk, req));
	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), req);
	ck_assert_uint_eq(status, VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(req->written, SECTOR + 1);
	for (unsigned i = 0; i < SECTOR; i++)
		ck_assert_uint_eq(data[i], pattern(3 * SECTOR + i));
}
END_TEST

START_TEST(a_request_of_as_many_segments_as_allowed_works)
{
	uint32_t n = blk_config(blk).seg_max;
	static const struct framing segments = {
	    "sectors of two pieces", {16, 128}, {128}};

	framing = &segments;
	n = n / 4 * 4;
	if (n > SECTORS * 4)
		n = SECTORS * 4;
	expect_read(0, (size_t)n * 128);
	expect_write(0, (size_t)n * 128);
}
END_TEST

START_TEST(the_whole_disk_can_be_read_and_written_at_once)
{
	expect_read(0, MAX_LEN);
	expect_write(0, MAX_LEN);
	ck_assert_uint_eq(fake_uring.reads, !fake_uring.show_tmpfs);
	ck_assert_uint_eq(fake_uring.writes, !fake_uring.show_tmpfs);
}
END_TEST

START_TEST(a_request_without_a_status_byte_stays_the_callers)
{
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN};
	struct blk_req *req = blk_get(blk);

	req->iov[0] = (struct iovec){&hdr, sizeof(hdr)};
	req->iov[1] = req->iov[2] = (struct iovec){&hdr, 0};
	req->readable = 1;
	req->writable = _i;
	ck_assert(!blk_submit(blk, req));
	ck_assert_uint_eq(blk_inflight(blk), 0);
	ck_assert_ptr_null(blk_reap(blk));
	blk_put(blk, req);
}
END_TEST

START_TEST(a_request_with_half_a_header_fails)
{
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_FLUSH};
	struct job *job = build((uint8_t *)&hdr, _i, 1 + _i);

	ck_assert(blk_submit(blk, job->req));
	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), job->req);
	ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(fake_uring.others + fake_uring.reads, 0);
}
END_TEST

static const uint32_t unknown_types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16,
    26, 255, 256, 0x10000, VIRTIO_BLK_T_BARRIER, VIRTIO_BLK_T_BARRIER | 1,
    UINT32_MAX};

START_TEST(an_unknown_request_is_unsupported_and_does_nothing)
{
	uint32_t type = unknown_types[_i];

	ck_assert_uint_eq(request(type, 0, 0, 0), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(written, 1);
	/* Data does not count as written when only the status is. */
	ck_assert_uint_eq(request(type, 0, 0, SECTOR), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(written, 0);
	ck_assert_uint_eq(request(type, 0, SECTOR, 0), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(written, 1);
	expect_disk_untouched();
	ck_assert_uint_eq(fake_uring.submits, 0);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

static const struct {
	uint64_t sector;
	size_t len;
} bad_ranges[] = {
    {0, 1},
    {0, 511},
    {0, 513},
    {0, 1000},
    {SECTORS - 1, 2 * SECTOR},
    {SECTORS - 1, SECTOR + 1},
    {SECTORS, SECTOR},
    {SECTORS + 1, SECTOR},
    {SECTORS + 1, 0},
    {1, MAX_LEN},
    {0, MAX_LEN + SECTOR},
    /* sector * 512 is beyond 64 bits, and within the disk again. */
    {UINT64_C(1) << 55, SECTOR},
    {(UINT64_C(1) << 55) + 1, SECTOR},
    {(UINT64_C(1) << 55) - 1, SECTOR},
    {(UINT64_C(1) << 55) - 1, 2 * SECTOR},
    {UINT64_C(1) << 63, SECTOR},
    {UINT64_MAX, SECTOR},
    {UINT64_MAX, 2 * SECTOR},
    {UINT64_MAX - 1, 4 * SECTOR},
    {UINT64_C(1) << 32, SECTOR},
    {UINT64_C(1) << 54, SECTOR},
};

START_TEST(a_transfer_that_is_not_all_on_the_disk_fails_whole)
{
	uint64_t sector = bad_ranges[_i].sector;
	size_t len = bad_ranges[_i].len;

	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, sector, 0, len), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(written, len == 0);
	for (size_t i = 0; i < len; i++)
		ck_assert_uint_eq(in[i], UNTOUCHED);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, sector, len, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(written, 1);
	expect_disk_untouched();
	ck_assert_uint_eq(fake_uring.submits, 0);
	/* A guest could fill the log with these. */
	ck_assert_uint_eq(lg.lines, 0);
	expect_read(0, SECTOR);
}
END_TEST

START_TEST(lengths_of_4_gib_are_added_not_cut_off)
{
	/* 'n' buffers of 4 GiB - 512: not on the disk, so never looked at. */
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN};
	uint8_t status;
	struct blk_req *req = blk_get(blk);

	for (unsigned n = 1; n <= BLK_IOVECS - 2; n++) {
		status = UNTOUCHED;
		req->iov[0] = (struct iovec){&hdr, sizeof(hdr)};
		for (unsigned i = 1; i <= n; i++)
			req->iov[i] = (struct iovec){&status, 0xfffffe00};
		req->iov[n + 1] = (struct iovec){&status, 1};
		req->readable = 1;
		req->writable = n + 1;
		ck_assert(blk_submit(blk, req));
		engine_kick(blk->engine);
		ck_assert_ptr_eq(reap(), req);
		ck_assert_uint_eq(status, VIRTIO_BLK_S_IOERR);
		ck_assert_uint_eq(req->written, 0);
	}
	ck_assert_uint_eq(fake_uring.submits, 0);
}
END_TEST

START_TEST(lengths_whose_sum_is_a_sector_in_32_bits_are_not_a_sector)
{
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN};
	uint8_t data[2 * SECTOR], status = UNTOUCHED;
	struct blk_req *req = blk_get(blk);

	req->iov[0] = (struct iovec){&hdr, sizeof(hdr)};
	req->iov[1] = (struct iovec){data, 2 * SECTOR};
	req->iov[2] = (struct iovec){data, 0xfffffe00};
	req->iov[3] = (struct iovec){&status, 1};
	req->readable = 1;
	req->writable = 3;
	ck_assert(blk_submit(blk, req));
	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), req);
	ck_assert_uint_eq(status, VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(fake_uring.submits, 0);
}
END_TEST

START_TEST(a_transfer_of_nothing_succeeds)
{
	for (unsigned sector = 0; sector <= SECTORS; sector++) {
		ck_assert_uint_eq(
		    request(VIRTIO_BLK_T_IN, sector, 0, 0), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(written, 1);
		ck_assert_uint_eq(
		    request(VIRTIO_BLK_T_OUT, sector, 0, 0), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(written, 1);
	}
	expect_disk_untouched();
}
END_TEST

START_TEST(a_write_with_room_before_the_status_has_not_written_that)
{
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, 5, SECTOR, 4), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 0);
	expect_on_disk(5 * SECTOR, out, SECTOR);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_FLUSH, 0, 0, 4), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 0);
}
END_TEST

static const struct framing id_framings[] = {
    {"one", {16}, {SIZE_MAX}},
    {"bytes", {16}, {1}},
    {"pieces", {16}, {7, 9}},
};

START_TEST(the_serial_is_padded_with_zeros_to_20_bytes)
{
	static const char want[VIRTIO_BLK_ID_BYTES] = "serial-0123";

	framing = &id_framings[_i];
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_GET_ID, 0, 0, sizeof(want)), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, sizeof(want) + 1);
	ck_assert_mem_eq(in, want, sizeof(want));
}
END_TEST

START_TEST(a_serial_fills_as_much_of_a_buffer_as_there_is)
{
	static const char want[VIRTIO_BLK_ID_BYTES] = "serial-0123";
	size_t len = _i, some = len < sizeof(want) ? len : sizeof(want);

	/* The driver must give 20 bytes (5.2.6.1); none may be exceeded. */
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_GET_ID, 0, 0, len), VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(in, want, some);
	ck_assert_uint_eq(written, len == some ? len + 1 : some);
}
END_TEST

START_TEST(a_serial_of_20_characters_has_no_end)
{
	/* In a page of its own: the 21st character is not there. */
	char *end = (char *)mmap(NULL, 8192, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) +
		    4096;
	char *serial = end - VIRTIO_BLK_ID_BYTES;

	ck_assert_int_eq(mprotect(end, 4096, PROT_NONE), 0);
	memcpy(serial, "01234567890123456789", VIRTIO_BLK_ID_BYTES);
	make_file(MAX_LEN, 0600);
	blk = blk_open(&lg.logger, path, DISK_READ_ONLY, serial, NULL);
	ck_assert_ptr_nonnull(blk);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_GET_ID, 0, 0, VIRTIO_BLK_ID_BYTES + 4),
	    VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(in, serial, VIRTIO_BLK_ID_BYTES);
	ck_assert_uint_eq(in[VIRTIO_BLK_ID_BYTES], UNTOUCHED);
}
END_TEST

START_TEST(a_read_only_disk_refuses_writes)
{
	open_disk(MAX_LEN, true);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, 0, SECTOR, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(written, 1);
	ck_assert_uint_eq(fake_uring.submits, 0);
	expect_disk_untouched();
	expect_read(0, SECTOR);
	/* As on squashfs. */
	fake_uring.fail = 1;
	fake_uring.error = EINVAL;
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
}
END_TEST

/* Ranges to be discarded or zeroed, 5.2.6. */

#define DISCARD VIRTIO_BLK_T_DISCARD
#define ZEROES	VIRTIO_BLK_T_WRITE_ZEROES
#define UNMAP	VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP

struct range {
	uint64_t sector;
	uint32_t sectors, flags;
};

static struct job *
submit_ranges(uint32_t type, const struct range *range, unsigned n)
{
	struct virtio_blk_discard_write_zeroes *r = (void *)out;

	for (unsigned i = 0; i < n; i++)
		r[i] = (struct virtio_blk_discard_write_zeroes){
		    .sector = range[i].sector,
		    .num_sectors = range[i].sectors,
		    .flags = range[i].flags};
	/* The sector of the header means nothing. */
	return submit(type, UINT64_MAX, n * sizeof(*r), 0);
}

static uint8_t
clear(uint32_t type, const struct range *range, unsigned n)
{
	struct job *job = submit_ranges(type, range, n);

	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), job->req);
	return dispose(job);
}

static uint8_t
clear_one(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct range range = {sector, sectors, flags};

	return clear(type, &range, 1);
}

/*
 * The disk is as it was made but for zeros in these ranges.
 */
static void
expect_zeros(const struct range *range, unsigned n)
{
	static uint8_t want[MAX_LEN];
	struct stat st;

	for (size_t i = 0; i < sizeof(want); i++)
		want[i] = pattern(i);
	for (unsigned i = 0; i < n; i++)
		memset(want + range[i].sector * SECTOR, 0,
		    range[i].sectors * SECTOR);
	expect_on_disk(0, want, sizeof(want));
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, MAX_LEN);
}

static void
expect_zero(uint64_t sector, unsigned sectors)
{
	static const uint8_t zeros[MAX_LEN];

	expect_on_disk(sector * SECTOR, zeros, sectors * SECTOR);
}

static uint64_t
allocated(void)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return st.st_blocks * 512;
}

/* How to clear a range, and whether that gives space back. */
static const struct {
	uint32_t type, flags;
	bool gives;
} ways[] = {
    {DISCARD, 0, true},
    {ZEROES, UNMAP, true},
    {ZEROES, 0, false},
};

START_TEST(a_cleared_range_is_zeros_and_given_back_if_it_may)
{
	const struct range range = {16, 40, ways[_i].flags};
	uint64_t before = allocated();

	ck_assert_uint_eq(clear(ways[_i].type, &range, 1), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 1);
	expect_zeros(&range, 1);
	if (ways[_i].gives)
		ck_assert_uint_eq(allocated(), before - 5 * BLOCK);
	else
		ck_assert_uint_ge(allocated(), before);
	ck_assert_uint_eq(fake_uring.datasyncs, 0);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(ranges_may_be_far_into_a_large_disk)
{
	static uint8_t zeros[4 * SECTOR], low[4 * SECTOR];
	const uint64_t sector = (UINT64_C(5) << 31) - 4;
	const struct range range = {sector, 4, 0};

	make_file((off_t)5 << 40, 0600);
	blk = blk_open(&lg.logger, path, 0, "", NULL);
	ck_assert_ptr_nonnull(blk);
	expect_write(sector, sizeof(zeros));
	/* Here it would be in 32 bits. */
	expect_write((uint32_t)(sector * SECTOR) / SECTOR, sizeof(low));
	memcpy(low, out, sizeof(low));
	ck_assert_uint_eq(clear(ways[_i].type, &range, 1), VIRTIO_BLK_S_OK);
	expect_on_disk(sector * SECTOR, zeros, sizeof(zeros));
	expect_on_disk((uint32_t)(sector * SECTOR), low, sizeof(low));
}
END_TEST

START_TEST(a_part_of_a_block_can_be_cleared)
{
	const struct range range = {5, 5, ways[_i].flags};

	ck_assert_uint_eq(clear(ways[_i].type, &range, 1), VIRTIO_BLK_S_OK);
	expect_zeros(&range, 1);
}
END_TEST

START_TEST(ranges_come_in_any_number_and_framing)
{
	struct range range[BLK_RANGES];

	framing = &framings[_i % COUNT(framings)];
	for (unsigned n = 0; n <= BLK_RANGES; n += 1 + n / 2) {
		for (unsigned i = 0; i < n; i++)
			range[i] = (struct range){i * 2, 1 + i % 2, 0};
		ck_assert_uint_eq(
		    clear(_i < COUNT(framings) ? DISCARD : ZEROES, range, n),
		    VIRTIO_BLK_S_OK);
		expect_zeros(range, n);
	}
}
END_TEST

START_TEST(the_whole_disk_and_nothing_at_all_can_be_cleared)
{
	const struct range range[] = {
	    {0, 0, 0}, {SECTORS, 0, 0}, {0, SECTORS, 0}, {SECTORS / 2, 0, 0}};

	ck_assert_uint_eq(clear(ways[_i].type, range, 2), VIRTIO_BLK_S_OK);
	expect_disk_untouched();
	ck_assert_uint_eq(fake_uring.submits, 0);
	ck_assert_uint_eq(clear(ways[_i].type, range, 4), VIRTIO_BLK_S_OK);
	expect_zeros(range, 4);
}
END_TEST

/* A range that is refused, beside one that would not be. */
static const struct {
	uint32_t type;
	struct range range;
	uint8_t status;
} bad_clears[] = {
    {DISCARD, {SECTORS, 1, 0}, VIRTIO_BLK_S_IOERR},
    {DISCARD, {SECTORS - 1, 2, 0}, VIRTIO_BLK_S_IOERR},
    {DISCARD, {UINT64_MAX, 1, 0}, VIRTIO_BLK_S_IOERR},
    {DISCARD, {UINT64_MAX / SECTOR + 1, 1, 0}, VIRTIO_BLK_S_IOERR},
    {DISCARD, {0, SECTORS + 1, 0}, VIRTIO_BLK_S_IOERR},
    {DISCARD, {0, UINT32_MAX, 0}, VIRTIO_BLK_S_IOERR},
    {ZEROES, {SECTORS, 1, 0}, VIRTIO_BLK_S_IOERR},
    {ZEROES, {SECTORS - 1, 2, UNMAP}, VIRTIO_BLK_S_IOERR},
    {ZEROES, {0, UINT32_MAX, 0}, VIRTIO_BLK_S_IOERR},
    {DISCARD, {0, 8, UNMAP}, VIRTIO_BLK_S_UNSUPP},
    {DISCARD, {0, 8, 2}, VIRTIO_BLK_S_UNSUPP},
    {ZEROES, {0, 8, 2}, VIRTIO_BLK_S_UNSUPP},
    {ZEROES, {0, 8, 1U << 31 | UNMAP}, VIRTIO_BLK_S_UNSUPP},
};

START_TEST(one_bad_range_and_nothing_is_cleared)
{
	struct range range[] = {{8, 8, 0}, bad_clears[_i].range, {24, 8, 0}};

	ck_assert_uint_eq(
	    clear(bad_clears[_i].type, range, 3), bad_clears[_i].status);
	ck_assert_uint_eq(written, 1);
	expect_disk_untouched();
	ck_assert_uint_eq(fake_uring.submits, 0);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(ranges_larger_than_the_limit_are_refused)
{
	struct virtio_blk_config c = blk_config(blk);
	uint32_t max = _i ? c.max_write_zeroes_sectors : c.max_discard_sectors;

	ck_assert_int_eq(ftruncate(fd, (max + UINT64_C(1)) * SECTOR), 0);
	blk = blk_open(&lg.logger, path, DISK_NO_LOCK, "", NULL);
	ck_assert_ptr_nonnull(blk);
	ck_assert_uint_eq(clear_one(_i ? ZEROES : DISCARD, 0, max + 1, 0),
	    VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(fake_uring.submits, 0);
	ck_assert_uint_eq(
	    clear_one(_i ? ZEROES : DISCARD, 1, max, _i), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(half_a_range_or_too_many_are_refused)
{
	static const size_t lens[] = {1, 15, 17, BLK_RANGES * 16 + 16};

	for (int i = 0; i < COUNT(lens); i++) {
		memset(out, 0, sizeof(out));
		ck_assert_uint_eq(request(_i ? ZEROES : DISCARD, 0, lens[i], 0),
		    VIRTIO_BLK_S_IOERR);
	}
	expect_disk_untouched();
}
END_TEST

START_TEST(a_range_cleared_is_stable_when_writes_are)
{
	blk->s->write_through = 1;
	ck_assert_uint_eq(clear_one(ways[_i].type, 0, 8, ways[_i].flags), 0);
	ck_assert_uint_eq(fake_uring.others, 2);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	/* If it cannot be, it failed. */
	fake_uring.spare = fake_uring.writes + fake_uring.others - 1;
	fake_uring.fail = 1;
	fake_uring.error = EIO;
	ck_assert_uint_eq(
	    clear_one(ways[_i].type, 0, 8, ways[_i].flags), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(fake_uring.datasyncs, 2);
}
END_TEST

/* The second is what a device says to a part of a block. */
static const int refusals[] = {EOPNOTSUPP, EINVAL};

START_TEST(where_the_host_cannot_zero_zeros_are_written)
{
	bool unmap = _i % 2;
	const struct range range[] = {{3, 50, unmap ? UNMAP : 0}, {60, 1, 0}};

	fake_uring.limit = 1000;
	fake_uring.refusal = refusals[_i / 2];
	fake_uring.refuse =
	    FALLOC_FL_ZERO_RANGE | (unmap ? FALLOC_FL_PUNCH_HOLE : 0);
	ck_assert_uint_eq(clear(ZEROES, range, 2), VIRTIO_BLK_S_OK);
	expect_zeros(range, 2);
	ck_assert(fake_uring.show_tmpfs || fake_uring.writes >= 26);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(where_the_host_cannot_discard_the_guest_gets_unsupp)
{
	fake_uring.refuse = FALLOC_FL_PUNCH_HOLE;
	fake_uring.refusal = refusals[_i];
	ck_assert_uint_eq(clear_one(DISCARD, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	expect_disk_untouched();
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(clearing_that_is_interrupted_is_tried_again_and_may_fail)
{
	const struct range range[] = {{8, 8, 0}, {24, 8, 0}};

	fake_uring.fail = 3;
	fake_uring.error = EINTR;
	ck_assert_uint_eq(clear(DISCARD, range, 2), VIRTIO_BLK_S_OK);
	expect_zeros(range, 2);
	ck_assert_uint_eq(lg.lines, 0);
	fake_uring.fail = 1;
	fake_uring.error = EIO;
	ck_assert_uint_eq(clear(DISCARD, range, 2), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, "discard at byte 12288 failed"));
}
END_TEST

START_TEST(a_disk_that_cannot_discard_does_not_offer_it)
{
	const struct range range = {8, 8, UNMAP};

	fd = memfd_create("no holes", MFD_ALLOW_SEALING);
	ck_assert_int_eq(ftruncate(fd, MAX_LEN), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	blk = blk_open(&lg.logger, path, 0, "", NULL);
	ck_assert_ptr_nonnull(blk);
	ck_assert_uint_eq(blk_features(blk) & FEATURE(VIRTIO_BLK_F_DISCARD), 0);
	ck_assert(blk_features(blk) & FEATURE(VIRTIO_BLK_F_WRITE_ZEROES));
	ck_assert_uint_eq(blk_config(blk).write_zeroes_may_unmap, 0);
	ck_assert_uint_eq(clear(DISCARD, &range, 1), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(fake_uring.submits, 0);
}
END_TEST

/* The errno of a host that is asked to punch a hole, and if that may pass. */
static const struct {
	int error;
	bool passes;
} probes[] = {
    {EOPNOTSUPP, false},
    {ENOSYS, false},
    {EINVAL, false},
    {EPERM, false},
    {EINTR, true},
    {ENOMEM, true},
    {ENOSPC, true},
    {EDQUOT, true},
};

START_TEST(a_disk_that_cannot_discard_just_now_offers_it)
{
	cannot_punch = probes[_i].error;
	open_disk(MAX_LEN, false);
	cannot_punch = 0;
	ck_assert_int_eq(
	    (blk_features(blk) & FEATURE(VIRTIO_BLK_F_DISCARD)) != 0,
	    probes[_i].passes);
	ck_assert_uint_eq(clear_one(DISCARD, 0, 8, 0),
	    probes[_i].passes ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_UNSUPP);
}
END_TEST

START_TEST(with_no_discard_a_disk_keeps_its_space)
{
	const struct range range = {8, 8, UNMAP};
	uint64_t before;

	make_file(0, 0600);
	ck_assert_int_eq(pwrite(fd, out, MAX_LEN, 0), MAX_LEN);
	fsync(fd);
	before = allocated();
	blk = blk_open(&lg.logger, path, DISK_NO_DISCARD, "", NULL);
	ck_assert_ptr_nonnull(blk);
	ck_assert_uint_eq(blk_features(blk) & FEATURE(VIRTIO_BLK_F_DISCARD), 0);
	ck_assert_uint_eq(blk_config(blk).write_zeroes_may_unmap, 0);
	ck_assert_uint_eq(clear(DISCARD, &range, 1), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(clear(ZEROES, &range, 1), VIRTIO_BLK_S_OK);
	ck_assert_uint_ge(allocated(), before);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 8, 0, 8 * SECTOR), 0);
	for (unsigned i = 0; i < 8 * SECTOR; i++)
		ck_assert_uint_eq(in[i], 0);
}
END_TEST

START_TEST(a_read_only_disk_cannot_be_cleared)
{
	open_disk(MAX_LEN, true);
	ck_assert_uint_eq(clear_one(DISCARD, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(clear_one(ZEROES, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	expect_disk_untouched();
	ck_assert_uint_eq(fake_uring.submits, 0);
}
END_TEST

/* What a ring in the wrong hands could do. */

/* Operations of Linux 6.19, which most headers do not have yet. */
enum { OP_NOP128 = 63, OP_URING_CMD128 = 64 };

static bool
is_used(unsigned opcode, bool read_only)
{
	switch (opcode) {
	case IORING_OP_READ:
	case IORING_OP_READV:
	case IORING_OP_READ_FIXED:
		return true;
	case IORING_OP_FSYNC:
	case IORING_OP_WRITE:
	case IORING_OP_WRITEV:
	case IORING_OP_WRITE_FIXED:
	case IORING_OP_FALLOCATE:
		return !read_only;
	default:
		return false;
	}
}

/*
 * Number of operations that the kernel has, whatever the headers know of.
 */
static unsigned
operations(void)
{
	struct io_uring_probe *probe = io_uring_get_probe();
	unsigned n;

	ck_assert_ptr_nonnull(probe);
	n = probe->last_op + 1;
	io_uring_free_probe(probe);
	ck_assert_uint_gt(n, IORING_OP_WRITE);
	return n;
}

/*
 * What becomes of an operation on the disk's own ring, if the ring refuses it.
 */
static int
misuse(unsigned opcode, unsigned flags)
{
	struct io_uring *ring = fake_uring.ring;
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int res;

	io_uring_prep_rw(opcode, sqe, 0, out, 1, 0);
	io_uring_sqe_set_flags(sqe, flags);
	ck_assert_int_eq(io_uring_submit(ring), 1);
	ck_assert_int_eq(io_uring_wait_cqe(ring, &cqe), 0);
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return res;
}

static void
expect_no_way(unsigned opcode, unsigned flags)
{
	int res = misuse(opcode, flags);

	/* For those of 128 bytes no entry of ours has room. */
	if (opcode == OP_NOP128 || opcode == OP_URING_CMD128)
		ck_assert(res == -EACCES || res == -EINVAL);
	else
		ck_assert_int_eq(res, -EACCES);
}

START_TEST(the_ring_does_what_the_disk_needs_and_nothing_else)
{
	bool read_only = _i;
	unsigned opcode, n = operations();

	open_disk(MAX_LEN, read_only);
	expect_read(0, SECTOR);
	for (opcode = 0; opcode < n; opcode++)
		if (!is_used(opcode, read_only))
			expect_no_way(opcode, IOSQE_FIXED_FILE);
	expect_disk_untouched();
}
END_TEST

START_TEST(the_ring_works_on_no_other_file)
{
	unsigned opcode, n = operations();

	open_disk(MAX_LEN, false);
	expect_read(0, SECTOR);
	for (opcode = 0; opcode < n; opcode++)
		expect_no_way(opcode, 0);
	ck_assert_int_eq(
	    io_uring_register_files(fake_uring.ring, &fd, 1), -EACCES);
}
END_TEST

/* Stable storage, 5.2.6.2. */

START_TEST(a_flush_is_an_fdatasync)
{
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	ck_assert_uint_eq(fake_uring.others, 1);
}
END_TEST

/*
 * Submit flushes, and have all of them done with one status.
 */
static void
flush_together(unsigned n, uint8_t status)
{
	struct job *job[8];

	for (unsigned i = 0; i < n; i++)
		job[i] = submit(VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	for (unsigned i = 0; i < n; i++) {
		ck_assert_uint_eq(blk_inflight(blk), n - i);
		ck_assert_ptr_eq(reap(), job[i]->req);
		ck_assert_uint_eq(dispose(job[i]), status);
	}
	ck_assert_ptr_null(blk_reap(blk));
}

START_TEST(flushes_that_come_together_are_one_fdatasync)
{
	flush_together(8, VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	fake_uring.fail = 1;
	fake_uring.error = EINTR;
	flush_together(3, VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(fake_uring.datasyncs, 3);
}
END_TEST

START_TEST(when_an_fdatasync_fails_so_does_every_flush_that_it_was_for)
{
	fake_uring.fail = 1;
	fake_uring.error = EIO;
	flush_together(3, VIRTIO_BLK_S_IOERR);
	/* Linux has told of it, and the next one would be good. */
	flush_together(2, VIRTIO_BLK_S_IOERR);
	flush_together(1, VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, "flush failed"));
	expect_write(0, SECTOR);
	expect_read(8, SECTOR);
}
END_TEST

/*
 * Also if it was one that began before.
 */
START_TEST(flushes_that_wait_for_one_that_fails_fail)
{
	struct job *first = submit(VIRTIO_BLK_T_FLUSH, 0, 0, 0), *second;

	fake_uring.hold = true;
	engine_kick(blk->engine);
	second = submit(VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	fake_uring.hold = false;
	fake_uring.error = EIO;
	fake_uring.fail = 1;
	ck_assert_ptr_eq(reap(), first->req);
	ck_assert_ptr_eq(reap(), second->req);
	ck_assert_uint_eq(dispose(first), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(dispose(second), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(fake_uring.datasyncs, 2);
	ck_assert_uint_eq(lg.lines, 1);
}
END_TEST

START_TEST(a_flush_is_not_done_by_an_fdatasync_that_began_before_it)
{
	struct blk_req *flush[3], *req;
	unsigned n = 0;

	flush[0] = submit(VIRTIO_BLK_T_FLUSH, 0, 0, 0)->req;
	engine_kick(blk->engine);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	submit(VIRTIO_BLK_T_OUT, 0, SECTOR, 0);
	flush[1] = submit(VIRTIO_BLK_T_FLUSH, 0, 0, 0)->req;
	flush[2] = submit(VIRTIO_BLK_T_FLUSH, 0, 0, 0)->req;
	engine_kick(blk->engine);
	ck_assert_uint_eq(fake_uring.writes, !fake_uring.show_tmpfs);
	while (blk_inflight(blk) > 0) {
		req = reap();
		if (n == 3 || req != flush[n])
			continue; /* the write, at any time */
		n++;
		ck_assert_uint_eq(fake_uring.datasyncs, n == 1 ? 1 : 2);
	}
	ck_assert_uint_eq(n, 3);
}
END_TEST

START_TEST(writes_are_stable_when_the_driver_cannot_flush)
{
	struct job *job;

	expect_write(0, SECTOR);
	ck_assert_uint_eq(fake_uring.datasyncs, 0);
	blk->s->write_through = 1;
	expect_write(1, SECTOR);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	framing = &framings[5];
	expect_write(2, 3 * SECTOR);
	ck_assert_uint_eq(fake_uring.datasyncs, 2);
	/* All of it was written by then. */
	fake_uring.limit = 100;
	expect_write(5, SECTOR);
	ck_assert_uint_eq(fake_uring.datasyncs, 3);
	fake_uring.limit = 0;
	/* It is not done when it is only written. */
	job = submit(VIRTIO_BLK_T_OUT, 6, SECTOR, 0);
	fake_uring.wait = true;
	engine_kick(blk->engine);
	fake_uring.hold = true;
	ck_assert_ptr_null(blk_reap(blk));
	fake_uring.hold = fake_uring.wait = false;
	ck_assert_uint_eq(*job->req->op.status, UNTOUCHED);
	ck_assert_ptr_eq(reap(), job->req);
	ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(fake_uring.datasyncs, 4);
	blk->s->write_through = 0;
	expect_write(7, SECTOR);
	ck_assert_uint_eq(fake_uring.datasyncs, 4);
}
END_TEST

/*
 * For each of them the kernel would tell of any that was lost, but only of one.
 */
START_TEST(of_writes_that_are_to_be_stable_none_is_if_one_is_not)
{
	struct job *job[3];

	blk->s->write_through = 1;
	for (unsigned i = 0; i < 3; i++)
		job[i] = submit(VIRTIO_BLK_T_OUT, 8 * i, SECTOR, 0);
	fake_uring.wait = true;
	fake_uring.error = EIO;
	fake_uring.spare = fake_uring.show_tmpfs ? 0 : 3;
	fake_uring.fail = 1;
	for (unsigned i = 0; i < 3; i++)
		reap();
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(dispose(job[i]), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	ck_assert_uint_eq(lg.lines, 1);
	/* Nor any other one, whatever the kernel says by now. */
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, 0, SECTOR, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(clear_one(ZEROES, 0, 8, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	ck_assert_uint_eq(lg.lines, 1);
}
END_TEST

/* Bad luck. */

START_TEST(a_short_transfer_is_continued)
{
	static const uint32_t limits[] = {1, 7, 100, 512, 700, 1023};

	for (unsigned f = 0; f < 9; f++) {
		framing = &framings[f];
		if (framing->readable[0] == 1)
			continue;
		fake_uring.limit = limits[_i];
		expect_read(7, 2 * SECTOR);
		expect_write(40, 2 * SECTOR);
		fake_uring.limit = 0;
		ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 40, 0, 2 * SECTOR),
		    VIRTIO_BLK_S_OK);
		ck_assert_mem_eq(in, out, 2 * SECTOR);
	}
	ck_assert_uint_gt(fake_uring.reads, 2 * 8);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(a_disk_that_became_smaller_fails_beyond_its_end)
{
	ck_assert_int_eq(ftruncate(fd, 10 * SECTOR + 100), 0);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, 11, 0, SECTOR), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(written, 0);
	ck_assert_uint_eq(lg.lines, 1);
	/* Half of it there. */
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, 9, 0, 4 * SECTOR), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_le(written, SECTOR + 100);
	expect_read(9, SECTOR);
}
END_TEST

START_TEST(a_file_never_becomes_larger_than_the_disk)
{
	struct stat st;

	fake_uring.file_end = MAX_LEN;
	for (uint64_t sector = SECTORS - 4; sector < SECTORS + 4; sector++)
		for (unsigned n = 1; n < 6; n++)
			request(VIRTIO_BLK_T_OUT, sector, n * SECTOR, 0);
	/* Of a size that we were not told of we take no notice, */
	ck_assert_int_eq(ftruncate(fd, SECTOR), 0);
	expect_write(SECTORS - 1, SECTOR);
	request(VIRTIO_BLK_T_OUT, SECTORS - 1, 2 * SECTOR, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, MAX_LEN);
	ck_assert_uint_eq(fake_uring.out_of_file, 0);
	/* but of any other. */
	ck_assert_int_eq(ftruncate(fd, SECTOR), 0);
	blk_resize(blk);
	for (unsigned sector = 1; sector < SECTORS; sector++)
		ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, sector, SECTOR, 0),
		    VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, SECTOR);
}
END_TEST

/* The last two from reads and writes only. */
static const int passing[] = {EINTR, EAGAIN, ECANCELED, ENOMEM, EFAULT};

START_TEST(an_interrupted_operation_is_tried_again)
{
	fake_uring.error = passing[_i];
	for (unsigned i = 1; i <= 4; i++) {
		fake_uring.fail = i;
		expect_read(i, SECTOR);
		fake_uring.fail = i;
		expect_write(32 + i, SECTOR);
		fake_uring.fail = _i < 3 ? i : 0;
		ck_assert_uint_eq(
		    request(VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	}
	/* What ECANCELED means does not soon pass. */
	if (passing[_i] != ECANCELED)
		ck_assert_uint_eq(fake_uring.fail, 0);
	if (_i < 2)
		ck_assert_uint_eq(fake_uring.datasyncs, 4 + 1 + 2 + 3 + 4);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

/*
 * All of it: io_uring gets no thread, or no memory, from now on.
 */
START_TEST(what_io_uring_cannot_do_is_done_without_it)
{
	const struct range range[] = {{8, 8, 0}, {24, 8, UNMAP}};

	fake_uring.error = passing[_i];
	fake_uring.fail = 1000000;
	framing = &framings[5];
	expect_read(3, 9 * SECTOR);
	expect_write(32, 16 * SECTOR);
	expect_write(41, 3 * SECTOR);
	ck_assert_uint_eq(clear(DISCARD, range, 1), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(clear(ZEROES, range + 1, 1), VIRTIO_BLK_S_OK);
	expect_zero(8, 8);
	expect_zero(24, 8);
	if (passing[_i] == ENOMEM)
		fake_uring.fail = 0;
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

static void
wait_in_vain(void)
{
	for (unsigned i = 0; i < 50; i++) {
		engine_kick(blk->engine);
		ck_assert_ptr_null(blk_reap(blk));
	}
}

START_TEST(memory_that_the_host_lacks_is_waited_for)
{
	struct job *job, *other;

	fake_uring.error = ENOMEM;
	fake_uring.fail = 100;
	fake_uring.starve = 100;
	job = submit(VIRTIO_BLK_T_OUT, 8, 8 * SECTOR, 0);
	for (unsigned i = 0; fake_uring.starve > 0; i++) {
		ck_assert_uint_lt(i, 1000);
		engine_kick(blk->engine);
		ck_assert_ptr_null(blk_reap(blk));
		/* It would not even let us sleep, and come too often. */
		ck_assert(
		    fake_uring.starve == 100 || !engine_pending(blk->engine));
		/* But in a while. */
		ck_assert(fake_uring.starve == 100 || fake_uring.starve == 0 ||
			  engine_starved(blk->engine));
	}
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, "no memory"));
	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), job->req);
	ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_OK);
	ck_assert(!engine_starved(blk->engine));
	expect_on_disk(8 * SECTOR, out, 8 * SECTOR);
	/* Not for ever, though; and the next time again. */
	for (unsigned again = 0; again < 2; again++) {
		fake_uring.fail = fake_uring.starve = 100000;
		job = submit(VIRTIO_BLK_T_IN, 0, 0, 8 * SECTOR);
		wait_in_vain();
		other = submit(VIRTIO_BLK_T_IN, 8, 0, 8 * SECTOR);
		later += 31;
		engine_kick(blk->engine);
		ck_assert_ptr_eq(reap(), job->req);
		ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_IOERR);
		/* For the other it is waited as long. */
		wait_in_vain();
		later += 31;
		engine_kick(blk->engine);
		ck_assert_ptr_eq(reap(), other->req);
		ck_assert_uint_eq(dispose(other), VIRTIO_BLK_S_IOERR);
		fake_uring.fail = fake_uring.starve = 0;
		expect_read(0, SECTOR);
	}
}
END_TEST

START_TEST(memory_that_comes_and_goes_does_not_flood_the_log)
{
	struct job *job;
	time_t begun = time(NULL);

	fake_uring.error = ENOMEM;
	for (unsigned i = 0; i < 100; i++) {
		fake_uring.fail = fake_uring.starve = 100;
		job = submit(VIRTIO_BLK_T_OUT, 8, 8 * SECTOR, 0);
		while (fake_uring.starve > 0) {
			engine_kick(blk->engine);
			ck_assert_ptr_null(blk_reap(blk));
		}
		engine_kick(blk->engine);
		ck_assert_ptr_eq(reap(), job->req);
		ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_OK);
	}
	ck_assert_uint_ge(lg.lines, 1);
	ck_assert_uint_le(lg.lines, time(NULL) - begun + 2);
}
END_TEST

/*
 * As FUSE answers if it passes the page cache: such memory it cannot use.
 */
START_TEST(a_file_system_that_cannot_use_the_guests_memory_gets_other)
{
	fake_uring.no_foreign = true;
	framing = &framings[_i];
	expect_read(3, 9 * SECTOR);
	expect_write(32, 16 * SECTOR);
	fake_uring.limit = 700;
	expect_write(40, 17 * SECTOR);
	expect_read(3, 9 * SECTOR);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

/* Nor has the host any, at first. */
START_TEST(memory_for_such_a_file_system_is_waited_for)
{
	struct job *job;

	fake_uring.no_foreign = true;
	no_buffers = true;
	job = submit(VIRTIO_BLK_T_OUT, 8, 8 * SECTOR, 0);
	wait_in_vain();
	ck_assert(engine_starved(blk->engine));
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, "no memory"));
	no_buffers = false;
	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), job->req);
	ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_OK);
	expect_on_disk(8 * SECTOR, out, 8 * SECTOR);
}
END_TEST

START_TEST(an_operation_that_always_faults_fails_in_the_end)
{
	fake_uring.error = EFAULT;
	fake_uring.fail = 100000;
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, 0, 0, SECTOR), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_gt(fake_uring.reads, 1);
	ck_assert_uint_eq(lg.lines, 1);
	fake_uring.fail = 0;
	expect_read(0, SECTOR);
}
END_TEST

static const struct {
	int error;
	uint32_t type;
} failures[] = {
    {EIO, VIRTIO_BLK_T_IN},
    {EIO, VIRTIO_BLK_T_OUT},
    {EIO, VIRTIO_BLK_T_FLUSH},
    {ENOSPC, VIRTIO_BLK_T_OUT},
    {EDQUOT, VIRTIO_BLK_T_OUT},
    {EREMOTEIO, VIRTIO_BLK_T_IN},
    {ENODEV, VIRTIO_BLK_T_FLUSH},
};

START_TEST(a_failed_operation_is_an_error_for_the_guest_and_in_the_log)
{
	uint32_t type = failures[_i].type;
	size_t in_len = type == VIRTIO_BLK_T_IN ? SECTOR : 0;

	fake_uring.error = failures[_i].error;
	fake_uring.fail = 1;
	ck_assert_uint_eq(
	    request(type, 0, type == VIRTIO_BLK_T_OUT ? SECTOR : 0, in_len),
	    VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(written, in_len == 0);
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, strerror(failures[_i].error)));
	/* The disk goes on. */
	expect_read(0, SECTOR);
	expect_write(0, SECTOR);
}
END_TEST

START_TEST(a_failed_flush_is_not_said_to_be_at_a_place_on_the_disk)
{
	expect_read(42, SECTOR); /* by the same struct blk_req */
	fake_uring.error = EIO;
	fake_uring.fail = 1;
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(lg.lines, 1);
	/* 43 * SECTOR is where that read ended. */
	ck_assert_msg(strstr(lg.last, "22016") == NULL, "%s", lg.last);
}
END_TEST

START_TEST(a_read_that_fails_halfway_has_written_what_it_has)
{
	fake_uring.limit = 700;
	fake_uring.spare = 1;
	fake_uring.fail = 1;
	fake_uring.error = EIO;
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, 0, 0, 4 * SECTOR), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_le(written, 700);
	ck_assert_uint_eq(in[700], UNTOUCHED);
}
END_TEST

START_TEST(a_disk_that_keeps_failing_does_not_flood_the_log)
{
	fake_uring.error = EIO;
	fake_uring.fail = 1000;
	for (unsigned i = 0; i < 1000; i++)
		ck_assert_uint_eq(
		    request(VIRTIO_BLK_T_IN, 0, 0, SECTOR), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_ge(lg.lines, 1);
	ck_assert_uint_le(lg.lines, 10);
}
END_TEST

START_TEST(a_limit_on_file_sizes_is_an_error_not_the_end)
{
	/* Far more than what the test framework writes. */
	struct rlimit limit = {1 << 30, 1 << 30};

	open_disk(UINT64_C(2) << 30, false);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	expect_write((1 << 30) / SECTOR - 1, SECTOR);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, (1 << 30) / SECTOR, SECTOR, 0),
	    VIRTIO_BLK_S_IOERR);
	ck_assert_ptr_nonnull(strstr(lg.last, strerror(EFBIG)));
}
END_TEST

/* Many at once. */

START_TEST(as_many_requests_as_promised_can_be_had)
{
	struct blk_req *req[BLK_REQS];

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < BLK_REQS; i++) {
			req[i] = blk_get(blk);
			ck_assert_ptr_nonnull(req[i]);
			for (unsigned j = 0; j < i; j++)
				ck_assert_ptr_ne(req[i], req[j]);
		}
		ck_assert_ptr_null(blk_get(blk));
		blk_put(blk, req[7]);
		ck_assert_ptr_eq(blk_get(blk), req[7]);
		ck_assert_ptr_null(blk_get(blk));
		for (unsigned i = 0; i < BLK_REQS; i++)
			blk_put(blk, req[i]);
	}
}
END_TEST

START_TEST(all_requests_can_be_in_flight_at_once)
{
	struct job *job[BLK_REQS] = {NULL};
	struct blk_req *req;
	unsigned i, n;

	for (i = 0; i < BLK_REQS; i++) {
		job[i] = i % 4 == 3
			     ? submit(VIRTIO_BLK_T_FLUSH, 0, 0, 0)
			     : submit(VIRTIO_BLK_T_IN, i % SECTORS, 0, SECTOR);
		job[i]->req->head = i;
		ck_assert_uint_eq(blk_inflight(blk), i + 1);
	}
	ck_assert_ptr_null(blk_get(blk));
	ck_assert_uint_eq(fake_uring.submits, 0);
	/* 8 at a time, so that accesses are not delayed. */
	for (n = 8; n <= BLK_REQS / 4 * 3; n += 8) {
		ck_assert(n == 8 || engine_pending(blk->engine));
		engine_kick(blk->engine);
		ck_assert_uint_eq(fake_uring.submits, n / 8);
		ck_assert_uint_eq(fake_uring.reads, n);
	}
	ck_assert(!engine_pending(blk->engine));
	for (n = BLK_REQS; n > 0; n--) {
		ck_assert_uint_eq(blk_inflight(blk), n);
		req = reap();
		i = req->head;
		ck_assert_uint_lt(i, BLK_REQS);
		ck_assert_ptr_nonnull(job[i]);
		ck_assert_ptr_eq(job[i]->req, req);
		ck_assert_uint_eq(dispose(job[i]), VIRTIO_BLK_S_OK);
		if (i % 4 != 3)
			ck_assert_uint_eq(
			    in[1], pattern(i % SECTORS * SECTOR + 1));
		job[i] = NULL;
	}
	ck_assert_uint_eq(blk_inflight(blk), 0);
	ck_assert_ptr_null(blk_reap(blk));
}
END_TEST

START_TEST(requests_that_all_go_on_at_once_find_room)
{
	struct job *job[BLK_REQS];

	fake_uring.limit = 300;
	fake_uring.fail = BLK_REQS / 2;
	fake_uring.error = EAGAIN;
	for (unsigned i = 0; i < BLK_REQS; i++) {
		job[i] = submit(VIRTIO_BLK_T_IN, i % SECTORS, 0, SECTOR);
		job[i]->req->head = i;
	}
	engine_kick(blk->engine);
	for (unsigned n = 0; n < BLK_REQS; n++) {
		unsigned i = reap()->head;

		ck_assert_uint_eq(dispose(job[i]), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(
		    in[SECTOR - 1], pattern((i % SECTORS + 1) * SECTOR - 1));
	}
}
END_TEST

START_TEST(reaping_never_waits_and_the_descriptor_tells_when_to)
{
	struct job *job;

	ck_assert_ptr_null(blk_reap(blk));
	ck_assert(!readable(engine_fd(blk->engine)));
	fake_uring.hold = true;
	job = submit(VIRTIO_BLK_T_IN, 0, 0, SECTOR);
	engine_kick(blk->engine);
	for (unsigned i = 0; i < 10; i++) {
		ck_assert_ptr_null(blk_reap(blk));
		ck_assert(!readable(engine_fd(blk->engine)));
		ck_assert_uint_eq(blk_inflight(blk), 1);
	}
	fake_uring.hold = false;
	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), job->req);
	ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_OK);
	ck_assert(!readable(engine_fd(blk->engine)));
}
END_TEST

START_TEST(a_status_is_not_written_before_the_data)
{
	struct job *job;
	const struct iovec *last;

	fake_uring.hold = true;
	job = submit(VIRTIO_BLK_T_IN, 0, 0, SECTOR);
	last = &job->piece[job->nreadable + job->nwritable - 1];
	engine_kick(blk->engine);
	ck_assert_ptr_null(blk_reap(blk));
	ck_assert_uint_eq(
	    ((uint8_t *)last->iov_base)[last->iov_len - 1], UNTOUCHED);
	fake_uring.hold = false;
	engine_kick(blk->engine);
	ck_assert_ptr_eq(reap(), job->req);
	ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_OK);
}
END_TEST

/* Without the page cache. */

/*
 * How many pages of the disk are in the page cache.
 */
static unsigned
cached_pages(void)
{
	unsigned char in_core[MAX_LEN / BLOCK];
	unsigned n = 0;
	void *map = mmap(NULL, MAX_LEN, PROT_READ, MAP_SHARED, fd, 0);

	ck_assert_ptr_ne(map, MAP_FAILED);
	ck_assert_int_eq(mincore(map, MAX_LEN, in_core), 0);
	for (int i = 0; i < COUNT(in_core); i++)
		n += in_core[i] & 1;
	munmap(map, MAX_LEN);
	return n;
}

START_TEST(what_is_read_and_written_directly_is_not_in_the_page_cache)
{
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	ck_assert_uint_eq(cached_pages(), 0);
	expect_read(0, MAX_LEN);
	ck_assert_uint_eq(cached_pages(), 0);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_OUT, 8, 2 * BLOCK, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(cached_pages(), 0);
	ck_assert_uint_eq(fake_uring.directs, 2);
	expect_on_disk(BLOCK, out, 2 * BLOCK);
}
END_TEST

START_TEST(direct_writes_are_stable_when_the_driver_cannot_flush)
{
	expect_write(0, MAX_LEN);
	ck_assert_uint_eq(fake_uring.datasyncs, 0);
	blk->s->write_through = 1;
	fake_uring.limit = BLOCK;
	expect_write(0, MAX_LEN);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	ck_assert_uint_eq(fake_uring.directs, 1 + MAX_LEN / BLOCK);
}
END_TEST

/* Which part of a block, or some of them, and whether it is done directly. */
static const struct {
	uint64_t sector;
	unsigned sectors;
	bool direct;
} places[] = {
    {0, 8, true},
    {8, 24, true},
    {0, 1, false},
    {7, 1, false},
    {1, 8, false},
    {0, 15, false},
    {SECTORS - 1, 1, false},
    {SECTORS - 8, 8, true},
};

START_TEST(parts_of_blocks_are_written_and_nothing_beside_them)
{
	static uint8_t want[MAX_LEN];
	uint64_t at = places[_i].sector * SECTOR;
	size_t len = places[_i].sectors * SECTOR;

	for (size_t i = 0; i < sizeof(want); i++)
		want[i] = i >= at && i < at + len ? out[i - at] : pattern(i);
	expect_read(places[_i].sector, len);
	expect_write(places[_i].sector, len);
	ck_assert_uint_eq(fake_uring.directs, places[_i].direct ? 2 : 0);
	expect_on_disk(0, want, sizeof(want));
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, 0, 0, MAX_LEN), VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(in, want, sizeof(want));
}
END_TEST

/*
 * Buffered and direct I/O must not be in flight at the same time: the
 * read-modify-write of a part of a block would undo the other.
 */
START_TEST(parts_of_blocks_and_whole_ones_take_turns)
{
	struct job *job[4];

	for (unsigned i = 0; i < 3; i++) {
		bool whole = i != 1;

		job[i] = submit(
		    VIRTIO_BLK_T_OUT, 8 + !whole, whole ? BLOCK : SECTOR, 0);
	}
	/* The part is refused, and has to wait for both. */
	for (unsigned i = 0; i < 2; i++) {
		engine_kick(blk->engine);
		ck_assert_uint_eq(fake_uring.writes, 3);
		ck_assert_uint_eq(fake_uring.directs, 2);
		ck_assert_ptr_ne(reap(), job[1]->req);
	}
	ck_assert_uint_eq(fake_uring.writes, 3);
	engine_kick(blk->engine);
	ck_assert_uint_eq(fake_uring.writes, 4);
	/* And who comes now waits for it. */
	job[3] = submit(VIRTIO_BLK_T_OUT, 8, BLOCK, 0);
	engine_kick(blk->engine);
	ck_assert_uint_eq(fake_uring.writes, 4);
	ck_assert_ptr_eq(reap(), job[1]->req);
	engine_kick(blk->engine);
	ck_assert_uint_eq(fake_uring.directs, 3);
	ck_assert_ptr_eq(reap(), job[3]->req);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(dispose(job[i]), VIRTIO_BLK_S_OK);
	expect_on_disk(8 * SECTOR, out, BLOCK);
}
END_TEST

START_TEST(parts_of_a_block_written_at_once_are_all_there)
{
	static uint8_t want[MAX_LEN];
	struct job *job[SECTORS];
	unsigned n, sector;

	memset(want, 0, sizeof(want));
	for (unsigned round = 0; round < 100; round++) {
		/* Every sector once, in some order, now and then eight. */
		for (sector = n = 0; sector < SECTORS; n++) {
			unsigned at = sector ^ round % SECTORS;
			unsigned some =
			    at % 8 == 0 && sector % 8 == 0 && round % 3 == 0
				? 8
				: 1;

			memset(out, round + n, some * SECTOR);
			memset(want + at * SECTOR, round + n, some * SECTOR);
			job[n] = submit(VIRTIO_BLK_T_OUT, at, some * SECTOR, 0);
			sector += some;
		}
		engine_kick(blk->engine);
		for (unsigned i = 0; i < n; i++)
			reap();
		for (unsigned i = 0; i < n; i++)
			ck_assert_uint_eq(dispose(job[i]), VIRTIO_BLK_S_OK);
		expect_on_disk(0, want, sizeof(want));
	}
	ck_assert_uint_gt(fake_uring.directs, 0);
	ck_assert_uint_gt(fake_uring.writes, fake_uring.directs);
}
END_TEST

START_TEST(the_last_part_of_a_block_does_not_make_a_file_grow)
{
	struct stat st;
	char end[101];

	open_disk(10 * SECTOR + 100, false);
	ck_assert_uint_eq(blk_config(blk).capacity, 10);
	expect_write(9, SECTOR);
	expect_write(8, 2 * SECTOR);
	expect_write(0, 10 * SECTOR);
	ck_assert_uint_eq(fake_uring.directs, 0);
	expect_write(0, 8 * SECTOR);
	ck_assert_uint_eq(fake_uring.directs, 1);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, 10 * SECTOR + 100);
	ck_assert_int_eq(pread(fd, end, sizeof(end), 10 * SECTOR), 100);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_uint_eq((uint8_t)end[i], pattern(10 * SECTOR + i));
}
END_TEST

/*
 * A request of 'n' segments that are all the same memory.
 */
static struct virtio_blk_outhdr headers[BLK_REQS];
static uint8_t statuses[BLK_REQS];

static void
submit_large(
    uint32_t type, uint64_t sector, uint8_t *memory, size_t len, unsigned n)
{
	unsigned at = blk_inflight(blk);
	struct blk_req *req = blk_get(blk);

	ck_assert_ptr_nonnull(req);
	headers[at] =
	    (struct virtio_blk_outhdr){.type = type, .sector = sector};
	req->iov[0] = (struct iovec){&headers[at], sizeof(headers[at])};
	for (unsigned i = 1; i <= n; i++)
		req->iov[i] = (struct iovec){memory, len};
	req->iov[n + 1] = (struct iovec){&statuses[at], 1};
	req->readable = type == VIRTIO_BLK_T_OUT ? 1 + n : 1;
	req->writable = 2 + n - req->readable;
	ck_assert(blk_submit(blk, req));
}

#define MIB (1 << 20)

START_TEST(requests_beyond_the_bounce_pool_wait_for_their_turn)
{
	/* The last two wait, though there would be room for the very last. */
	static const size_t sizes[] = {MIB, MIB, MIB, MIB / 2, MIB, SECTOR};
	static uint8_t memory[MIB];
	unsigned n;

	open_disk(8 * MIB, false);
	for (n = 0; n < 6; n++)
		submit_large(
		    VIRTIO_BLK_T_IN, n * (MIB / SECTOR), memory, sizes[n], 1);
	fake_uring.file_end = 5 * MIB;
	do
		engine_kick(blk->engine);
	while (engine_pending(blk->engine));
	ck_assert_uint_eq(fake_uring.reads, 4);
	ck_assert_uint_eq(fake_uring.out_of_file, 0);
	/* Nothing goes on before the disk has done something. */
	ck_assert(!engine_pending(blk->engine));
	for (n = 0; n < 6; n++) {
		struct blk_req *req = reap();

		ck_assert_uint_eq(*req->op.status, VIRTIO_BLK_S_OK);
		blk_put(blk, req);
	}
	ck_assert_uint_eq(fake_uring.directs, 6);
}
END_TEST

START_TEST(requests_of_the_largest_size_are_done_piece_by_piece)
{
	enum { SEGMENTS = BLK_IOVECS - 2, REQUESTS = 3 };
	static uint8_t memory[MIB];
	struct blk_req *req;

	open_disk((off_t)SEGMENTS * MIB, false);
	for (unsigned i = 0; i < REQUESTS; i++)
		submit_large(
		    VIRTIO_BLK_T_IN, 0, memory, sizeof(memory), SEGMENTS);
	engine_kick(blk->engine);
	for (unsigned i = 0; i < REQUESTS; i++) {
		req = reap();
		ck_assert_uint_eq(*req->op.status, VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(req->written, SEGMENTS * MIB + 1);
	}
	ck_assert_uint_eq(fake_uring.directs, REQUESTS * SEGMENTS);
}
END_TEST

/*
 * Any number of requests that are each other's neighbours, together 'all' bytes
 * at 'memory', in segments of an odd size.
 */
static unsigned
submit_neighbours(uint32_t type, uint8_t *memory, size_t all, unsigned *seed)
{
	size_t at = 0, len, size;
	struct iovec *iov;
	unsigned n = 0;

	for (; at < all; at += len, n++) {
		struct blk_req *req = blk_get(blk);
		bool write = type == VIRTIO_BLK_T_OUT;
		size_t done = 0;

		ck_assert_ptr_nonnull(req);
		len = (1 + rand_r(seed) % (n % 8 ? 100 : 3000)) * SECTOR;
		len = len < all - at ? len : all - at;
		headers[n].type = type;
		headers[n].sector = at / SECTOR;
		iov = req->iov;
		*iov++ = (struct iovec){&headers[n], sizeof(headers[n])};
		for (; done < len; done += size) {
			size = len / 100 + rand_r(seed) % 5000;
			size = size < len - done ? size : len - done;
			*iov++ = (struct iovec){memory + at + done, size};
		}
		*iov++ = (struct iovec){&statuses[n], 1};
		req->readable = write ? iov - req->iov - 1 : 1;
		req->writable = iov - req->iov - req->readable;
		ck_assert(blk_submit(blk, req));
	}
	return n;
}

START_TEST(requests_of_all_sizes_at_once_get_what_is_theirs)
{
	enum { LEN = 8 * MIB };
	uint32_t *want = malloc(LEN), *got = malloc(LEN);
	unsigned seed = _i, n;

	fake_uring.unit = _i % 2 ? 0 : BLOCK;
	open_disk(LEN, false);
	ck_assert_ptr_nonnull(want);
	ck_assert_ptr_nonnull(got);
	for (unsigned round = 1; round <= 8; round++) {
		for (unsigned k = 0; k < LEN / sizeof(*want); k++)
			want[k] = round * k;
		memset(got, 0, LEN);
		for (int back = 0; back < 2; back++) {
			n = submit_neighbours(
			    back ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
			    (uint8_t *)(back ? got : want), LEN, &seed);
			engine_kick(blk->engine);
			while (n-- > 0) {
				struct blk_req *req = reap();

				ck_assert_uint_eq(
				    *req->op.status, VIRTIO_BLK_S_OK);
				blk_put(blk, req);
			}
		}
		ck_assert_mem_eq(got, want, LEN);
	}
	ck_assert_uint_gt(fake_uring.directs, 0);
	free(want);
	free(got);
}
END_TEST

START_TEST(a_disk_without_direct_io_is_refused)
{
	make_file(MAX_LEN, 0600);
	direct = DISK_DIRECT;
	no_direct = true;
	expect_refused(path, _i);
}
END_TEST

START_TEST(on_tmpfs_io_is_synchronous)
{
	struct job *job = submit(VIRTIO_BLK_T_OUT, 1, 3 * SECTOR, 0);

	engine_kick(blk->engine);
	ck_assert_ptr_eq(blk_reap(blk), job->req);
	ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_OK);
	expect_on_disk(SECTOR, out, 3 * SECTOR);
	expect_read(4, 2 * SECTOR);
	ck_assert_uint_eq(fake_uring.submits, 0);
}
END_TEST

/*
 * But always a part of it, so that it makes progress.
 */
START_TEST(on_tmpfs_a_kick_has_a_budget)
{
	enum { JOBS = 20 };
	struct job *job[JOBS];
	unsigned done = 0, some;

	for (unsigned i = 0; i < JOBS; i++)
		job[i] = submit(VIRTIO_BLK_T_IN, 0, 0, 16 * SECTOR);
	ck_assert(engine_pending(blk->engine));
	while (done < JOBS) {
		ck_assert(engine_pending(blk->engine));
		engine_kick(blk->engine);
		for (some = 0; blk_reap(blk) != NULL; some++)
			ck_assert_uint_eq(
			    dispose(job[done + some]), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(some, KICK_BUDGET / (16 * SECTOR));
		done += some;
	}
	ck_assert(!engine_pending(blk->engine));
}
END_TEST

/*
 * Of any length and any segments, in the order of arrival.
 */
START_TEST(long_transfers_on_tmpfs_are_split)
{
	enum { LEN = 8 * MIB };
	uint32_t *want = malloc(LEN), *got = calloc(1, LEN);
	unsigned seed = _i, n, all, goes;

	open_disk(LEN, false);
	ck_assert_ptr_nonnull(want);
	ck_assert_ptr_nonnull(got);
	for (unsigned k = 0; k < LEN / sizeof(*want); k++)
		want[k] = k;
	for (int back = 0; back < 2; back++) {
		n = all =
		    submit_neighbours(back ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
			(uint8_t *)(back ? got : want), LEN, &seed);
		for (goes = 0; n > 0; goes++) {
			struct blk_req *req;

			engine_kick(blk->engine);
			while ((req = blk_reap(blk)) != NULL) {
				ck_assert_ptr_eq(
				    req->op.status, &statuses[all - n--]);
				ck_assert_uint_eq(
				    *req->op.status, VIRTIO_BLK_S_OK);
				blk_put(blk, req);
			}
		}
		ck_assert_uint_ge(goes, LEN / KICK_BUDGET);
		/* Each request may end within a page. */
		ck_assert_uint_le(goes, (LEN + all * 4096) / KICK_BUDGET + 1);
	}
	ck_assert_mem_eq(got, want, LEN);
	free(want);
	free(got);
}
END_TEST

START_TEST(memory_of_the_guest_that_is_gone_is_an_error)
{
	struct job *job = submit(VIRTIO_BLK_T_IN, 0, 0, SECTOR);
	void *gone =
	    mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* Its data is the first buffer after the header, which is read. */
	job->req->op.data->iov_base = gone;
	ck_assert_ptr_eq(reap(), job->req);
	ck_assert_uint_eq(dispose(job), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(lg.lines, 1);
	expect_read(0, SECTOR);
}
END_TEST

START_TEST(a_disk_on_tmpfs_may_become_smaller)
{
	ck_assert_int_eq(ftruncate(fd, SECTOR), 0);
	ck_assert_uint_eq(
	    request(VIRTIO_BLK_T_IN, 0, 0, 2 * SECTOR), VIRTIO_BLK_S_IOERR);
	expect_read(0, SECTOR);
}
END_TEST

/*
 * What is true of a disk however it is read and written.
 */
static void
add_requests(Suite *s, SFun before)
{
	TCase *tc;

	tc = cases_add(s, "requests", before, NULL);
	tcase_add_loop_test(
	    tc, reads_and_writes_work_in_any_framing, 0, COUNT(framings));
	tcase_add_test(tc, empty_buffers_in_between_change_nothing);
	tcase_add_test(tc, a_request_of_as_many_segments_as_allowed_works);
	tcase_add_test(tc, the_whole_disk_can_be_read_and_written_at_once);
	tcase_add_loop_test(
	    tc, a_request_without_a_status_byte_stays_the_callers, 0, 3);
	tcase_add_loop_test(tc, a_request_with_half_a_header_fails, 0,
	    sizeof(struct virtio_blk_outhdr));
	tcase_add_loop_test(tc,
	    an_unknown_request_is_unsupported_and_does_nothing, 0,
	    COUNT(unknown_types));
	tcase_add_loop_test(tc,
	    a_transfer_that_is_not_all_on_the_disk_fails_whole, 0,
	    COUNT(bad_ranges));
	tcase_add_test(tc, lengths_of_4_gib_are_added_not_cut_off);
	tcase_add_test(
	    tc, lengths_whose_sum_is_a_sector_in_32_bits_are_not_a_sector);
	tcase_add_test(tc, a_transfer_of_nothing_succeeds);
	tcase_add_test(
	    tc, a_write_with_room_before_the_status_has_not_written_that);
	tcase_add_loop_test(tc, the_serial_is_padded_with_zeros_to_20_bytes, 0,
	    COUNT(id_framings));
	tcase_add_loop_test(
	    tc, a_serial_fills_as_much_of_a_buffer_as_there_is, 0, 24);
	tcase_add_test(tc, a_flush_is_an_fdatasync);
	tcase_add_test(tc, flushes_that_come_together_are_one_fdatasync);
	tcase_add_test(
	    tc, when_an_fdatasync_fails_so_does_every_flush_that_it_was_for);
	tcase_add_test(tc, flushes_that_wait_for_one_that_fails_fail);
	tcase_add_test(
	    tc, a_flush_is_not_done_by_an_fdatasync_that_began_before_it);
	tc = cases_add(s, "ranges", before, NULL);
	tcase_add_loop_test(tc,
	    a_cleared_range_is_zeros_and_given_back_if_it_may, 0, COUNT(ways));
	tcase_add_loop_test(
	    tc, a_part_of_a_block_can_be_cleared, 0, COUNT(ways));
	tcase_add_loop_test(
	    tc, ranges_come_in_any_number_and_framing, 0, 2 * COUNT(framings));
	tcase_add_loop_test(tc,
	    the_whole_disk_and_nothing_at_all_can_be_cleared, 0, COUNT(ways));
	tcase_add_loop_test(
	    tc, one_bad_range_and_nothing_is_cleared, 0, COUNT(bad_clears));
	tcase_add_loop_test(tc, ranges_larger_than_the_limit_are_refused, 0, 2);
	tcase_add_loop_test(tc, half_a_range_or_too_many_are_refused, 0, 2);
	tcase_add_loop_test(
	    tc, a_range_cleared_is_stable_when_writes_are, 0, COUNT(ways));
	tcase_add_loop_test(
	    tc, where_the_host_cannot_zero_zeros_are_written, 0, 4);
	tcase_add_loop_test(
	    tc, where_the_host_cannot_discard_the_guest_gets_unsupp, 0, 2);
	tcase_add_test(
	    tc, clearing_that_is_interrupted_is_tried_again_and_may_fail);
}

static void
add_luck(Suite *s, SFun before)
{
	TCase *tc;

	tc = cases_add(s, "bad luck", before, NULL);
	tcase_add_loop_test(tc, a_short_transfer_is_continued, 0, 6);
	tcase_add_test(tc, a_disk_that_became_smaller_fails_beyond_its_end);
	tcase_add_test(tc, a_file_never_becomes_larger_than_the_disk);
	tcase_add_loop_test(
	    tc, an_interrupted_operation_is_tried_again, 0, COUNT(passing));
	tcase_add_loop_test(
	    tc, what_io_uring_cannot_do_is_done_without_it, 0, 4);
	tcase_add_test(tc, memory_that_the_host_lacks_is_waited_for);
	tcase_add_test(tc, memory_that_comes_and_goes_does_not_flood_the_log);
	tcase_add_loop_test(tc,
	    a_file_system_that_cannot_use_the_guests_memory_gets_other, 0, 6);
	tcase_add_test(tc, an_operation_that_always_faults_fails_in_the_end);
	tcase_add_loop_test(tc,
	    a_failed_operation_is_an_error_for_the_guest_and_in_the_log, 0,
	    COUNT(failures));
	tcase_add_test(
	    tc, a_failed_flush_is_not_said_to_be_at_a_place_on_the_disk);
	tcase_add_test(tc, a_read_that_fails_halfway_has_written_what_it_has);
	tcase_add_test(tc, a_disk_that_keeps_failing_does_not_flood_the_log);

	tc = cases_add(s, "many", before, NULL);
	tcase_add_test(tc, as_many_requests_as_promised_can_be_had);
	tcase_add_test(tc, all_requests_can_be_in_flight_at_once);
	tcase_add_test(tc, requests_that_all_go_on_at_once_find_room);
	tcase_add_test(
	    tc, reaping_never_waits_and_the_descriptor_tells_when_to);
	tcase_add_test(tc, a_status_is_not_written_before_the_data);
}

/*
 * Whether files, where they are made for that, have direct I/O.
 */
static bool
can_direct(void)
{
	static const _Alignas(BLOCK) char block[BLOCK];
	const char *dir = getenv("TMPDIR");
	struct statfs fs;
	int at = open(dir != NULL ? dir : "/var/tmp",
	    O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	struct rlimit lock;

	/* Of 64 KiB, as it was before Linux 5.16, one disk cannot be opened. */
	if (geteuid() != 0 && getrlimit(RLIMIT_MEMLOCK, &lock) == 0 &&
	    lock.rlim_cur < 2 * 4 * MIB)
		return false;
	/* In memory it is possible since Linux 6.6, but means nothing. */
	return at >= 0 && write(at, block, BLOCK) == BLOCK &&
	       fstatfs(at, &fs) == 0 && fs.f_type != TMPFS_MAGIC &&
	       close(at) == 0;
}

int
main(void)
{
	Suite *s = suite_create("blk");
	TCase *tc;

	/* Twice: to be written, and read-only. */
	tc = cases_add(s, "open", setup, NULL);
	tcase_add_loop_test(tc, a_disk_that_is_not_there_is_refused, 0, 2);
	tcase_add_loop_test(tc, a_directory_is_refused, 0, 2);
	tcase_add_loop_test(tc, a_character_device_is_refused, 0, 2);
	tcase_add_loop_test(tc, a_fifo_is_refused_and_not_waited_for, 0, 2);
	tcase_add_loop_test(tc, an_empty_file_is_refused, 0, 2);
	tcase_add_loop_test(tc, a_file_of_less_than_a_sector_is_refused, 0, 2);
	tcase_add_test(
	    tc, a_file_that_may_not_be_written_is_a_disk_only_if_read_only);
	tcase_add_loop_test(
	    tc, a_file_of_odd_size_loses_its_last_bytes_and_says_so, 0, 2);
	tcase_add_loop_test(tc, the_configuration_describes_the_disk, 0, 2);
	tcase_add_test(
	    tc, the_capacity_of_a_large_disk_is_in_sectors_of_512_bytes);
	tcase_add_loop_test(tc, on_a_resize_the_size_is_read_again, 0, 2);
	tcase_add_test(tc, a_disk_may_grow_beyond_2_tib);
	tcase_add_test(tc, a_disk_that_is_no_disk_any_more_keeps_its_size);
	tcase_add_test(tc, what_is_done_is_counted);
	tcase_add_loop_test(tc, the_features_are_those_that_work, 0, 2);
	tcase_add_test(tc, a_read_only_disk_refuses_writes);
	tcase_add_loop_test(
	    tc, the_ring_does_what_the_disk_needs_and_nothing_else, 0, 2);
	tcase_add_test(tc, the_ring_works_on_no_other_file);
	tcase_add_test(tc, a_serial_of_20_characters_has_no_end);
	tcase_add_test(tc, a_limit_on_file_sizes_is_an_error_not_the_end);

	tc = cases_add(s, "locks", setup, NULL);
	tcase_add_loop_test(tc, a_disk_has_one_writer_or_any_number_of_readers,
	    0, COUNT(pairs));
	tcase_add_loop_test(tc, a_disk_that_qemu_writes_is_refused, 0, 2);
	tcase_add_test(tc, a_disk_that_qemu_reads_can_be_read_and_not_written);
	tcase_add_loop_test(tc, qemu_notices_that_a_disk_is_in_use, 0, 2);
	tcase_add_test(tc, a_lock_that_is_about_to_go_is_waited_for);

	tc = cases_add(s, "invalid ranges", setup, NULL);
	tcase_add_loop_test(
	    tc, ranges_may_be_far_into_a_large_disk, 0, COUNT(ways));
	tcase_add_test(tc, a_disk_that_cannot_discard_does_not_offer_it);
	tcase_add_loop_test(tc, a_disk_that_cannot_discard_just_now_offers_it,
	    0, COUNT(probes));
	tcase_add_test(tc, with_no_discard_a_disk_keeps_its_space);
	tcase_add_test(tc, a_read_only_disk_cannot_be_cleared);

	add_requests(s, setup_disk);
	add_luck(s, setup_disk);
	tc = cases_add(s, "no buffers", setup_disk, NULL);
	tcase_add_test(tc, memory_for_such_a_file_system_is_waited_for);
	tc = cases_add(s, "stable", setup_disk, NULL);
	tcase_add_test(tc, writes_are_stable_when_the_driver_cannot_flush);
	tcase_add_test(
	    tc, of_writes_that_are_to_be_stable_none_is_if_one_is_not);

	add_requests(s, setup_memory);
	tc = cases_add(s, "memory", setup_memory, NULL);
	tcase_add_test(tc, on_tmpfs_io_is_synchronous);
	tcase_add_test(tc, on_tmpfs_a_kick_has_a_budget);
	tcase_add_loop_test(tc, long_transfers_on_tmpfs_are_split, 0, 8);
	tcase_add_test(tc, memory_of_the_guest_that_is_gone_is_an_error);
	tcase_add_test(tc, a_disk_on_tmpfs_may_become_smaller);

	tc = cases_add(s, "direct I/O refused", setup, NULL);
	tcase_add_loop_test(tc, a_disk_without_direct_io_is_refused, 0, 2);
	if (!can_direct()) {
		fprintf(stderr, "skipped: direct I/O: /var/tmp or $TMPDIR "
				"has none, or ulimit -l is below 8 MiB\n");
		return cases_run(s);
	}
	add_requests(s, setup_direct);
	add_luck(s, setup_direct);
	add_requests(s, setup_direct_4096);
	add_luck(s, setup_direct_4096);
	tc = cases_add(s, "direct I/O", setup_direct, NULL);
	tcase_add_test(
	    tc, what_is_read_and_written_directly_is_not_in_the_page_cache);
	tcase_add_test(
	    tc, direct_writes_are_stable_when_the_driver_cannot_flush);
	tc = cases_add(s, "large direct I/O", setup_direct_later, NULL);
	tcase_add_test(tc, requests_beyond_the_bounce_pool_wait_for_their_turn);
	tcase_add_test(
	    tc, requests_of_the_largest_size_are_done_piece_by_piece);
	tcase_add_loop_test(
	    tc, requests_of_all_sizes_at_once_get_what_is_theirs, 0, 4);
	tc = cases_add(s, "direct I/O by blocks", setup_direct_4096, NULL);
	tcase_add_loop_test(tc,
	    parts_of_blocks_are_written_and_nothing_beside_them, 0,
	    COUNT(places));
	tcase_add_test(tc, parts_of_blocks_and_whole_ones_take_turns);
	tcase_add_test(tc, parts_of_a_block_written_at_once_are_all_there);
	tc = cases_add(
	    s, "direct I/O at the end", setup_direct_4096_later, NULL);
	tcase_add_test(tc, the_last_part_of_a_block_does_not_make_a_file_grow);
	return cases_run(s);
}
