/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver's side of a split virtqueue (virtio 1.2, 2.7), for unit programs.
 * It does what the test says, valid or not.
 */
#ifndef FAKE_DRIVER_H
#define FAKE_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_ring.h>

struct guest;

struct fake_driver {
	struct guest *guest;
	uint16_t num;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t *used_event, *avail_event;
	uint16_t seen; /* used entries taken by fake_driver_take() */
};

/*
 * Make empty rings for 'num' descriptors, each fenced on both sides.
 */
void fake_driver_init(struct fake_driver *d, struct guest *guest, uint16_t num);

/*
 * Fill in a descriptor, of the ring or of an indirect table.
 */
void fake_driver_desc(struct vring_desc *desc, uint64_t addr, uint32_t len,
    uint16_t flags, uint16_t next);

/*
 * Make a chain available.
 */
void fake_driver_offer(struct fake_driver *d, uint16_t head);

/*
 * Whether a driver that has made the chains from position 'old' on available
 * would notify the device (2.7.10, 2.7.13.4).
 */
bool fake_driver_would_notify(
    const struct fake_driver *d, bool event_idx, uint16_t old);

/*
 * The next used entry; false if there is none.
 */
bool fake_driver_take(struct fake_driver *d, struct vring_used_elem *e);

#endif
