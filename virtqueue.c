/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A split virtqueue, device side (virtio 1.2, 2.7).  Owns all validation of
 * rings and descriptors, and is the only file that turns guest-physical
 * addresses into pointers.  Does not know what the buffers mean.
 *
 * The guest may write anything into the rings at any time: each word is loaded
 * once, and validated after; our own positions are never read back from them.
 *
 * This process may be killed between any two stores to the state;
 * compiler_barrier() marks where their order matters.  A chain is in one of
 * three places, and each move between them is committed by one store:
 *
 *   available -> in flight   last_avail_idx + 1.  Before it, 'popped_head'
 *                            names the head and its bit in 'inflight' is set;
 *                            if the store is missing there is one bit more
 *                            than last_avail_idx - used_idx, and it is that
 *                            head's.
 *   in flight -> pushed      used_idx + 1.  Before it, the used ring's entry
 *                            and 'pushed' name the head; its bit in 'inflight'
 *                            is cleared after, and is stale until then.
 *   pushed -> published      the used ring's index, which the driver sees; then
 *                            'published'.  To store both twice is harmless.
 *
 * For live migration, what we write to guest memory must be reported after it
 * was written (guest_report()).  Buffers are reported before the driver sees
 * the chain in the used ring, so that no successor has to, if we are killed.
 * The used ring's index and event index are written later, and reported with
 * the next batch, or before a reset completes: the driver resets the device
 * before a migration, since the device's state is not migrated.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "grant.h"
#include "guest.h"
#include "virtqueue.h"

#define HAS(vq, bit) (((vq)->features >> (bit)) & 1)

/*
 * Guest memory is little endian (1.4), and changes under us: load once, at any
 * alignment, since the driver can put an indirect table anywhere.  A union,
 * since gcc 14 to 16 fail to compile under-aligned integers for arm64.
 */
union unaligned {
	uint16_t v16;
	uint32_t v32;
	uint64_t v64;
} __attribute__((packed, may_alias));

#define LOAD16(p)     le16toh(((const volatile union unaligned *)(p))->v16)
#define LOAD32(p)     le32toh(((const volatile union unaligned *)(p))->v32)
#define LOAD64(p)     le64toh(((const volatile union unaligned *)(p))->v64)
#define STORE16(p, v) __atomic_store_n(p, htole16(v), __ATOMIC_RELAXED)
#define STORE32(p, v) __atomic_store_n(p, htole32(v), __ATOMIC_RELAXED)

