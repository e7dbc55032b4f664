/* SPDX-License-Identifier: BSD-2-Clause */
/* Opened in the order of vdisk.c. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <check.h>

#include "disk.h"
#include "fake_xen.h"
#include "stack.h"
#include "virtio_mmio.h"

#if defined(__aarch64__)
#define IRQ 33
#else
#define IRQ 5
#endif

struct fake_log logger;
struct ioreq_server *io;
struct grants *grants;
struct guest *guest;
struct blk *blk;
struct device *dev;
struct driver drv;
int file = -1;

/* Memory cannot do direct I/O. */
static int
open_file(bool direct)
{
	char path[] = "/var/tmp/vdisk-XXXXXX";
	int fd;

	if (!direct)
		return memfd_create("disk", MFD_CLOEXEC);
	fd = mkstemp(path);
	unlink(path);
	return fd;
}

void
stack_open(const struct stack_config *config)
{
	const struct ioreq_config server = {
	    .domid = DOMID,
	    .irq = IRQ,
	    .base = BASE,
	    .size = VIRTIO_MMIO_SIZE,
	    .state_size = VIRTIO_MMIO_STATE_SIZE,
	    .state_version = VIRTIO_MMIO_STATE_VERSION,
	};
	struct xentoollog_logger *log = &logger.logger;
	char path[32];

	file = open_file(config->flags & DISK_DIRECT);
	ck_assert_int_ne(file, -1);
	ck_assert_int_eq(ftruncate(file, config->disk), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	fake_log_init(&logger);
	fake_xen_start(DOMID, config->vcpus, config->low, config->high);
	grants = config->grants ? grant_new(log, DOMID) : NULL;
	blk = blk_open(log, path, config->flags, "serial 1", grants);
	ck_assert_ptr_nonnull(blk);
	guest = guest_open(log, DOMID, GUEST_LIMIT_DEFAULT, grants);
	ck_assert_ptr_nonnull(guest);
	io = ioreq_open(log, &server);
	ck_assert_ptr_nonnull(io);
	ck_assert(grants == NULL || grant_open(grants) >= 0);
	dev = device_open(log, io, guest, blk, false);
	ck_assert_ptr_nonnull(dev);
	driver_init(&drv, BASE, FAKE_XEN_LOW, config->low);
	drv.step = stack_step;
	drv.grants = config->grants;
}

void
stack_step(void)
{
	struct pollfd fd[] = {
	    {.fd = ioreq_fd(io), .events = POLLIN},
	    {.fd = engine_fd(blk->engine), .events = POLLIN},
	};
	struct access a;
	bool hold = false, done;

	while (ioreq_next(io, &a)) {
		if (a.kind != ACCESS_INVALIDATE)
			done = device_access(dev, &a);
		else if (guest_mapped(guest) == 0)
			done = true;
		else if ((done = device_idle(dev)))
			guest_unmap_all(guest);
		if (done)
			ioreq_complete(io, &a);
		else
			hold = true;
	}
	if (device_process_queue(dev, hold) ||
	    (!hold && device_enable_notify(dev)))
		return;
	poll(fd, 2, blk_inflight(blk) > 0 ? 1 : 0);
	if (fd[0].revents & POLLIN)
		ck_assert(ioreq_ack_event(io));
}
