/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio-mmio device, version 2 (virtio 1.2, 4.2) or 1 (4.2.4, "legacy"): its
 * registers, its status and features, and the joining of its one queue with the
 * disk.
 */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include <stdbool.h>
#include <stdint.h>

struct xentoollog_logger;
struct access;
struct blk;
struct guest;
struct ioreq_server;
struct virtio_mmio;

/* Bytes of the register window, as libxl lays them out. */
#define VIRTIO_MMIO_SIZE 0x200

/*
 * What a device keeps where it outlives the process, see ioreq_state(): bytes,
 * and the version of their layout and meaning.
 */
#define VIRTIO_MMIO_STATE_SIZE	  656
#define VIRTIO_MMIO_STATE_VERSION 3

/*
 * A device that keeps its state where 'io' does, and finds its disk, memory and
 * interrupt in the given modules, which it uses and does not own.  'legacy': of
 * version 1, for drivers that know no other.  It is as after reset, or it is
 * continued where a predecessor was killed, and requests in flight then are
 * under way again.  NULL on failure, which has been logged to 'log'; one is that
 * the disk is not the one that the guest knows.
 */
struct virtio_mmio *virtio_mmio_open(struct xentoollog_logger *log,
    struct ioreq_server *io, struct guest *guest, struct blk *blk, bool legacy);

/*
 * Carry out one register access (4.2.2).  a->kind is ACCESS_READ, and then a->data
 * is filled in, or ACCESS_WRITE.  True: answer it now.  False: it takes effect
 * only when nothing is in flight any more (reset, queue disable); make the same
 * call again after virtio_mmio_run(), which must not take new requests until
 * then.
 */
bool virtio_mmio_access(struct virtio_mmio *dev, struct access *a);

/*
 * Move the queue on: take what the driver has made available (not if 'hold'), start
 * it, finish what the disk has completed, interrupt if wanted.  Bounded by the
 * queue size.  True: there was something to do, and so may be again.
 */
bool virtio_mmio_run(struct virtio_mmio *dev, bool hold);

/*
 * What will come next, as far as can be told: the driver's acknowledgement of
 * an interrupt, completions of the disk, or the driver's next request.
 */
enum virtio_mmio_next {
	VIRTIO_MMIO_ACKNOWLEDGEMENT,
	VIRTIO_MMIO_DISK,
	VIRTIO_MMIO_REQUEST,
};
enum virtio_mmio_next virtio_mmio_next(const struct virtio_mmio *dev);

/*
 * We are about to sleep: have the driver notify us.  True: there is something
 * to take already, and maybe no notification for it.
 */
bool virtio_mmio_await(struct virtio_mmio *dev);

/*
 * The disk may have another size: look, and tell the driver (5.2.5).
 */
void virtio_mmio_resize(struct virtio_mmio *dev);

/*
 * Write a line to the log about what was done since virtio_mmio_open().
 */
void virtio_mmio_report(const struct virtio_mmio *dev);

/*
 * Whether nothing is in flight, so that no guest memory is in use.
 */
bool virtio_mmio_idle(const struct virtio_mmio *dev);

#endif
