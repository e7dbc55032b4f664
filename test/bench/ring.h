/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The benchmark's guest driver: one split virtqueue (virtio 1.2, 2.7) with
 * block requests in it, driven as Linux drives its own: indirect descriptors,
 * header, data and status apart, data in scattered pages, EVENT_IDX both ways.
 * Knows nothing of how the device is told and how it interrupts.
 */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_ring.h>

#define RING_NUM       256
#define RING_PAGE      4096
#define RING_PAGES_MAX 32 /* of one request */

/* Where everything is, as offsets in guest memory; data fills the rest. */
#define RING_DESC     0
#define RING_AVAIL    4096
#define RING_USED     8192
#define RING_REQUESTS 16384
#define RING_REQUEST  1024 /* header, status and indirect table of one */
#define RING_DATA     (RING_REQUESTS + RING_NUM * RING_REQUEST)

/* A request of the guest's, known by its head. */
struct ring_request {
	uint32_t type; /* VIRTIO_BLK_T_* */
	uint32_t pages;
	uint64_t block;	    /* first page on the disk */
	uint64_t submitted; /* ns */
	uint32_t page[RING_PAGES_MAX];
};

struct ring {
	uint8_t *ram;
	uint64_t gpa; /* of ram */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t avail_idx;
	uint16_t kicked; /* avail_idx when notifying was last decided */
	uint16_t used_idx;
	uint16_t free[RING_NUM];
	unsigned nfree;
	bool unverified; /* ring_take() does not look at the data */
	bool few_pages;	 /* use few of them, over and over */
	uint32_t *pages; /* all data pages in an order without order */
	uint32_t npages, next_page;
	struct ring_request request[RING_NUM];
};

/*
 * A ring in the 'size' bytes of zeroed guest memory at 'ram', which the device
 * knows as 'gpa'.
 */
void ring_init(struct ring *r, uint8_t *ram, uint64_t gpa, uint64_t size);

/*
 * Make a request available: 'pages' pages from page 'block' of the disk on.
 * Data to be written carries its place on the disk, and ring_take() checks
 * that what was read does.  The ring must have room.
 */
void ring_add(struct ring *r, uint32_t type, uint64_t block, unsigned pages,
    uint64_t now);

/*
 * Whether the device wants to be notified of what was added since the last
 * call (virtqueue_kick_prepare() in Linux).
 */
bool ring_kick(struct ring *r);

/*
 * A request that the device has returned, or NULL.  It is good until the next
 * ring_add().  Exits if the device failed it or returned wrong data.
 */
const struct ring_request *ring_take(struct ring *r);

/*
 * Ask for an interrupt at the next return (virtqueue_enable_cb() in Linux).
 * False: something was returned meanwhile, take again.
 */
bool ring_enable(struct ring *r);

#endif
