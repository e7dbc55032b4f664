/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A proof about virtqueue.c, for CBMC, a bounded model checker (make prove):
 * whatever guest memory holds, and though it is something else at each read, no
 * access is out of bounds, nothing overflows, every loop ends, and what is
 * asserted below holds.
 *
 * virtqueue.c is included as it is.  Each load from guest memory is made, so
 * that where it goes is judged, and gives any value at all.  The bounds: a
 * guest of WINDOW bytes, queues of up to NUM, and indirect tables of up to
 * TABLE descriptors or of more than are allowed.  No line of virtqueue.c knows
 * the difference to larger ones.
 */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

uint16_t nondet_any16(void);
uint32_t nondet_any32(void);
uint64_t nondet_any64(void);
_Bool nondet_any(void);

static uint16_t changed16(uint16_t was);
static uint32_t changed32(uint32_t was);
static uint64_t changed64(uint64_t was);

#undef le16toh
#undef le32toh
#undef le64toh
#define le16toh(v) changed16(v)
#define le32toh(v) changed32(v)
#define le64toh(v) changed64(v)

#include "../virtqueue.c"

#define WINDOW 128
#define BASE   UINT64_C(0x40000000)
#ifndef NUM
#define NUM 4
#endif
#ifndef TABLE
#define TABLE 4
#endif

static char window[WINDOW];
static struct virtqueue_state state;
static struct virtqueue vq;
static struct iovec iov[NUM + TABLE]; /* no chain has more */
static struct virtqueue_chain chain;
static uint32_t last32;

/* With the length that was loaded before, this may be a descriptor's flags. */
static uint16_t
changed16(uint16_t was)
{
	uint16_t v = nondet_any16();

	(void)was;
	if (v & VRING_DESC_F_INDIRECT)
		__CPROVER_assume(
		    last32 <= TABLE * sizeof(struct vring_desc) ||
		    last32 > VIRTQUEUE_NUM_MAX * sizeof(struct vring_desc));
	return v;
}

static uint32_t
changed32(uint32_t was)
{
	(void)was;
	return last32 = nondet_any32();
}

static uint64_t
changed64(uint64_t was)
{
	(void)was;
	return nondet_any64();
}

/*
 * Any page may be there or not, and come and go.
 */
void *
guest_map(struct guest *guest, uint64_t gpa, size_t len)
{
	(void)guest;
	errno = nondet_any() ? EFAULT : ENOMEM;
	if (nondet_any() || gpa < BASE || gpa - BASE > WINDOW ||
	    len > WINDOW - (gpa - BASE))
		return NULL;
	return window + (gpa - BASE);
}

/* It is compared, and never followed. */
void *
grant_address(uint64_t addr, uint64_t len)
{
	return guest_map(NULL, addr, len);
}

void
guest_unmap_all(struct guest *guest)
{
	(void)guest;
}

void
guest_wrote(struct guest *guest, uint64_t gpa, uint64_t len)
{
	(void)guest;
	(void)gpa;
	(void)len;
}

void
guest_report(struct guest *guest)
{
	(void)guest;
}

void
guest_pin(struct guest *guest, const void *p, size_t len)
{
	(void)guest;
	(void)p;
	(void)len;
}

static void
any_state(void)
{
	struct virtqueue_state s;

	state = s; /* not initialised: anything */
	vq = (struct virtqueue){.s = &state,
	    .features = nondet_any64(),
	    .resubmit_head = VIRTQUEUE_NUM_MAX};
	chain = (struct virtqueue_chain){.iov = iov};
}

/*
 * What holds of a queue that is ready, between two calls.
 */
static bool
sound(void)
{
	return (state.num == 2 || state.num == NUM) &&
	       state.inflight[0] < (UINT64_C(1) << state.num) &&
	       state.inflight[1] == 0 && state.inflight[2] == 0 &&
	       state.inflight[3] == 0 &&
	       (uint16_t)(state.last_avail_idx - state.used_idx) ==
		   count_inflight(&state) &&
	       (uint16_t)(state.used_idx - state.published) <= state.num;
}

static void
assert_chain(void)
{
	unsigned i = nondet_any16(), n = chain.readable + chain.writable;
	char *base = iov[i % (NUM + TABLE)].iov_base;
	size_t len = iov[i % (NUM + TABLE)].iov_len;

	__CPROVER_assert(n <= NUM + TABLE, "no more buffers than descriptors");
	if (i >= n)
		return;
	__CPROVER_assert(len > 0 && len <= WINDOW, "a buffer has a length");
	__CPROVER_assert(
	    __CPROVER_POINTER_OBJECT(base) == __CPROVER_POINTER_OBJECT(window),
	    "a buffer is in guest memory");
	__CPROVER_assert(
	    __CPROVER_POINTER_OFFSET(base) + len <= WINDOW, "all of it is");
}

