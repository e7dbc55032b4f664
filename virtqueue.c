/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A split virtqueue, device side (virtio 1.2, 2.7).  Owns every rule by which a
 * ring is judged, and is the only file that turns the guest's numbers into
 * pointers.  Does not know what the buffers mean.
 *
 * The guest owns the rings and may write anything into them at any time.  So
 * each word is loaded once, and judged after; our own positions are in the
 * queue's state and are never read back from the rings.
 *
 * The state is stored in an order that leaves something to continue from when
 * this process is killed between any two stores; settle() marks where the
 * order matters.  A chain is in one of three places, and each move between
 * them is committed by one store:
 *
 *   available -> in flight   next_avail + 1.  Before it, 'popping' names the
 *                            head and its bit in 'inflight' is set; if the
 *                            store is missing there is one bit more than
 *                            next_avail - next_used, and it is that head's.
 *   in flight -> pushed      next_used + 1.  Before it, the used ring's entry
 *                            and 'pushed' name the head; its bit in 'inflight'
 *                            goes after, and is stale until then.
 *   pushed -> published      the used ring's index, which the guest sees; then
 *                            'published' follows.  To store the index twice is
 *                            harmless.
 *
 * A guest that is migrated is copied while it runs, so that what we write to its
 * memory must be reported (guest_report()), after it was written, or the copy
 * could be made in between.  What a chain's buffers were filled with is reported
 * before the driver sees the chain in the used ring: when it does, and if we
 * are killed, nobody has to come back to it.  Of the used ring, index and event
 * index are written after that, and reported the next time, which is at the latest
 * before the driver's reset of the device is answered; and there must be one, as
 * no device is migrated.
 */
#include <endian.h>
#include <string.h>

#include <linux/virtio_ring.h>

#include "guest.h"
#include "virtqueue.h"

#define HAS(vq, bit) (((vq)->features >> (bit)) & 1)

/*
 * Guest memory is little endian (1.4), and changes under us: load once, at any
 * alignment, since the driver can put an indirect table anywhere.
 */
struct unaligned16 {
	uint16_t v;
} __attribute__((packed, may_alias));
struct unaligned32 {
	uint32_t v;
} __attribute__((packed, may_alias));
struct unaligned64 {
	uint64_t v;
} __attribute__((packed, may_alias));

#define LOAD16(p)     le16toh(((const volatile struct unaligned16 *)(p))->v)
#define LOAD32(p)     le32toh(((const volatile struct unaligned32 *)(p))->v)
#define LOAD64(p)     le64toh(((const volatile struct unaligned64 *)(p))->v)
#define STORE16(p, v) __atomic_store_n(p, htole16(v), __ATOMIC_RELAXED)
#define STORE32(p, v) __atomic_store_n(p, htole32(v), __ATOMIC_RELAXED)

/*
 * What is stored before is stored before what follows, as far as a successor of
 * this process can tell: a kill takes effect between two instructions, so only
 * the compiler has to be told.
 */
