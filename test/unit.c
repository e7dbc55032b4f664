/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device of a unit program, and the ways to its registers.
 */
#include <poll.h>

#include <check.h>
#include <linux/virtio_mmio.h>

#include "blk.h"
#include "device.h"
#include "disk.h"
#include "ioreq.h"
#include "unit.h"

struct fake_log lg;
struct guest *guest;
struct fake_driver drv;
struct ioreq_server io;
struct blk *blk;
struct device *dev;

bool
open_unit(const char *path, unsigned how, bool legacy)
{
	blk = blk_open(&lg.logger, path, DISK_NO_LOCK | how, "serial", NULL);
	ck_assert_ptr_nonnull(blk);
	dev = device_open(&lg.logger, &io, guest, blk, legacy);
	return dev != NULL;
}

uint64_t
read_sized(uint32_t offset, uint32_t size)
{
	struct access a = {.kind = ACCESS_READ,
	    .offset = offset,
	    .size = size,
	    .data = UINT64_C(0xa5a5a5a5a5a5a5a5)};

	ck_assert(device_access(dev, &a));
	return a.data;
}

bool
write_sized(uint32_t offset, uint32_t size, uint64_t data)
{
	struct access a = {
	    .kind = ACCESS_WRITE, .offset = offset, .size = size, .data = data};

	return device_access(dev, &a);
}

uint32_t
rd(uint32_t offset)
{
	return read_sized(offset, 4);
}

bool
try_wr(uint32_t offset, uint32_t data)
{
	return write_sized(offset, 4, data);
}

void
wr(uint32_t offset, uint32_t data)
{
	ck_assert(try_wr(offset, data));
}

void
choose(uint64_t features)
{
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, features);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, features >> 32);
}

void
place(uint32_t low, uint64_t gpa)
{
	wr(low, gpa);
	wr(low + 4, gpa >> 32);
}

void
settle(void)
{
	struct pollfd p = {.fd = engine_fd(blk->engine), .events = POLLIN};

	for (;;) {
		unsigned n = 0;

		while (device_process_queue(dev, false) ||
		       device_enable_notify(dev))
			ck_assert_uint_lt(n++, 1000);
		if (device_idle(dev))
			return;
		ck_assert_int_eq(poll(&p, 1, 5000), 1);
	}
}