void
prove_enable(void)
{
	any_state();
	if (virtqueue_enable(&vq, nondet_any64()) < 0)
		return;
	__CPROVER_assert(state.ready == 1, "ready");
	__CPROVER_assert(is_queue_size(state.num), "of a size that is offered");
	__CPROVER_assert(state.last_avail_idx == 0 && state.used_idx == 0 &&
			     count_inflight(&state) == 0,
	    "from the beginning");
}

void
prove_pop(void)
{
	struct virtqueue_state before;
	uint16_t head;
	int got;

	any_state();
	__CPROVER_assume(sound());
	before = state;
	got = virtqueue_pop(&vq, &chain);
	__CPROVER_assert(
	    got >= VIRTQUEUE_AGAIN && got <= 1, "one of four results");
	__CPROVER_assert((got == -1) == (vq.fault != NULL), "a fault is named");
	__CPROVER_assert(sound(), "sound before, sound after");
	if (got < 1) {
		__CPROVER_assert(
		    state.last_avail_idx == before.last_avail_idx &&
			state.inflight[0] == before.inflight[0],
		    "nothing was taken");
		return;
	}
	head = chain.head;
	__CPROVER_assert(head < state.num, "a head of this queue");
	__CPROVER_assert(!(before.inflight[0] >> head & 1), "not taken before");
	__CPROVER_assert(
	    state.inflight[0] == (before.inflight[0] | UINT64_C(1) << head),
	    "taken, and no other");
	__CPROVER_assert(
	    state.last_avail_idx == (uint16_t)(before.last_avail_idx + 1),
	    "one taken");
	assert_chain();
}

void
prove_push(void)
{
	struct virtqueue_state before;
	uint16_t head = nondet_any16();
	uint64_t at;

	any_state();
	__CPROVER_assume(sound() && head < state.num);
	__CPROVER_assume(state.inflight[0] >> head & 1);
	/* What was pushed is published before there are more than fit. */
	__CPROVER_assume(
	    (uint16_t)(state.used_idx - state.published) < state.num);
	before = state;
	at = nondet_any16() % WINDOW;
	window[at] = 0;
	if (virtqueue_push(&vq, head, UINT32_MAX) < 0) {
		__CPROVER_assert(
		    state.inflight[0] == before.inflight[0], "still ours");
		return;
	}
	__CPROVER_assert(sound(), "sound before, sound after");
	__CPROVER_assert(
	    state.used_idx == (uint16_t)(before.used_idx + 1), "one pushed");
	__CPROVER_assert(!(state.inflight[0] >> head & 1), "in flight no more");
	if (window[at] != 0)
		__CPROVER_assert(
		    BASE + at >= state.device + 4 &&
			BASE + at < state.device + 4 + 8 * state.num,
		    "only elements of the used ring were written");
}

void
prove_publish(void)
{
	int wanted;

	any_state();
	__CPROVER_assume(sound());
	wanted = virtqueue_publish(&vq);
	__CPROVER_assert(
	    wanted >= VIRTQUEUE_AGAIN && wanted <= 1, "one of four results");
	__CPROVER_assert(sound(), "sound before, sound after");
	virtqueue_signalled(&vq);
	__CPROVER_assert(sound(), "and then");
}

void
prove_set_notify(void)
{
	int more;

	any_state();
	__CPROVER_assume(sound());
	more = virtqueue_set_notify(&vq, nondet_any());
	__CPROVER_assert(
	    more >= VIRTQUEUE_AGAIN && more <= 1, "one of four results");
	__CPROVER_assert(sound(), "sound before, sound after");
}

/*
 * Any state that a predecessor may have left, or any corruption of it.
 */
void
prove_adopt(void)
{
	any_state();
	__CPROVER_assume(state.num <= NUM || !is_queue_size(state.num));
	if (virtqueue_adopt(&vq, nondet_any64()) < 0)
		return;
	__CPROVER_assert(is_queue_size(state.num), "of a size that is offered");
	__CPROVER_assert((uint16_t)(state.last_avail_idx - state.used_idx) ==
			     count_inflight(&state),
	    "heads in flight add up");
}

void
prove_pop_inflight(void)
{
	uint32_t head;

	any_state();
	vq.resubmit_head = nondet_any32();
	__CPROVER_assume(state.num == 2 || state.num == NUM);
	if (pop_inflight(&vq, &chain) != 1)
		return;
	head = chain.head;
	__CPROVER_assert(vq.resubmit_head == head + 1 && head < state.num,
	    "a head of this queue");
	__CPROVER_assert(
	    state.inflight[0] >> head & 1, "one that was in flight");
	assert_chain();
}
