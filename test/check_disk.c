/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program as it is shipped, on disks that are real and not perfect: block
 * devices that lose what is written to them, or cannot do what others can, and
 * file systems that want to be asked otherwise.
 *
 * Devices are loop devices; where there are none, their tests say so and pass.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
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

#define MIB	     (1ULL << 20)
#define RAM	     (64 * MIB)
#define DISK	     (8 * MIB)
#define SECTOR	     512
#define FEATURE(bit) (1ULL << (bit))
#define MODERN                                                                 \
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |  \
	    FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_BLK_F_FLUSH) |   \
	    FEATURE(VIRTIO_BLK_F_CONFIG_WCE) | FEATURE(VIRTIO_BLK_F_DISCARD) | \
	    FEATURE(VIRTIO_BLK_F_WRITE_ZEROES))

static char disk[64];
static int file = -1; /* behind the disk, in memory */
static volatile struct fake_host *host;
static char host_path[64];
static const char *also; /* another option, or NULL */
static const char *slow; /* the control group of its I/O, or NULL */
static bool no_threads;	 /* not one more for the user */
static bool thin; /* let the kernel know of no way to write zeros to it */
static struct driver drv;
static uint64_t data; /* where the guest has some */

static void
setup(void)
{
	int fd = nameless_file(NULL, 4096, host_path);

	file = nameless_file(NULL, DISK, disk);
	host = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne((void *)host, MAP_FAILED);
	fake_xen_start(7, 2, RAM, 0);
	driver_init(&drv, BASE, FAKE_XEN_LOW, RAM);
	drv.indirect = true;
}

/*
 * Make the disk a device of 'block' bytes on that file.  False: there is none.
 */
static bool
use_device(unsigned block)
{
	const char *device = loop_device(disk, block);

	if (device != NULL)
		snprintf(disk, sizeof(disk), "%s", device);
	return device != NULL;
}

/* A field of the configuration. */
#define CONFIG(field)                                                          \
	driver_get(&drv,                                                       \
	    VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, field),    \
	    sizeof(((struct virtio_blk_config *)0)->field))

/*
 * What sysfs says of the device is what the test says, for this process and
 * those that it starts.
 */
static void
pretend(const char *limit, const char *value)
{
	char path[] = "/tmp/vdisk-disk-XXXXXX", place[128];
	int fd = mkostemp(path, O_CLOEXEC);

	snprintf(place, sizeof(place), "/sys/block/%s/queue/%s",
	    strrchr(disk, '/') + 1, limit);
	if (write(fd, value, strlen(value)) < 0 || unshare(CLONE_NEWNS) != 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount(path, place, NULL, MS_BIND, NULL) != 0 || unlink(path) != 0)
		_exit(126);
}

static bool
put(const char *dir, const char *name, const char *text)
{
	char path[128];
	int fd, n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	n = write(fd, text, strlen(text));
	close(fd);
	return n > 0;
}

static void
start(const char *option)
{
	const struct rlimit one = {1, 1};
	const char *args[] = {
	    also != NULL ? also : "-v", option, "7", BASE_ARG, IRQ, disk, NULL};

	if (!child_start())
		return;
	if (no_threads)
		setrlimit(RLIMIT_NPROC, &one);
	if (slow != NULL && !put(slow, "cgroup.procs", "0"))
		_exit(126);
	if (thin)
		pretend("write_zeroes_max_bytes", "0\n");
	setenv(FAKE_HOST, host_path, 1);
	child_exec(args, "fake_host.so");
}

static void
await_ready(void)
{
	char ready[8] = "";

	ck_assert_msg(read(child_out, ready, sizeof(ready)) == 6 &&
			  strcmp(ready, "ready\n") == 0,
	    "vdisk does not start: %s", errors());
}

static void
serve(const char *option)
{
	start(option);
	await_ready();
}

static uint8_t
io(uint32_t type, uint64_t sector, uint32_t len)
{
	if (data == 0)
		data = driver_pattern(&drv, MIB, 1);
	return driver_io(&drv, type, sector, data, len);
}

static uint8_t
flush(void)
{
	return io(VIRTIO_BLK_T_FLUSH, 0, 0);
}

static void
finish_refused(const char *what)
{
	ck_assert_int_eq(finish(), 1);
	assert_one_line(errors());
	assert_mentions(errors(), disk);
	assert_mentions(errors(), what);
}

/* Devices that cannot do everything. */

