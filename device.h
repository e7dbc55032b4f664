/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio device that a guest has: registers, a queue and a disk, joined.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <stdbool.h>

struct xentoollog_logger;
struct access;
struct blk;
struct device;
struct guest;
struct ioreq_server;

/*
 * A device that keeps its state where 'io' does, and finds its disk, memory and
 * interrupt in the given modules, which it uses and does not own.  'legacy': of
 * version 1, for drivers that know no other.  It is as after reset, or it is
 * continued where a predecessor was killed, and requests in flight then are
 * under way again.  NULL on failure, which has been logged to 'log'; one is that
 * the disk is not the one that the guest knows.
 */
struct device *device_open(struct xentoollog_logger *log,
    struct ioreq_server *io, struct guest *guest, struct blk *blk, bool legacy);

/*
 * Carry out one register access, see virtio_mmio_access().  False: make the same
 * call again after device_run(), which must not take new requests until then.
 */
bool device_access(struct device *dev, struct access *a);

/*
 * Move the queue on: take what the driver has made available (not if 'hold'), start
 * it, finish what the disk has completed, interrupt if wanted.  Bounded by the
 * queue size.  True: there was something to do, and so may be again.
 */
bool device_run(struct device *dev, bool hold);

/*
 * Whether device_run() or device_await() could not go on because memory of the
 * guest cannot be mapped for now: call device_run() again in a while.
 */
bool device_lacking(const struct device *dev);

/*
 * What will come next, as far as can be told: the driver's acknowledgement of
 * an interrupt, completions of the disk, or the driver's next request.
 */
enum device_next {
	DEVICE_ACKNOWLEDGEMENT,
	DEVICE_DISK,
	DEVICE_REQUEST,
};
enum device_next device_next(const struct device *dev);

/*
 * We are about to sleep: have the driver notify us.  True: there is something
 * to take already, and maybe no notification for it.
 */
bool device_await(struct device *dev);

/*
 * The disk may have another size: look, and tell the driver (5.2.5).
 */
void device_resize(struct device *dev);

/*
 * Write a line to the log about what was done since device_open().
 */
void device_report(const struct device *dev);

/*
 * Whether nothing is in flight, so that no guest memory is in use.
 */
bool device_idle(const struct device *dev);

#endif