/* Order stores to the state.  A kill needs no CPU barrier. */
static inline void
compiler_barrier(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static int
fault(struct virtqueue *vq, const char *why)
{
	vq->fault = why;
	return -1;
}

/* guest_map() has failed: a fault only if the guest has no such memory. */
static int
map_error(struct virtqueue *vq, const char *why)
{
	if (errno == ENOMEM || errno == ENOBUFS)
		return VIRTQUEUE_AGAIN;
	if (HAS(vq, VIRTIO_F_ACCESS_PLATFORM))
		why = "memory that it has not granted, for which its kernel "
		      "needs CONFIG_XEN_VIRTIO and a xen,grant-dma device tree";
	return fault(vq, why);
}

/* The rings, which may be unmapped by now; sizes (2.7) include both events. */
static struct vring_desc *
desc_table(struct virtqueue *vq)
{
	return guest_map(
	    vq->guest, vq->s->desc, vq->s->num * sizeof(struct vring_desc));
}

static struct vring_avail *
avail_ring(struct virtqueue *vq)
{
	return guest_map(vq->guest, vq->s->driver, 6 + 2 * vq->s->num);
}

static struct vring_used *
used_ring(struct virtqueue *vq)
{
	return guest_map(vq->guest, vq->s->device, 6 + 8 * vq->s->num);
}

static bool
is_inflight(const struct virtqueue_state *s, uint16_t head)
{
	return s->inflight[head / 64] >> (head % 64) & 1;
}

static void
clear_inflight(struct virtqueue_state *s, uint16_t head)
{
	s->inflight[head / 64] &= ~(UINT64_C(1) << (head % 64));
}

void
virtqueue_set_legacy_layout(
    struct virtqueue *vq, uint64_t start, uint32_t align)
{
	struct virtqueue_state *s = vq->s;

	s->desc = start;
	s->driver = s->desc + s->num * sizeof(struct vring_desc);
	s->device = (s->driver + 6 + 2 * s->num + align - 1) & -(uint64_t)align;
}

static bool
is_queue_size(uint32_t num)
{
	return num >= 2 && num <= VIRTQUEUE_NUM_MAX && (num & (num - 1)) == 0;
}

int
virtqueue_enable(struct virtqueue *vq, uint64_t features)
{
	struct virtqueue_state *s = vq->s;
	static const char absent[] = "ring not in guest memory";

	if (!is_queue_size(s->num))
		return fault(vq, "invalid queue size");
	if (s->desc % VRING_DESC_ALIGN_SIZE != 0 ||
	    s->driver % VRING_AVAIL_ALIGN_SIZE != 0 ||
	    s->device % VRING_USED_ALIGN_SIZE != 0)
		return fault(vq, "ring not aligned");
	vq->features = features;
	if ((desc_table(vq) == NULL && map_error(vq, absent) == -1) ||
	    (avail_ring(vq) == NULL && map_error(vq, absent) == -1) ||
	    (used_ring(vq) == NULL && map_error(vq, absent) == -1))
		return -1;

	/* Keep what the driver has set: a killed access is repeated. */
	s->last_avail_idx = s->used_idx = s->published = s->signalled = 0;
	s->popped_head = 0;
	memset(s->inflight, 0, sizeof(s->inflight));
	compiler_barrier();
	s->ready = 1;
	return 0;
}

static uint16_t
count_inflight(const struct virtqueue_state *s)
{
	uint16_t n = 0;

	for (unsigned i = 0; i < VIRTQUEUE_NUM_MAX / 64; i++)
		n += __builtin_popcountll(s->inflight[i]);
	return n;
}

static void
publish_used_idx(struct virtqueue_state *s, struct vring_used *u)
{
	/* Data, status and used entries before the used index. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	STORE16(&u->idx, s->used_idx);
	compiler_barrier();
	s->published = s->used_idx;
}

/* Each step leaves a state that can be adopted again. */
int
virtqueue_adopt(struct virtqueue *vq, uint64_t features)
{
	struct virtqueue_state *s = vq->s;
	uint16_t inflight_count = s->last_avail_idx - s->used_idx;
	uint16_t unpublished = s->used_idx - s->published;
	unsigned head, i;

	vq->features = features;
	if (!is_queue_size(s->num) || inflight_count > s->num ||
	    unpublished > s->num || s->popped_head >= s->num ||
	    s->driver % VRING_AVAIL_ALIGN_SIZE != 0 ||
	    s->device % VRING_USED_ALIGN_SIZE != 0)
		return fault(vq, "positions out of range");
	for (head = s->num; head < VIRTQUEUE_NUM_MAX; head++)
		if (is_inflight(s, head))
			return fault(vq, "head in flight out of range");
	/* Pushed: its bit may not have been cleared yet. */
	for (i = 0; i < unpublished; i++) {
		head = s->pushed[(uint16_t)(s->published + i) % s->num];
		if (head >= s->num)
			return fault(vq, "pushed head out of range");
		clear_inflight(s, head);
	}
	/* Marked in flight but not popped yet: it is still available. */
	if (count_inflight(s) == inflight_count + 1)
		clear_inflight(s, s->popped_head);
	if (count_inflight(s) != inflight_count)
		return fault(vq, "heads in flight do not add up");
	return 0;
}

/* Add one descriptor's buffer to the chain. */
static int
add_buffer(
    struct virtqueue *vq, struct virtqueue_chain *chain, struct vring_desc *d)
{
	bool writable = d->flags & VRING_DESC_F_WRITE;
	uint16_t *count = writable ? &chain->writable : &chain->readable;
	struct iovec *next;
	char *base;

	if (!writable && chain->writable > 0) /* 2.7.4.2 */
		return fault(vq, "readable buffer after a writable one");
	if (chain->report) {
		if (writable)
			guest_wrote(vq->guest, d->addr, d->len);
		return 0;
	}
	if (chain->status_only) {
		if (!writable || d->len == 0)
			return 0;
		d->addr += d->len - 1;
		d->len = 1;
		chain->writable = 0;
	}
	base = HAS(vq, VIRTIO_F_ACCESS_PLATFORM)
		   ? grant_address(d->addr, d->len)
		   : guest_map(vq->guest, d->addr, d->len);
	if (base == NULL)
		return map_error(vq, "buffer not in guest memory");
	if (d->len == 0)
		return 0;
	next = &chain->iov[chain->readable + chain->writable];
	if (*count > 0 &&
	    (char *)next[-1].iov_base + next[-1].iov_len == base) {
		next[-1].iov_len += d->len;
		return 0;
	}
	if (next == chain->iov + VIRTQUEUE_NUM_MAX)
		return fault(vq, "chain longer than the queue");
	*next = (struct iovec){.iov_base = base, .iov_len = d->len};
	++*count;
	return 0;
}

/*
 * Collect the buffers of the chain that starts at descriptor 'head' (2.7.5).
 *
 * An indirect table may be longer than the ring, up to the largest queue size:
 * 2.7.5.3.1 forbids it, but Linux does it with a ring that it made smaller.
 */
static int
parse_chain(struct virtqueue *vq, uint16_t head, struct virtqueue_chain *chain)
{
	const char *p, *table = (const char *)desc_table(vq);
	uint32_t i = head, num = vq->s->num, steps = 0;
	uint64_t bytes = 0;
	bool indirect = false;
	struct vring_desc d;
	int got;

	chain->head = head;
	chain->readable = chain->writable = 0;
	if (table == NULL)
		return map_error(vq, "descriptor table not in guest memory");
	for (;;) {
		/* More steps than descriptors: a loop. */
		if (i >= num)
			return fault(vq, "descriptor index beyond its table");
		if (steps++ == num)
			return fault(vq, "descriptor chain in a loop");
		p = table + i * sizeof(d);
		d.addr = LOAD64(p + offsetof(struct vring_desc, addr));
		d.len = LOAD32(p + offsetof(struct vring_desc, len));
		d.flags = LOAD16(p + offsetof(struct vring_desc, flags));
		d.next = LOAD16(p + offsetof(struct vring_desc, next));
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (!HAS(vq, VIRTIO_RING_F_INDIRECT_DESC))
				return fault(vq, "indirect not negotiated");
			if (indirect || (d.flags & VRING_DESC_F_NEXT))
				return fault(vq, "indirect table nested");
			num = d.len / sizeof(d);
			if (d.len % sizeof(d) != 0 || num == 0 ||
			    num > VIRTQUEUE_NUM_MAX)
				return fault(vq, "indirect table of odd size");
			table = guest_map(vq->guest, d.addr, d.len);
			if (table == NULL)
				return map_error(
				    vq, "indirect table not in guest memory");
			indirect = true;
			i = steps = 0;
			continue;
		}
		/* To map a long buffer takes long (2.7.5.2). */
		bytes += d.len;
		if (bytes > UINT64_C(1) << 32)
			return fault(vq, "chain of more than 4 GiB");
		if ((got = add_buffer(vq, chain, &d)) < 0)
			return got;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		i = d.next;
	}
}

/*
 * Report what was written to the used ring, and to the buffers of chains that
 * are not published yet, which are parsed again: that costs less than to keep
 * them.  0, or VIRTQUEUE_AGAIN: nothing was reported.
 */
static int
report(struct virtqueue *vq)
{
	struct virtqueue_state *s = vq->s;
	struct virtqueue_chain chain = {.report = true};

	for (uint16_t i = s->published; i != s->used_idx; i++)
		if (parse_chain(vq, s->pushed[i % s->num], &chain) ==
		    VIRTQUEUE_AGAIN)
			return VIRTQUEUE_AGAIN;
	guest_wrote(vq->guest, s->device, 6 + 8 * s->num);
	guest_report(vq->guest);
	return 0;
}

void
virtqueue_disable(struct virtqueue *vq)
{
	if (GUEST_CAN_MIGRATE && vq->s->ready)
		report(vq);
	vq->s->ready = 0;
	compiler_barrier();
	if (HAS(vq, VIRTIO_F_ACCESS_PLATFORM))
		guest_unmap_all(vq->guest);
}

void
virtqueue_reset(struct virtqueue *vq)
{
	struct virtqueue_state *s = vq->s;

	/* First: while it is not ready the rest of the state is ignored. */
	virtqueue_disable(vq);
	*s = (struct virtqueue_state){.num = VIRTQUEUE_NUM_MAX};
}

/* virtqueue_pop() for what was in flight when our predecessor was killed. */
static int
pop_inflight(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	struct virtqueue_state *s = vq->s;
	struct vring_used *u = used_ring(vq);
	int got;

	if (u == NULL)
		return map_error(vq, "used ring not in guest memory");
	/* Before a head is popped again that the driver has seen as used. */
	if (s->published != s->used_idx) {
		if (GUEST_CAN_MIGRATE && report(vq) < 0)
			return VIRTQUEUE_AGAIN;
		publish_used_idx(s, u);
	}
	for (; vq->resubmit_head < s->num; vq->resubmit_head++) {
		if (!is_inflight(s, vq->resubmit_head))
			continue;
		got = parse_chain(vq, vq->resubmit_head, chain);
		vq->resubmit_head += got == 0;
		return got < 0 ? got : 1;
	}
	vq->resubmit_head = VIRTQUEUE_NUM_MAX;
	return 0;
}

int
virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	struct virtqueue_state *s = vq->s;
	struct vring_avail *avail;
	uint16_t head, n;
	int got;

	if (vq->resubmit_head < VIRTQUEUE_NUM_MAX &&
	    (got = pop_inflight(vq, chain)) != 0)
		return got;
	if ((avail = avail_ring(vq)) == NULL)
		return map_error(vq, "available ring not in guest memory");
	n = LOAD16(&avail->idx) - s->last_avail_idx;
	if (n == 0)
		return 0;
	if (n > s->num)
		return fault(vq, "available index ahead of the queue size");
	/* The index before the entries that it makes available. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	head = LOAD16(&avail->ring[s->last_avail_idx % s->num]);
	if (head >= s->num)
		return fault(vq, "available head beyond the queue size");
	if (is_inflight(s, head))
		return fault(vq, "chain made available twice");
	/* What is popped must be pushed. */
	if (used_ring(vq) == NULL)
		return map_error(vq, "used ring not in guest memory");
	if ((got = parse_chain(vq, head, chain)) < 0)
		return got;

	s->popped_head = head;
	compiler_barrier();
	s->inflight[head / 64] |= UINT64_C(1) << (head % 64);
	compiler_barrier();
	s->last_avail_idx++;
	compiler_barrier();
	return 1;
}

