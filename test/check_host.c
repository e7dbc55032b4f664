/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unmodified program, on a host that fails: the disk, the kernel or Xen.
 * Each failure is the guest's IOERR, or one line and the exit status that
 * vdisk(8) promises, and when the host works again so does the next request.
 *
 * Failures of I/O are made by fake_host.so, which is preloaded, those of Xen by
 * the fake libraries (check_vdisk.c), the rest by the kernel.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "cases.h"
#include "child.h"
#include "driver.h"
#include "fake_host.h"
#include "fake_xen.h"

#if defined(__aarch64__)
#define XC_RAISE XC_SET_IRQ_LEVEL
#else
#define XC_RAISE XC_SET_ISA_IRQ_LEVEL
#endif
#define MIB	     (1ULL << 20)
#define RAM	     (64 * MIB)
#define DISK	     (4 * MIB)
#define SECTOR	     512
#define RESETS	     10000

#define FEATURE(bit) (1ULL << (bit))
#define STABLE                                                                 \
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |  \
	    FEATURE(VIRTIO_RING_F_EVENT_IDX))
#define MODERN (STABLE | FEATURE(VIRTIO_BLK_F_FLUSH))

static char disk[64], host_path[64];
static int file = -1;
static volatile struct fake_host *host;
static int no_uring; /* errno of io_uring_setup() for the child, or 0 */
static struct driver drv;
static const char *option = "--";

static void
setup(void)
{
	int fd = nameless_file(NULL, 4096, host_path);

	file = nameless_file(NULL, DISK, disk);
	host = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne((void *)host, MAP_FAILED);
	fake_xen_start(7, 2, RAM, 0);
	driver_init(&drv, BASE, FAKE_XEN_LOW, RAM);
}

/*
 * A kernel without io_uring, as some are by configuration.
 */