START_TEST(a_device_that_is_read_only_is_refused_to_writers)
{
	/* An option of losetup(8), too. */
	snprintf(disk, sizeof(disk), "-r /proc/%d/fd/%d", getpid(), file);
	if (!use_device(512))
		return;
	start("--");
	finish_refused("cannot write");
	assert_mentions(errors(), strerror(EROFS));
	serve("-r");
	driver_start(&drv, MODERN, 64);
	ck_assert_uint_eq(io(VIRTIO_BLK_T_IN, 0, 4096), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
}
END_TEST

/*
 * Discard or zero some sectors.
 */
static uint8_t
clear(uint32_t type, uint64_t sector, uint32_t sectors)
{
	static uint64_t gpa;
	struct virtio_blk_discard_write_zeroes *range;

	if (gpa == 0)
		gpa = driver_alloc(&drv, sizeof(*range), 16);
	range = fake_xen_ram(gpa);
	*range = (struct virtio_blk_discard_write_zeroes){
	    .sector = sector, .num_sectors = sectors};
	if (type == VIRTIO_BLK_T_WRITE_ZEROES)
		range->flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	return driver_io(&drv, type, 0, gpa, sizeof(*range));
}

/*
 * As a thin volume: what it discards is zeros, but it does not say so.
 */
START_TEST(a_device_that_only_discards_is_offered_for_that)
{
	struct stat before, after;
	uint64_t zeros;

	if (!use_device(512))
		return;
	thin = true;
	serve("--");
	driver_start(&drv, MODERN, 64);
	ck_assert(drv.offered & FEATURE(VIRTIO_BLK_F_DISCARD));
	ck_assert_uint_ge(CONFIG(discard_sector_alignment), 1);
	ck_assert_uint_eq(CONFIG(max_discard_sectors), 32 * MIB / SECTOR);
	ck_assert_uint_eq(CONFIG(write_zeroes_may_unmap), 0);
	ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, 0, MIB), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(fstat(file, &before), 0);
	host->reads = 0;
	ck_assert_uint_eq(
	    clear(VIRTIO_BLK_T_DISCARD, 0, MIB / 2 / SECTOR), VIRTIO_BLK_S_OK);
	/* Not by fallocate(), which such a device refuses. */
	ck_assert_uint_eq(host->reads, 0);
	ck_assert_int_eq(fstat(file, &after), 0);
	ck_assert_int_le(
	    after.st_blocks, before.st_blocks - (blkcnt_t)(MIB / 2 / 512));
	ck_assert_uint_eq(clear(VIRTIO_BLK_T_WRITE_ZEROES, MIB / 2 / SECTOR,
			      MIB / 2 / SECTOR),
	    VIRTIO_BLK_S_OK);
	zeros = driver_alloc(&drv, MIB, 4096);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 0, zeros, MIB));
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(a_device_that_cannot_discard_any_more_is_continued)
{
	if (!use_device(512))
		return;
	serve("--");
	driver_start(&drv, MODERN, 64);
	ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, 0, MIB), VIRTIO_BLK_S_OK);
	child_kill();
	serve("--no-discard");
	ck_assert_uint_eq(
	    clear(VIRTIO_BLK_T_DISCARD, 0, 8), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(
	    clear(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
}
END_TEST

/*
 * A file system may like to be read and written by more than it gives back.
 */
START_TEST(a_file_gives_back_single_pages)
{
	struct stat st;

	if (unshare(CLONE_NEWNS) != 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", "/mnt", "tmpfs", 0, "huge=always") != 0)
		return;
	file = open("/mnt", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(file, DISK), 0);
	ck_assert_int_eq(fstat(file, &st), 0);
	snprintf(disk, sizeof(disk), "/proc/%d/fd/%d", getpid(), file);
	serve("--");
	driver_start(&drv, MODERN, 64);
	ck_assert_uint_eq(CONFIG(opt_io_size),
	    st.st_blksize > 4096 ? st.st_blksize / SECTOR : 0);
	ck_assert_uint_eq(CONFIG(discard_sector_alignment), 4096 / SECTOR);
}
END_TEST

/*
 * Then io_uring, which needs threads for a file as this one is, cannot do
 * anything on it.
 */
START_TEST(without_a_thread_to_be_had_everything_works)
{
	if (geteuid() != 0)
		return; /* who has no limit of its own to give */
	no_threads = true;
	also = "--user=nobody";
	serve("--");
	driver_start(&drv, MODERN, 64);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, i * MIB / SECTOR, MIB),
		    VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(io(VIRTIO_BLK_T_IN, i * MIB / SECTOR, MIB),
		    VIRTIO_BLK_S_OK);
	}
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(
	    clear(VIRTIO_BLK_T_DISCARD, 0, 2048), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(
	    clear(VIRTIO_BLK_T_WRITE_ZEROES, 2048, 2048), VIRTIO_BLK_S_OK);
	ck_assert_str_eq(errors(), "");
}
END_TEST

/* What the kernel still has to do when a process has ended. */

static const char *const endings[] = {"-u", "--", "--direct"};

START_TEST(when_it_has_ended_the_disk_is_free)
{
	int fd;

	if (!use_device(512))
		return;
	for (unsigned i = 0; i < 10; i++) {
		if (_i == 0) { /* it does not even begin */
			fake_xen_fail(XC_CREATE_IOREQ_SERVER, 1, EPERM);
			start("--");
			ck_assert_int_eq(finish(), 1);
		} else {
			serve(endings[_i]);
			driver_start(&drv, MODERN, 64);
			ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, 0, 4096), 0);
			kill(child, SIGTERM);
			ck_assert_int_eq(finish(), 0);
			driver_init(&drv, BASE, FAKE_XEN_LOW, RAM);
			drv.indirect = true;
			fake_xen_start(7, 2, RAM, 0);
		}
		/* As mount(8) does, and LVM. */
		fd = open(disk, O_RDWR | O_EXCL | O_CLOEXEC);
		ck_assert_msg(fd != -1, "%s", strerror(errno));
		close(fd);
	}
}
END_TEST