int
virtqueue_set_notify(struct virtqueue *vq, bool wanted)
{
	struct virtqueue_state *s = vq->s;
	struct vring_avail *avail = avail_ring(vq);
	struct vring_used *u = avail != NULL ? used_ring(vq) : NULL;

	if (u == NULL)
		return map_error(vq, "ring not in guest memory");
	if (!HAS(vq, VIRTIO_RING_F_EVENT_IDX))
		STORE16(&u->flags, wanted ? 0 : VRING_USED_F_NO_NOTIFY);
	else /* never reached: behind any new position */
		STORE16((uint16_t *)&u->ring[s->num],
		    wanted ? s->last_avail_idx
			   : s->last_avail_idx - s->num - 1);
	if (!wanted)
		return 0;
	/*
	 * The driver stores its index, then loads our event index or flag; we
	 * do the reverse, so at least one of us sees the other's store.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return LOAD16(&avail->idx) != s->last_avail_idx;
}

int
virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len)
{
	struct virtqueue_state *s = vq->s;
	struct vring_used *u = used_ring(vq);
	uint16_t slot = s->used_idx % s->num;

	if (u == NULL)
		return fault(vq, "used ring not in guest memory");
	STORE32(&u->ring[slot].id, head);
	STORE32(&u->ring[slot].len, len);
	s->pushed[slot] = head;
	compiler_barrier();
	s->used_idx++;
	compiler_barrier();
	clear_inflight(s, head);
	compiler_barrier();
	return 0;
}

int
virtqueue_publish(struct virtqueue *vq)
{
	struct virtqueue_state *s = vq->s;
	struct vring_avail *avail;
	struct vring_used *u;

	if (s->used_idx == s->signalled)
		return 0;
	if ((avail = avail_ring(vq)) == NULL || (u = used_ring(vq)) == NULL)
		return map_error(vq, "ring not in guest memory");

	if (GUEST_CAN_MIGRATE && report(vq) < 0)
		return VIRTQUEUE_AGAIN;
	publish_used_idx(s, u);
	/* As in virtqueue_set_notify(), with the roles exchanged. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (HAS(vq, VIRTIO_RING_F_EVENT_IDX))
		return vring_need_event(
		    LOAD16(&avail->ring[s->num]), s->published, s->signalled);
	return !(LOAD16(&avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

void
virtqueue_pin(struct virtqueue *vq)
{
	uint32_t num = vq->s->num;

	guest_pin(vq->guest, desc_table(vq), num * sizeof(struct vring_desc));
	guest_pin(vq->guest, avail_ring(vq), 6 + 2 * num);
	guest_pin(vq->guest, used_ring(vq), 6 + 8 * num);
}

void
virtqueue_signalled(struct virtqueue *vq)
{
	vq->s->signalled = vq->s->published;
}
