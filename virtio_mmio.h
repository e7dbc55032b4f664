/* SPDX-License-Identifier: BSD-2-Clause */
/* The registers of a virtio-mmio device with one queue (virtio 1.2, 4.2). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct access;

/* Bytes of the register window, as libxl lays them out. */
#define VIRTIO_MMIO_SIZE 0x200

/* Bytes of ioreq_state(), and version of their layout and meaning. */
#define VIRTIO_MMIO_STATE_SIZE	  656
#define VIRTIO_MMIO_STATE_VERSION 3

struct virtio_mmio {
	/* The caller's, who sets them before virtio_mmio_open(). */
	struct xentoollog_logger *log;
	struct ioreq_server *io; /* the interrupt, and where the state is */
	struct blk *blk;
	struct virtqueue *vq; /* of which only 'guest' is set at first */
	bool legacy;	      /* a version 1 device */

	/* Statistics since virtio_mmio_open(). */
	unsigned long long doorbells; /* QueueNotify written */
	unsigned long long interrupts;

	/* The rest is virtio_mmio.c's. */
	struct device_state *s;
	time_t fault_logged; /* second of the last message about a fault */
};

/*
 * Initialise the registers and the queue: as after reset, or restored from a
 * killed predecessor's state; the caller resubmits what was in flight.  False
 * on failure, e.g. that the disk does not match the state, which was logged.
 */
bool virtio_mmio_open(struct virtio_mmio *dev);

/*
 * Handle an ACCESS_WRITE, or an ACCESS_READ, for which a->data is filled in
 * (4.2.2).  True: complete it.  False: retry when nothing is in flight (reset,
 * queue disable, cache mode), and submit nothing until then.
 */
bool virtio_mmio_access(struct virtio_mmio *dev, struct access *a);

/* Whether chains may be popped and pushed (2.1.2, 3.1). */
bool virtio_mmio_queue_active(const struct virtio_mmio *dev);

/*
 * The driver broke the rules of the queue, 'why' is a phrase for the log:
 * DEVICE_NEEDS_RESET is set, and the queue ignored until the reset (2.1.2).
 */
void virtio_mmio_fault(struct virtio_mmio *dev, const char *why);

/* Raise VIRTIO_MMIO_INT_*; false: refused.  Whether all are acknowledged. */
bool virtio_mmio_interrupt(struct virtio_mmio *dev, uint32_t cause);
bool virtio_mmio_irq_acked(const struct virtio_mmio *dev);

/* Notify the driver of a changed capacity (5.2.5), or again of a fault. */
void virtio_mmio_resize(struct virtio_mmio *dev);
