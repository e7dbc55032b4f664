/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A split virtqueue, device side (virtio 1.2, 2.7): chains are popped from the
 * available ring and pushed to the used ring.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* QueueNumMax, and the most descriptors of a chain, indirect ones too. */
#define VIRTQUEUE_NUM_MAX 256

/* The whole state of a queue; for the order of stores see virtqueue.c. */
struct virtqueue_state {
	uint64_t desc;	 /* guest-physical address of the descriptor table */
	uint64_t driver; /* ... of the available ring */
	uint64_t device; /* ... of the used ring */
	uint32_t num;	 /* queue size in descriptors */
	uint16_t ready;	 /* 1: enabled by the driver (QueueReady) */
	uint16_t last_avail_idx; /* next chain to pop */
	uint16_t used_idx;	 /* next used entry to fill */
	uint16_t published;	 /* used index that the guest sees */
	uint16_t signalled;   /* used index at the last decision to interrupt */
	uint16_t popped_head; /* head of the last chain popped */
	/* Heads popped and not yet pushed: bit h % 64 of word h / 64. */
	uint64_t inflight[VIRTQUEUE_NUM_MAX / 64];
	/* Heads pushed and not yet published, by position % num. */
	uint16_t pushed[VIRTQUEUE_NUM_MAX];
};

struct virtqueue {
	struct guest *guest;
	struct virtqueue_state *s;
	uint64_t features;	/* that were negotiated */
	const char *fault;	/* why the last call returned -1: a phrase */
	uint32_t resubmit_head; /* what was adopted in flight, from here on */
};

/*
 * A chain of buffers: 'readable' ones for the device to read, then 'writable'
 * ones for it to write, together at most VIRTQUEUE_NUM_MAX, in 'iov'.  Adjacent
 * descriptors whose memory is contiguous are one iovec.
 */
struct virtqueue_chain {
	uint16_t head;	   /* identifies the chain for virtqueue_push() */
	uint16_t readable; /* iovecs */
	uint16_t writable; /* iovecs */
	struct iovec *iov; /* the caller's, VIRTQUEUE_NUM_MAX of them */
	/* The caller's wish: only the last writable byte of the chain. */
	bool status_only;
	bool report; /* virtqueue.c's: no buffer, but guest_wrote() for each */
};

/* Not ready any more; as after a reset (2.1).  Nothing may be in flight. */
void virtqueue_disable(struct virtqueue *vq);
void virtqueue_reset(struct virtqueue *vq);

/*
 * The ring layout of legacy drivers (2.7.2): contiguous from 'start' on, the
 * used ring aligned to 'align', a power of two.
 */
void virtqueue_set_legacy_layout(
    struct virtqueue *vq, uint64_t start, uint32_t align);

/* Nothing was done: guest memory cannot be mapped now, with errno. */
#define VIRTQUEUE_AGAIN (-2)

/*
 * Make the queue ready with the addresses and size in its state, and the
 * negotiated 'features' (4.2.2, QueueReady).  0, or -1 with 'fault' set if the
 * size is not valid, or a ring is misaligned or not in guest memory.  A ring
 * that cannot be mapped now is judged when it is used.
 */
int virtqueue_enable(struct virtqueue *vq, uint64_t features);

/*
 * Continue a queue whose owner was killed at any moment: complete any update
 * that was interrupted.  0, or -1 with 'fault' set if the state is corrupt.
 */
int virtqueue_adopt(struct virtqueue *vq, uint64_t features);

/*
 * Take the next chain into *chain (chain->iov is the caller's): those that were
 * in flight when the queue was adopted, by rising heads, then available ones.
 * 1: there was one.  0: none.  -1: the driver broke the rules of 2.7, 'fault'
 * says which; nothing was taken.  VIRTQUEUE_AGAIN.
 */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);

/*
 * Enable or disable notifications (2.7.7, 2.7.10).  1: a chain became available
 * meanwhile, maybe without one.  0: none did.  -1: fault.  VIRTQUEUE_AGAIN.
 */
int virtqueue_set_notify(struct virtqueue *vq, bool wanted);

/*
 * Return chain 'head', of which the first 'len' writable bytes were written
 * (2.7.8).  The driver sees it after virtqueue_publish().  0, or -1 on fault.
 * The rings must have been mapped since the chain was popped.
 */
int virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len);

/*
 * Publish everything pushed to the driver.  1: it wants an interrupt (2.7.7,
 * 2.7.10).  0: it does not.  -1: fault.  VIRTQUEUE_AGAIN.  The decision repeats
 * until virtqueue_signalled() records that it has been followed.
 */
int virtqueue_publish(struct virtqueue *vq);
void virtqueue_signalled(struct virtqueue *vq);

/* Keep the rings mapped (guest_pin()): for as long as a chain is in flight. */
void virtqueue_pin(struct virtqueue *vq);