static const char *const groups[] = {
    "/sys/fs/cgroup/blkio/vdisk-check", "/sys/fs/cgroup/vdisk-check"};

/*
 * Let this group write as many bytes in a second, or any number.
 */
static bool
limit_group(const char *group, const char *bytes)
{
	bool second = group == groups[1];
	const char *any = second ? "max" : "0";
	char limit[64];
	struct stat st;

	ck_assert_int_eq(stat(disk, &st), 0);
	snprintf(limit, sizeof(limit), second ? "%u:%u wbps=%s" : "%u:%u %s",
	    major(st.st_rdev), minor(st.st_rdev), bytes != NULL ? bytes : any);
	return put(group, second ? "io.max" : "blkio.throttle.write_bps_device",
	    limit);
}

/*
 * Whatever the next one writes does not end before limit_group() lets it.
 */
static bool
slow_down(void)
{
	for (unsigned i = 0; i < 2; i++) {
		mkdir(groups[i], 0755);
		slow = groups[i];
		if (limit_group(slow, "2")) /* the least there is */
			return true;
		rmdir(slow);
	}
	slow = NULL;
	fputs("skipped: no control group for I/O\n", stderr);
	return false;
}

/*
 * Also if the disk is not locked, what a dead one still has in flight is waited
 * for: it would come after what its successor was told to write.
 */
START_TEST(what_a_dead_one_writes_comes_before_all_its_successor_does)
{
	struct timespec moment = {.tv_nsec = 100000000}, all = {.tv_sec = 1};
	struct pollfd ready = {.events = POLLIN};
	const char *group;
	uint64_t a, b;
	int head;

	if (!use_device(512) || !slow_down())
		return;
	also = _i ? "--no-lock" : NULL;
	serve("--direct");
	driver_start(&drv, MODERN, 64);
	a = driver_pattern(&drv, 12288, 1);
	b = driver_pattern(&drv, 12288, 2);
	head = driver_request(&drv, VIRTIO_BLK_T_OUT, 0, a, 12288);
	driver_kick(&drv);
	nanosleep(&moment, NULL);
	ck_assert_uint_eq(driver_status(&drv, head), 0xff);
	child_kill();
	group = slow;
	slow = NULL;
	start("--direct");
	ready.fd = child_out;
	/* It waits; if it did not, the dead one's would come last. */
	if (poll(&ready, 1, 500) == 0)
		limit_group(group, NULL);
	await_ready();
	driver_until(&drv, head);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, b, 12288), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
	limit_group(group, NULL);
	nanosleep(&all, NULL);
	rmdir(group);
	ck_assert(driver_in_file(file, 0, b, 12288));
}
END_TEST

/* Devices that lose what is written to them. */

/*
 * Nothing gets into the second half of the device any more.
 */
static void
break_device(void)
{
	ck_assert_int_eq(ftruncate(file, DISK / 2), 0);
	ck_assert_int_eq(fcntl(file, F_ADD_SEALS, F_SEAL_GROW), 0);
}

/*
 * A write to where that is, which the page cache takes.
 */
static void
write_what_will_be_lost(void)
{
	ck_assert_uint_eq(
	    io(VIRTIO_BLK_T_OUT, 3 * DISK / 4 / SECTOR, 4096), VIRTIO_BLK_S_OK);
}

static void
expect_no_flush(void)
{
	const char *said;

	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_eq(flush(), VIRTIO_BLK_S_IOERR);
	said = strstr(errors(), "flush failed");
	ck_assert_ptr_nonnull(said);
	ck_assert_ptr_null(strstr(said + 1, "flush failed"));
	ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, 0, 4096), VIRTIO_BLK_S_OK);
}

