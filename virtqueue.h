/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A split virtqueue, device side (virtio 1.2, 2.7): chains are popped from the
 * available ring and pushed to the used ring.  Knows nothing of what is in the
 * buffers.
 */
#ifndef VIRTQUEUE_H
#define VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct guest;

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
	uint64_t features; /* that were negotiated */
	const char *fault; /* why the last call returned -1: a phrase */
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

/* Guest memory cannot be mapped now, see guest_map_error(); nothing done. */
#define VIRTQUEUE_AGAIN (-2)

/*
 * Make the queue ready with the addresses and size in its state (4.2.2,
 * QueueReady).  'features' are the negotiated feature bits.  0, or -1 with
 * 'fault' set if the size is not a power of two from 2 to VIRTQUEUE_NUM_MAX, or
 * a ring is misaligned or not in guest memory; the queue is not ready then.  A
 * ring that cannot be mapped now is judged when it is used.
 */
int virtqueue_enable(struct virtqueue *vq, uint64_t features);

/*
 * Continue a queue whose state was left by a process that was killed at any
 * moment: complete any update that was interrupted.  0, or -1 with 'fault' set
 * if the state makes no sense.  Chains in flight must be resubmitted:
 * virtqueue_pop_inflight() is like virtqueue_pop() for the first one whose head
 * is at least *head, and sets *head.  None must be popped before the last one
 * is given.
 */
int virtqueue_adopt(struct virtqueue *vq, uint64_t features);
int virtqueue_pop_inflight(
    struct virtqueue *vq, uint32_t *head, struct virtqueue_chain *chain);

/*
 * Take the next available chain into *chain (chain->iov is the caller's).
 * 1: there was one.  0: none.  -1: the driver broke the rules of 2.7, 'fault'
 * says which; nothing was taken.  VIRTQUEUE_AGAIN.
 */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);

/*
 * Enable or disable the driver's notifications of available chains (2.7.7,
 * 2.7.10). enable: 1 if a chain has become available meanwhile, for which no
 * notification may come, or 0. disable: 0.  Both: -1 on fault.
 * VIRTQUEUE_AGAIN.
 */
int virtqueue_enable_notify(struct virtqueue *vq);
int virtqueue_disable_notify(struct virtqueue *vq);

/*
 * Return chain 'head', of which the first 'len' bytes of the writable part were
 * written (2.7.8).  The driver does not see it before virtqueue_publish().
 * 0, or -1 on fault.  The rings have been mapped since the chain was taken.
 */
int virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len);

/*
 * Publish everything pushed to the driver. 1: it wants an interrupt for that
 * (2.7.7, 2.7.10). 0: it does not, or nothing was pushed. -1: fault.  After the
 * interrupt has been raised, or was not needed, virtqueue_signalled() records
 * that; until then the decision repeats.
 */
int virtqueue_publish(struct virtqueue *vq);
void virtqueue_signalled(struct virtqueue *vq);

/* Keep the rings mapped (guest_pin()): for as long as a chain is in flight. */
void virtqueue_pin(struct virtqueue *vq);

#endif
