/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registers of a virtio-mmio device, version 2 (virtio 1.2, 4.2) or 1
 * (4.2.4, "legacy"): its status, its features, its configuration space, and the
 * setting up of its one queue.
 */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include <stdbool.h>
#include <stdint.h>

struct xentoollog_logger;
struct access;
struct blk;
struct ioreq_server;
struct virtio_mmio;
struct virtqueue;

/* Bytes of the register window, as libxl lays them out. */
#define VIRTIO_MMIO_SIZE 0x200

/*
 * What a device keeps where it outlives the process, see ioreq_state(): bytes,
 * and the version of their layout and meaning.
 */
#define VIRTIO_MMIO_STATE_SIZE	  656
#define VIRTIO_MMIO_STATE_VERSION 3

/*
 * The registers of a device with the given disk, interrupt and queue, which they
 * use and do not own.  Of the queue only 'guest' is set; its state becomes a
 * part of theirs, which is where 'io' keeps it.  'legacy': of version 1, for
 * drivers that know no other.  They are as after reset, or continued where a
 * predecessor was killed; what was in flight then is the caller's to start
 * again.  NULL on failure, which has been logged to 'log'; one is that the disk
 * is not the one that the guest knows.
 */
struct virtio_mmio *virtio_mmio_open(struct xentoollog_logger *log,
    struct ioreq_server *io, struct virtqueue *vq, struct blk *blk,
    bool legacy);

/*
 * Carry out one register access (4.2.2).  a->kind is ACCESS_READ, and then a->data
 * is filled in, or ACCESS_WRITE.  True: answer it now.  False: it takes effect
 * only when nothing is in flight any more (reset, queue disable, another mode
 * of the cache); start nothing until then, and make the same call again.
 */
bool virtio_mmio_access(struct virtio_mmio *dev, struct access *a);

/*
 * Whether chains may be popped and pushed (2.1.2, 3.1).  An access can change
 * that, and virtio_mmio_fault().
 */
bool virtio_mmio_running(const struct virtio_mmio *dev);

/*
 * The driver broke the rules of the queue, in the way that is in its 'fault':
 * DEVICE_NEEDS_RESET is set, and the queue not looked at until the reset
 * (2.1.2).
 */
void virtio_mmio_fault(struct virtio_mmio *dev);

/*
 * Interrupt the driver: there are used buffers.  And whether it has acknowledged
 * all interrupts, for whatever they were.
 */
void virtio_mmio_interrupt(struct virtio_mmio *dev);
bool virtio_mmio_acknowledged(const struct virtio_mmio *dev);

/*
 * Tell the driver of the disk's size, if it is not what it knows (5.2.5).
 */
void virtio_mmio_resize(struct virtio_mmio *dev);

/* What has been done since virtio_mmio_open(). */
struct virtio_mmio_stats {
	unsigned long long doorbells; /* QueueNotify written */
	unsigned long long interrupts;
};
const struct virtio_mmio_stats *virtio_mmio_stats(
    const struct virtio_mmio *dev);

#endif