static void
refuse_uring(int error)
{
	struct sock_filter filter[] = {
	    BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = 4, .filter = filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
		_exit(126);
}

static void
start(void)
{
	const char *const args[] = {option, "7", BASE_ARG, IRQ, disk, NULL};

	if (!child_start())
		return;
	setenv(FAKE_HOST, host_path, 1);
	if (no_uring != 0)
		refuse_uring(no_uring);
	child_exec(args, "fake_host.so");
}

static void
serve(uint64_t features)
{
	char ready[8] = "";

	start();
	ck_assert_msg(read(child_out, ready, sizeof(ready)) == 6 &&
			  strcmp(ready, "ready\n") == 0,
	    "vdisk does not start: %s", errors());
	drv.indirect = true;
	driver_start(&drv, features, 64);
}

static uint8_t
io(uint32_t type, uint64_t sector, uint32_t len)
{
	static uint64_t gpa;

	if (gpa == 0)
		gpa = driver_alloc(&drv, 256 << 10, 4096);
	return driver_io(&drv, type, sector, gpa, len);
}

static void
expect_working(void)
{
	ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, 8, 4096), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(io(VIRTIO_BLK_T_IN, 8, 4096), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(kill(child, 0), 0);
}

static unsigned
lines(void)
{
	const char *p = errors();
	unsigned n = 0;

	while ((p = strchr(p, '\n')) != NULL) {
		p++;
		n++;
	}
	return n;
}

/* The disk. */

static const int io_errors[] = {
    EIO, ENOSPC, ENXIO, EREMOTEIO, EDQUOT, EFBIG, EINVAL};
static const uint32_t io_types[] = {
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH};

START_TEST(an_operation_that_fails_is_the_guests_error_and_the_next_one_works)
{
	serve(MODERN);
	for (unsigned i = 0; i < 3; i++) {
		uint32_t len = io_types[i] == VIRTIO_BLK_T_FLUSH ? 0 : 4096;

		host->error = io_errors[_i];
		host->fail = 1;
		ck_assert_uint_eq(io(io_types[i], 0, len), VIRTIO_BLK_S_IOERR);
		expect_working();
	}
	ck_assert_uint_ge(lines(), 1);
	ck_assert_uint_le(lines(), 3);
	assert_mentions(errors(), strerror(io_errors[_i]));
}
END_TEST

static const int passing[] = {EINTR, EAGAIN};

START_TEST(an_operation_that_only_has_to_be_repeated_is)
{
	serve(MODERN);
	for (unsigned i = 0; i < 3; i++) {
		uint32_t len = io_types[i] == VIRTIO_BLK_T_FLUSH ? 0 : 4096;

		host->error = passing[_i];
		host->fail = 3;
		ck_assert_uint_eq(io(io_types[i], 0, len), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(host->fail, 0);
	}
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(a_submission_that_the_kernel_does_not_take_is_made_again)
{
	serve(MODERN);
	host->error = _i == 0 ? EAGAIN : EBUSY;
	host->refuse = 2;
	expect_working();
	ck_assert_uint_eq(host->refuse, 0);
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(short_transfers_are_continued_to_the_end)
{
	serve(MODERN);
	host->limit = 700;
	ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, 3, 8192), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(io(VIRTIO_BLK_T_IN, 3, 8192), VIRTIO_BLK_S_OK);
	ck_assert_uint_ge(host->writes, 12);
	ck_assert_uint_ge(host->reads, 12);
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(a_file_cut_short_fails_beyond_its_end_until_it_is_whole_again)
{
	serve(MODERN);
	ck_assert_int_eq(ftruncate(file, DISK / 2), 0);
	ck_assert_uint_eq(
	    io(VIRTIO_BLK_T_IN, DISK / SECTOR - 8, 4096), VIRTIO_BLK_S_IOERR);
	expect_working();
	ck_assert_int_eq(ftruncate(file, DISK), 0);
	ck_assert_uint_eq(
	    io(VIRTIO_BLK_T_IN, DISK / SECTOR - 8, 4096), VIRTIO_BLK_S_OK);
	assert_one_line(errors());
}
END_TEST

START_TEST(a_limit_on_file_sizes_fails_writes_until_it_is_lifted)
{
	struct rlimit few = {DISK / 2, RLIM_INFINITY},
		      all = {RLIM_INFINITY, RLIM_INFINITY};

	serve(MODERN);
	ck_assert_int_eq(prlimit(child, RLIMIT_FSIZE, &few, NULL), 0);
	ck_assert_uint_eq(
	    io(VIRTIO_BLK_T_OUT, DISK / SECTOR - 8, 4096), VIRTIO_BLK_S_IOERR);
	expect_working();
	ck_assert_int_eq(prlimit(child, RLIMIT_FSIZE, &all, NULL), 0);
	ck_assert_uint_eq(
	    io(VIRTIO_BLK_T_OUT, DISK / SECTOR - 8, 4096), VIRTIO_BLK_S_OK);
	assert_one_line(errors());
}
END_TEST

/* What the guest is told is stable. */

START_TEST(a_flush_is_answered_when_its_fdatasync_is_done_and_not_before)
{
	struct timespec moment = {.tv_nsec = 50000000};
	int head;

	serve(MODERN);
	ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, 0, 4096), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(host->fsyncs, 0);
	host->hold = 1;
	head = driver_request(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	driver_kick(&drv);
	for (unsigned i = 0; host->held == 0; i++) {
		ck_assert_uint_lt(i, DRIVER_TIMEOUT_MS / 50);
		nanosleep(&moment, NULL);
	}
	nanosleep(&moment, NULL);
	ck_assert_uint_eq(host->fsyncs, 0);
	ck_assert(!driver_take(&drv));
	ck_assert_uint_eq(driver_status(&drv, head), 0xff);
	host->hold = 0;
	driver_write(&drv, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	driver_until(&drv, head);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(host->fsyncs, 1);
	ck_assert_uint_eq(host->datasyncs, 1);
}
END_TEST

START_TEST(each_write_is_stable_for_a_driver_that_cannot_flush)
{
	serve(STABLE);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(
		    io(VIRTIO_BLK_T_OUT, i, 4096), VIRTIO_BLK_S_OK);
	ck_assert_uint_ge(host->writes, 5);
	ck_assert_uint_eq(host->datasyncs, 5);
}
END_TEST

/* The kernel and Xen. */

static const int refusals[] = {ENOSYS, EPERM, ENOMEM};

START_TEST(without_io_uring_there_is_one_line_and_status_1)
{
	no_uring = refusals[_i];
	start();
	ck_assert_int_eq(finish(), 1);
	assert_one_line(errors());
	assert_mentions(errors(), "cannot set up io_uring");
	ck_assert(!fake_xen_server_exists(0));
}
END_TEST

START_TEST(memory_that_cannot_be_mapped_once_delays_a_request_and_no_more)
{
	uint64_t gpa;

	serve(MODERN);
	expect_working();
	/* Nothing of this chunk is mapped yet. */
	gpa = FAKE_XEN_LOW + 32 * MIB;
	fake_xen_fail(XC_MAP2, 1, ENOMEM);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_IN, 0, gpa, 4096), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(
	    driver_read(&drv, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET,
	    0);
	assert_one_line(errors());
	assert_mentions(errors(), "the host has no room");
}
END_TEST

static const enum fake_xen_call channel_calls[] = {XC_PENDING, XC_UNMASK};

START_TEST(event_channels_that_fail_end_it_with_one_line_and_status_1)
{
	serve(MODERN);
	fake_xen_fail(channel_calls[_i], 1, EBADF);
	driver_begin(&drv, 0, false, VIRTIO_MMIO_STATUS, 4, 0);
	ck_assert_int_eq(finish(), 1);
	assert_one_line(errors());
	assert_mentions(errors(), "event channel failure");
	/* A vCPU may wait in the server, so it stays for a successor. */
	ck_assert(fake_xen_server_exists(0));
}
END_TEST

START_TEST(an_interrupt_that_fails_is_one_line_and_the_next_one_comes)
{
	struct timespec moment = {.tv_nsec = 1000000};
	int head;

	serve(MODERN);
	expect_working();
	fake_xen_fail(XC_RAISE, 1, EIO);
	head = driver_request(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	driver_kick(&drv);
	for (unsigned i = 0; lines() == 0; i++) {
		ck_assert_uint_lt(i, 10000);
		nanosleep(&moment, NULL);
	}
	/* The guest polls instead. */
	while (driver_take(&drv))
		;
	*driver_used_event(&drv) = drv.used_idx;
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_OK);
	driver_write(&drv, VIRTIO_MMIO_INTERRUPT_ACK,
	    driver_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS));
	expect_working();
	assert_one_line(errors());
}
END_TEST

/* Leaks. */

static unsigned
count_entries(const char *what)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/%s", child, what);
	dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/*
 * Mappings, and kilobytes of private memory, the heap included.
 */
static void
measure(unsigned *maps, unsigned *data)
{
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", child);
	f = fopen(path, "r");
	for (*maps = 0; fgets(line, sizeof(line), f) != NULL;)
		++*maps;
	fclose(f);
	snprintf(path, sizeof(path), "/proc/%d/status", child);
	f = fopen(path, "r");
	while (fgets(line, sizeof(line), f) != NULL)
		sscanf(line, "VmData: %u", data);
	fclose(f);
}

/*
 * What it yields before it sleeps tells how long it polls; see check_loop.c.  Any
 * one wait may pass without a yield, when the processor is another's for so long.
 */
START_TEST(it_polls_if_it_may)
{
	static const char *const polls[] = {"--poll=0", "--poll=30", "--"};
	/* Before the access, too, if it was not run in time. */
	static const unsigned at_most[] = {0, 2 * (30 / 3) + 2, UINT_MAX};
	unsigned before, waits;

	option = polls[_i];
	serve(MODERN);
	for (waits = 0; waits < 100 || (_i > 0 && host->yields == 0); waits++) {
		ck_assert_uint_lt(waits, 5000);
		before = host->yields;
		driver_read(&drv, VIRTIO_MMIO_STATUS);
		usleep(1000);
		ck_assert_uint_le(host->yields - before, at_most[_i]);
	}
}
END_TEST

START_TEST(ten_thousand_resets_leave_nothing_behind)
{
	unsigned fds = 0, maps = 0, data = 0, maps_now, data_now, i;

	serve(MODERN);
	for (i = 0; i < RESETS; i++) {
		if (i == 100) {
			fds = count_entries("fd");
			measure(&maps, &data);
		}
		if (i % 50 == 0) {
			expect_working();
			driver_reset(&drv);
			fake_xen_irq_take();
			drv.heap = FAKE_XEN_LOW + MIB;
			driver_start(&drv, MODERN, 64);
			if (i % 500 == 0) {
				driver_invalidate(&drv, 1);
				driver_end(&drv, 1);
				expect_working();
			}
		} else {
			driver_write(&drv, VIRTIO_MMIO_STATUS, 0);
		}
		if (i % 50 == 49) {
			driver_reset(&drv);
			driver_start(&drv, MODERN, 64);
		}
	}
	expect_working();
	measure(&maps_now, &data_now);
	ck_assert_uint_eq(count_entries("fd"), fds);
	ck_assert_uint_le(maps_now, maps + 2);
	ck_assert_uint_le(data_now, data + 64);
	ck_assert_str_eq(errors(), "");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("host");
	TCase *tc = cases_add(s, "host", setup, child_kill);

	tcase_add_loop_test(tc,
	    an_operation_that_fails_is_the_guests_error_and_the_next_one_works,
	    0, COUNT(io_errors));
	tcase_add_loop_test(tc, an_operation_that_only_has_to_be_repeated_is, 0,
	    COUNT(passing));
	tcase_add_loop_test(
	    tc, a_submission_that_the_kernel_does_not_take_is_made_again, 0, 2);
	tcase_add_test(tc, short_transfers_are_continued_to_the_end);
	tcase_add_test(
	    tc, a_file_cut_short_fails_beyond_its_end_until_it_is_whole_again);
	tcase_add_test(
	    tc, a_limit_on_file_sizes_fails_writes_until_it_is_lifted);
	tcase_add_test(
	    tc, a_flush_is_answered_when_its_fdatasync_is_done_and_not_before);
	tcase_add_test(tc, each_write_is_stable_for_a_driver_that_cannot_flush);
	tcase_add_loop_test(tc, without_io_uring_there_is_one_line_and_status_1,
	    0, COUNT(refusals));
	tcase_add_test(
	    tc, memory_that_cannot_be_mapped_once_delays_a_request_and_no_more);
	tcase_add_loop_test(tc,
	    event_channels_that_fail_end_it_with_one_line_and_status_1, 0,
	    COUNT(channel_calls));
	tcase_add_test(
	    tc, an_interrupt_that_fails_is_one_line_and_the_next_one_comes);
	tcase_add_loop_test(tc, it_polls_if_it_may, 0, 3);
	tcase_add_test(tc, ten_thousand_resets_leave_nothing_behind);
	return cases_run(s);
}