START_TEST(a_flush_that_failed_is_not_forgotten)
{
	if (!use_device(512))
		return;
	serve("--");
	driver_start(&drv, MODERN, 64);
	write_what_will_be_lost();
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
	write_what_will_be_lost();
	break_device();
	expect_no_flush();
	child_kill();
	serve("--");
	expect_no_flush();
	driver_reset(&drv);
	fake_xen_irq_take();
	driver_start(&drv, MODERN, 64);
	expect_no_flush();
	child_kill();
	/* Another domain begins anew. */
	fake_xen_start(7, 2, RAM, 0);
	driver_init(&drv, BASE, FAKE_XEN_LOW, RAM);
	drv.indirect = true;
	data = 0;
	serve("--");
	driver_start(&drv, MODERN, 64);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(a_write_that_must_be_stable_and_was_lost_fails)
{
	uint32_t wce =
	    VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce);

	if (!use_device(512))
		return;
	serve("--");
	driver_start(
	    &drv, _i ? MODERN : MODERN & ~FEATURE(VIRTIO_BLK_F_FLUSH), 64);
	if (_i) { /* lost when the cache is given up */
		write_what_will_be_lost();
		break_device();
		driver_begin(&drv, 0, true, wce, 1, 0);
		driver_end(&drv, 0);
	} else {
		break_device();
		ck_assert_uint_eq(
		    io(VIRTIO_BLK_T_OUT, 3 * DISK / 4 / SECTOR, 4096),
		    VIRTIO_BLK_S_IOERR);
	}
	ck_assert_uint_eq(io(VIRTIO_BLK_T_OUT, 0, 4096), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(io(VIRTIO_BLK_T_IN, 0, 4096), VIRTIO_BLK_S_OK);
	assert_mentions(errors(), "flush failed");
}
END_TEST

/*
 * Whether a vdisk has opened it, not this program, whose child it was.
 */
static bool
has_open(pid_t pid, const char *what)
{
	char path[64], is[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	n = readlink(path, is, sizeof(is) - 1);
	if (n < 5 || memcmp(is + n - 5, "vdisk", 5) != 0)
		return false;
	for (int fd = 3; fd < 32; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
		n = readlink(path, is, sizeof(is) - 1);
		if (n > 0 && (is[n] = '\0', strcmp(is, what) == 0))
			return true;
	}
	return false;
}

/*
 * The one who dies is told of the loss by a flush whose end nobody sees; or
 * another program in its place, with the same effect.
 */
START_TEST(what_a_dead_one_was_told_in_vain_its_successor_is_told)
{
	struct timespec moment = {.tv_nsec = 10000000};
	const char *group;
	pid_t first;
	int fd, head;

	if (!use_device(512) || (_i && !slow_down()))
		return;
	fd = open(disk, O_RDWR | O_CLOEXEC);
	serve("--");
	driver_start(&drv, MODERN, 64);
	ck_assert_uint_eq(
	    io(VIRTIO_BLK_T_OUT, 3 * DISK / 4 / SECTOR, 8192), VIRTIO_BLK_S_OK);
	break_device();
	host->hold = !_i;
	head = driver_request(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	driver_kick(&drv);
	while (host->held + host->fsyncs == 0)
		nanosleep(&moment, NULL);
	first = child;
	group = slow;
	slow = NULL;
	start("--");
	while (!has_open(child, disk)) {
		ck_assert_int_eq(waitpid(child, NULL, WNOHANG), 0);
		nanosleep(&moment, NULL);
	}
	ck_assert_uint_eq(driver_status(&drv, head), 0xff);
	kill(first, SIGKILL);
	if (_i == 0)
		ck_assert_int_eq(fdatasync(fd), -1);
	else
		limit_group(group, NULL);
	waitpid(first, NULL, 0);
	if (_i)
		rmdir(group);
	await_ready();
	host->hold = 0;
	driver_until(&drv, head);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_IOERR);
	expect_no_flush();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("disk");
	TCase *tc = cases_add(s, "disk", setup, child_kill);

	tcase_add_test(tc, a_device_that_is_read_only_is_refused_to_writers);
	tcase_add_test(tc, a_device_that_only_discards_is_offered_for_that);
	tcase_add_test(tc, a_device_that_cannot_discard_any_more_is_continued);
	tcase_add_test(tc, a_file_gives_back_single_pages);
	tcase_add_test(tc, without_a_thread_to_be_had_everything_works);
	tcase_add_loop_test(
	    tc, when_it_has_ended_the_disk_is_free, 0, COUNT(endings));
	tcase_add_loop_test(tc,
	    what_a_dead_one_writes_comes_before_all_its_successor_does, 0, 2);
	tcase_add_test(tc, a_flush_that_failed_is_not_forgotten);
	tcase_add_loop_test(
	    tc, a_write_that_must_be_stable_and_was_lost_fails, 0, 2);
	tcase_add_loop_test(
	    tc, what_a_dead_one_was_told_in_vain_its_successor_is_told, 0, 2);
	return cases_run(s);
}
