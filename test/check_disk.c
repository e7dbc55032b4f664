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
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <linux/fs.h>
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
static struct driver drv;

static void
setup(void)
{
	int fd = memfd_create("host", MFD_CLOEXEC);

	file = memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ck_assert_int_eq(ftruncate(file, DISK), 0);
	ck_assert_int_eq(ftruncate(fd, 4096), 0);
	snprintf(disk, sizeof(disk), "/proc/%d/fd/%d", getpid(), file);
	snprintf(host_path, sizeof(host_path), "/proc/%d/fd/%d", getpid(), fd);
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

static void
start(const char *option)
{
	const char *const args[] = {option, "7", BASE_ARG, IRQ, disk, NULL};

	if (!child_start())
		return;
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
	static uint64_t gpa;

	if (gpa == 0)
		gpa = driver_pattern(&drv, MIB, 1);
	return driver_io(&drv, type, sector, gpa, len);
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
	int fd, yes = 1;

	if (!use_device(512))
		return;
	fd = open(disk, O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(ioctl(fd, BLKROSET, &yes), 0);
	start("--");
	finish_refused("cannot write");
	assert_mentions(errors(), strerror(EROFS));
	serve("-r");
	driver_start(&drv, MODERN, 64);
	ck_assert_uint_eq(io(VIRTIO_BLK_T_IN, 0, 4096), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(flush(), VIRTIO_BLK_S_OK);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("disk");
	TCase *tc = cases_add(s, "disk", setup, child_kill);

	tcase_add_test(tc, a_device_that_is_read_only_is_refused_to_writers);
	return cases_run(s);
}