static inline void
settle(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static int
fault(struct virtqueue *vq, const char *why)
{
	vq->fault = why;
	return -1;
}

static int walk(
    struct virtqueue *vq, uint16_t head, struct virtqueue_chain *chain);

/*
 * guest_ptr() gave nothing: 'why' is the guest's fault, if it has no such memory.
 */
static int
lack(struct virtqueue *vq, const char *why)
{
	return guest_lack(vq->guest) == GUEST_ABSENT ? fault(vq, why)
						     : VIRTQUEUE_NOT_NOW;
}

/*
 * The rings, looked up anew by every function since a mapping may go at any
 * time (guest_forget()).  Sizes and alignment are those of 2.7, used_event and
 * avail_event included.
 */
static struct vring_desc *
descriptors(struct virtqueue *vq)
{
	return guest_ptr(
	    vq->guest, vq->s->desc, vq->s->num * sizeof(struct vring_desc));
}

static struct vring_avail *
available(struct virtqueue *vq)
{
	return guest_ptr(vq->guest, vq->s->driver, 6 + 2 * vq->s->num);
}

static struct vring_used *
used(struct virtqueue *vq)
{
	return guest_ptr(vq->guest, vq->s->device, 6 + 8 * vq->s->num);
}

static uint64_t *
inflight_word(struct virtqueue_state *s, uint16_t head)
{
	return &s->inflight[head / 64];
}

static uint64_t
inflight_bit(uint16_t head)
{
	return UINT64_C(1) << (head % 64);
}

/*
 * Report what was written to the used ring, and to the buffers of all chains that
 * the driver does not see there yet.  To find the buffers again costs less than to
 * keep them, and they are still the device's; but they need not be mapped any
 * more.  0, or VIRTQUEUE_NOT_NOW: nothing was reported.
 */
static int
report(struct virtqueue *vq)
{
	struct virtqueue_state *s = vq->s;
	struct virtqueue_chain chain = {.report = true};

	for (uint16_t i = s->published; i != s->next_used; i++)
		if (walk(vq, s->pushed[i % s->num], &chain) ==
		    VIRTQUEUE_NOT_NOW)
			return VIRTQUEUE_NOT_NOW;
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
	settle();
}

void
virtqueue_reset(struct virtqueue *vq)
{
	struct virtqueue_state *s = vq->s;

	/* First: what follows is of no account to a queue that is not ready. */
	virtqueue_disable(vq);
	*s = (struct virtqueue_state){.num = VIRTQUEUE_NUM_MAX};
}

void
virtqueue_place(struct virtqueue *vq, uint64_t start, uint32_t align)
{
	struct virtqueue_state *s = vq->s;

	s->desc = start;
	s->driver = s->desc + s->num * sizeof(struct vring_desc);
	s->device = s->driver + 6 + 2 * s->num;
	s->device = (s->device + align - 1) & -(uint64_t)align;
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
	uint32_t num = s->num;

	if (!is_queue_size(num))
		return fault(vq, "queue size not offered");
	if (s->desc % VRING_DESC_ALIGN_SIZE != 0 ||
	    s->driver % VRING_AVAIL_ALIGN_SIZE != 0 ||
	    s->device % VRING_USED_ALIGN_SIZE != 0)
		return fault(vq, "ring not aligned");
	if ((descriptors(vq) == NULL &&
		lack(vq, "ring not in guest memory") == -1) ||
	    (available(vq) == NULL &&
		lack(vq, "ring not in guest memory") == -1) ||
	    (used(vq) == NULL && lack(vq, "ring not in guest memory") == -1))
		return -1;

	/* What the driver has set stays in place: we may have to do it again. */
	s->next_avail = s->next_used = s->published = s->signalled = 0;
	s->popping = 0;
	memset(s->inflight, 0, sizeof(s->inflight));
	vq->features = features;
	settle();
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

/*
 * Let the driver see all that was pushed.
 */
static void
show(struct virtqueue_state *s, struct vring_used *u)
{
	/* Data, status and used entries before the index that shows them. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	STORE16(&u->idx, s->next_used);
	settle();
	s->published = s->next_used;
}

/*
 * Each step leaves a state from which adoption can start again, so that to be
 * killed here is no different.
 */
int
virtqueue_adopt(struct virtqueue *vq, uint64_t features)
{
	struct virtqueue_state *s = vq->s;
	uint16_t taken = s->next_avail - s->next_used;
	uint16_t hidden = s->next_used - s->published;
	unsigned head, i;

	vq->features = features;
	if (!is_queue_size(s->num) || taken > s->num || hidden > s->num ||
	    s->popping >= s->num)
		return fault(vq, "positions out of range");
	for (head = s->num; head < VIRTQUEUE_NUM_MAX; head++)
		if (*inflight_word(s, head) & inflight_bit(head))
			return fault(vq, "head in flight out of range");
	/* Pushed: whether the bit went too is not known. */
	for (i = 0; i < hidden; i++) {
		head = s->pushed[(uint16_t)(s->published + i) % s->num];
		if (head >= s->num)
			return fault(vq, "pushed head out of range");
		*inflight_word(s, head) &= ~inflight_bit(head);
	}
	/* Marked in flight, but not yet popped: it is still available. */
	if (count_inflight(s) == taken + 1)
		*inflight_word(s, s->popping) &= ~inflight_bit(s->popping);
	if (count_inflight(s) != taken)
		return fault(vq, "heads in flight do not add up");
	return 0;
}

/*
 * Add one descriptor's buffer to the chain.
 */
static int
add_buffer(
    struct virtqueue *vq, struct virtqueue_chain *chain, struct vring_desc *d)
{
	bool writable = d->flags & VRING_DESC_F_WRITE;
	unsigned n = chain->readable + chain->writable;
	struct iovec *last;
	char *base;

	if (!writable && chain->writable > 0) /* 2.7.4.2 */
		return fault(vq, "readable buffer after a writable one");
	if (chain->report && writable)
		guest_wrote(vq->guest, d->addr, d->len);
	if (chain->report)
		return 0;
	if (chain->last_byte && (!writable || d->len == 0))
		return 0;
	if (chain->last_byte) {
		d->addr += d->len - 1;
		d->len = 1;
		chain->writable = n = 0;
	}
	base = guest_ptr(vq->guest, d->addr, d->len);
	if (base == NULL)
		return lack(vq, "buffer not in guest memory");
	if (d->len == 0)
		return 0;
	if ((writable ? chain->writable : chain->readable) > 0) {
		last = &chain->iov[n - 1];
		if ((char *)last->iov_base + last->iov_len == base) {
			last->iov_len += d->len;
			return 0;
		}
	}
	if (n == VIRTQUEUE_NUM_MAX)
		return fault(vq, "chain longer than the queue");
	chain->iov[n] = (struct iovec){.iov_base = base, .iov_len = d->len};
	if (writable)
		chain->writable++;
	else
		chain->readable++;
	return 0;
}

/*
 * Collect the buffers of the chain that starts at descriptor 'head' (2.7.5).
 *
 * An indirect table may be longer than the ring, up to the largest queue size:
 * 2.7.5.3.1 forbids it, but Linux does it when memory is short and it makes the
 * ring smaller than it was offered.
 */
static int
walk(struct virtqueue *vq, uint16_t head, struct virtqueue_chain *chain)
{
	const char *p, *table = (const char *)descriptors(vq);
	uint32_t i = head, num = vq->s->num, steps = 0;
	uint64_t bytes = 0;
	bool indirect = false;
	struct vring_desc d;
	int got;

	chain->head = head;
	chain->readable = chain->writable = 0;
	if (table == NULL)
		return lack(vq, "descriptor table not in guest memory");
	for (;;) {
		/* Whoever needs more steps than there are is in a loop. */
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
			table = guest_ptr(vq->guest, d.addr, d.len);
			if (table == NULL)
				return lack(
				    vq, "indirect table not in guest memory");
			indirect = true;
			i = steps = 0;
			continue;
		}
		/* To look up a long buffer takes long (2.7.5.2). */
		bytes += d.len;
		if (bytes > UINT64_C(1) << 32)
			return fault(vq, "chain of more than 4 GiB");
		got = add_buffer(vq, chain, &d);
		if (got < 0)
			return got;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		i = d.next;
	}
}

int
virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	struct virtqueue_state *s = vq->s;
	struct vring_avail *avail = available(vq);
	uint16_t head, n;
	int got;

	if (avail == NULL)
		return lack(vq, "available ring not in guest memory");
	n = LOAD16(&avail->idx) - s->next_avail;
	if (n == 0)
		return 0;
	if (n > s->num)
		return fault(vq, "available index ahead of the queue size");
	/* The index before the entries that it makes available. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	head = LOAD16(&avail->ring[s->next_avail % s->num]);
	if (head >= s->num)
		return fault(vq, "available head beyond the queue size");
	if (*inflight_word(s, head) & inflight_bit(head))
		return fault(vq, "chain made available twice");
	/* What is taken can be returned. */
	if (used(vq) == NULL)
		return lack(vq, "used ring not in guest memory");
	got = walk(vq, head, chain);
	if (got < 0)
		return got;

	s->popping = head;
	settle();
	*inflight_word(s, head) |= inflight_bit(head);
	settle();
	s->next_avail++;
	settle();
	return 1;
}

int
virtqueue_redo(
    struct virtqueue *vq, uint32_t *head, struct virtqueue_chain *chain)
{
	struct virtqueue_state *s = vq->s;
	struct vring_used *u = used(vq);
	int got;

	if (u == NULL)
		return lack(vq, "used ring not in guest memory");
	/*
	 * The driver may have seen what was pushed, and made the same heads
	 * available again: it must not be pushed any more when they are popped.
	 */
	if (s->published != s->next_used) {
		if (GUEST_CAN_MIGRATE && report(vq) < 0)
			return VIRTQUEUE_NOT_NOW;
		show(s, u);
	}
	for (; *head < s->num; ++*head) {
		if (!(*inflight_word(s, *head) & inflight_bit(*head)))
			continue;
		got = walk(vq, *head, chain);
		return got < 0 ? got : 1;
	}
	return 0;
}

int
virtqueue_notify(struct virtqueue *vq, bool wanted)
{
	struct virtqueue_state *s = vq->s;
	struct vring_avail *avail = available(vq);
	struct vring_used *u = avail != NULL ? used(vq) : NULL;

	if (u == NULL)
		return lack(vq, "ring not in guest memory");
	if (!HAS(vq, VIRTIO_RING_F_EVENT_IDX))
		STORE16(&u->flags, wanted ? 0 : VRING_USED_F_NO_NOTIFY);
	else /* a position before any that can be new is never passed */
		STORE16((uint16_t *)&u->ring[s->num],
		    wanted ? s->next_avail : s->next_avail - s->num - 1);
	if (!wanted)
		return 0;
	/*
	 * The driver stores its index, then looks whether we want to know; we
	 * do it the other way round, and so at least one of us sees the other.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return LOAD16(&avail->idx) != s->next_avail;
}

int
virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len)
{
	struct virtqueue_state *s = vq->s;
	struct vring_used *u = used(vq);
	uint16_t slot = s->next_used % s->num;

	if (u == NULL)
		return fault(vq, "used ring not in guest memory");
	STORE32(&u->ring[slot].id, head);
	STORE32(&u->ring[slot].len, len);
	s->pushed[slot] = head;
	settle();
	s->next_used++;
	settle();
	*inflight_word(s, head) &= ~inflight_bit(head);
	settle();
	return 0;
}

int
virtqueue_publish(struct virtqueue *vq)
{
	struct virtqueue_state *s = vq->s;
	struct vring_avail *avail;
	struct vring_used *u;

	if (s->next_used == s->signalled)
		return 0;
	avail = available(vq);
	u = avail != NULL ? used(vq) : NULL;
	if (u == NULL)
		return lack(vq, "ring not in guest memory");

	if (GUEST_CAN_MIGRATE && report(vq) < 0)
		return VIRTQUEUE_NOT_NOW;
	show(s, u);
	/* As in virtqueue_notify(), with the roles exchanged. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (HAS(vq, VIRTIO_RING_F_EVENT_IDX))
		return vring_need_event(
		    LOAD16(&avail->ring[s->num]), s->published, s->signalled);
	return !(LOAD16(&avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

void
virtqueue_keep(struct virtqueue *vq)
{
	uint32_t num = vq->s->num;

	guest_keep(vq->guest, descriptors(vq), num * sizeof(struct vring_desc));
	guest_keep(vq->guest, available(vq), 6 + 2 * num);
	guest_keep(vq->guest, used(vq), 6 + 8 * num);
}

void
virtqueue_signalled(struct virtqueue *vq)
{
	vq->s->signalled = vq->s->published;
}
