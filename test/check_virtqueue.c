/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The split ring, device side, against a driver that does right or wrong
 * (virtio 1.2, 2.7).  Rings and buffers lie between unmapped pages, and some
 * tests change them between two instructions of the device.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <check.h>
#include <linux/virtio_config.h>

#include "cases.h"
#include "fake_driver.h"
#include "fake_guest.h"
#include "virtqueue.h"

#define BASE	  0x40000000
#define SIZE	  (16 << 20)

#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT  (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)

#define NEXT	  VRING_DESC_F_NEXT
#define WRITE	  VRING_DESC_F_WRITE
#define TABLE	  VRING_DESC_F_INDIRECT

#define BUF_LEN	  (64 << 10)
#define TABLE_MAX 65537 /* descriptors: 1, in 16 bits */

static struct guest *guest;
static struct fake_driver drv;
static struct virtqueue_state state;
static struct virtqueue vq;
static struct virtqueue_chain chain;
static uint64_t buf;	/* guest-physical, BUF_LEN bytes, then a hole */
static uint64_t tables; /* likewise, for indirect tables */

static void
setup(void)
{
	uint64_t iov;

	guest = fake_guest_open(BASE, SIZE);
	buf = fake_guest_alloc(guest, BUF_LEN, 1);
	tables =
	    fake_guest_alloc(guest, TABLE_MAX * sizeof(struct vring_desc), 1);
	/* Fenced too: the device may not write one iovec too many. */
	iov = fake_guest_alloc(
	    guest, VIRTQUEUE_NUM_MAX * sizeof(struct iovec), 16);
	chain.iov = fake_guest_at(guest, iov);
	memset(&state, 0, sizeof(state));
	vq = (struct virtqueue){.guest = guest, .s = &state};
	virtqueue_reset(&vq);
}

static void
teardown(void)
{
	fake_guest_close(guest);
}

/*
 * New rings, and their addresses in the registers.
 */
static void
rings(uint16_t num)
{
	fake_driver_init(&drv, guest, num);
	virtqueue_reset(&vq);
	state.desc = drv.desc_gpa;
	state.driver = drv.avail_gpa;
	state.device = drv.used_gpa;
	state.num = num;
}

static void
start(uint16_t num, uint64_t features)
{
	rings(num);
	ck_assert_int_eq(virtqueue_enable(&vq, features), 0);
	ck_assert_uint_eq(state.ready, 1);
}

static struct vring_desc *
table(void)
{
	return fake_guest_at(guest, tables);
}

/*
 * Descriptor 'i' alone is a chain: one readable buffer of 16 bytes.
 */
static void
offer_simple(uint16_t i)
{
	fake_driver_desc(&drv.desc[i], buf + 64 * (i % 16), 16, 0, 0);
	fake_driver_offer(&drv, i);
}

static void
pop_expecting(uint16_t head)
{
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
	ck_assert_uint_eq(chain.head, head);
}

static void
expect_fault(int result)
{
	ck_assert_int_eq(result, -1);
	ck_assert_ptr_nonnull(vq.fault);
	ck_assert_str_ne(vq.fault, "");
}

/*
 * virtqueue_pop() refuses what is next and takes nothing.
 */
static void
expect_nothing_popped(const char *what)
{
	struct virtqueue_state before = state;

	ck_assert_msg(virtqueue_pop(&vq, &chain) == -1, "accepted: %s", what);
	ck_assert_ptr_nonnull(vq.fault);
	ck_assert_uint_eq(state.last_avail_idx, before.last_avail_idx);
	ck_assert_mem_eq(
	    state.inflight, before.inflight, sizeof(state.inflight));
}

static void
complete(uint16_t head, uint32_t len)
{
	ck_assert_int_eq(virtqueue_push(&vq, head, len), 0);
	ck_assert_int_ge(virtqueue_publish(&vq), 0);
	virtqueue_signalled(&vq);
}

/*
 * Whole lives of single chains, until both positions are at 'to'.
 */
static void
advance(uint16_t to)
{
	struct vring_used_elem e;

	while (state.used_idx != to) {
		offer_simple(state.last_avail_idx % drv.num);
		pop_expecting(state.last_avail_idx % drv.num);
		complete(chain.head, 0);
		ck_assert(fake_driver_take(&drv, &e));
	}
}

/*
 * The same as it would be after that many lives.
 */
static void
jump(uint16_t to)
{
	state.last_avail_idx = state.used_idx = to;
	state.published = state.signalled = to;
	drv.avail->idx = drv.used->idx = drv.seen = to;
}

static size_t
bytes(unsigned from, unsigned n)
{
	size_t sum = 0;

	for (unsigned i = from; i < from + n; i++)
		sum += chain.iov[i].iov_len;
	return sum;
}

/* Enabling, 4.2.2 and 2.7. */

START_TEST(a_reset_queue_is_not_ready_and_has_the_largest_size)
{
	start(4, 0);
	offer_simple(0);
	pop_expecting(0);
	virtqueue_reset(&vq);
	ck_assert_uint_eq(state.ready, 0);
	ck_assert_uint_eq(state.num, VIRTQUEUE_NUM_MAX);
	ck_assert_uint_eq(state.last_avail_idx, 0);
	ck_assert_uint_eq(state.used_idx, 0);
	for (unsigned i = 0; i < VIRTQUEUE_NUM_MAX / 64; i++)
		ck_assert_uint_eq(state.inflight[i], 0);
}
END_TEST

static const uint32_t good_sizes[] = {2, 4, 64, 128, 256};

START_TEST(a_queue_of_any_power_of_two_works_to_its_last_descriptor)
{
	uint16_t num = good_sizes[_i];

	start(num, 0);
	for (unsigned i = 0; i < num; i++)
		offer_simple(i);
	for (unsigned i = 0; i < num; i++)
		pop_expecting(i);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
	for (unsigned i = 0; i < num; i++)
		ck_assert_int_eq(virtqueue_push(&vq, i, i), 0);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	for (unsigned i = 0; i < num; i++) {
		struct vring_used_elem e;

		ck_assert(fake_driver_take(&drv, &e));
		ck_assert_uint_eq(e.id, i);
		ck_assert_uint_eq(e.len, i);
	}
}
END_TEST

static const uint32_t bad_sizes[] = {
    0, 1, 3, 255, 257, 512, 32768, 65536, 0x80000000, UINT32_MAX};

START_TEST(a_queue_size_that_was_not_offered_is_a_fault)
{
	rings(32768); /* that many would be there */
	state.num = bad_sizes[_i];
	expect_fault(virtqueue_enable(&vq, 0));
	ck_assert_uint_eq(state.ready, 0);
}
END_TEST

START_TEST(a_misaligned_ring_is_a_fault)
{
	static const unsigned align[] = {16, 2, 4};
	uint64_t *addr[] = {&state.desc, &state.driver, &state.device};

	for (unsigned ring = 0; ring < 3; ring++)
		for (unsigned off = 1; off < align[ring]; off++) {
			rings(8);
			*addr[ring] -= off;
			expect_fault(virtqueue_enable(&vq, 0));
			ck_assert_uint_eq(state.ready, 0);
		}
}
END_TEST

START_TEST(a_ring_aligned_as_little_as_allowed_is_taken)
{
	uint64_t room = fake_guest_alloc(guest, FAKE_GUEST_PAGE, 16);

	rings(4);
	state.desc = room + 16;
	state.driver = room + 256 + 2;
	state.device = room + 512 + 4;
	ck_assert_int_eq(virtqueue_enable(&vq, 0), 0);
}
END_TEST

START_TEST(a_ring_in_a_hole_is_a_fault)
{
	uint64_t *addr[] = {&state.desc, &state.driver, &state.device};
	uint64_t bad[] = {0, BASE - 4096, BASE, BASE + SIZE - 16, BASE + SIZE,
	    UINT64_MAX - 15, UINT64_C(1) << 40};

	for (unsigned ring = 0; ring < 3; ring++)
		for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			rings(4);
			*addr[ring] = bad[i];
			expect_fault(virtqueue_enable(&vq, 0));
			ck_assert_uint_eq(state.ready, 0);
		}
}
END_TEST

START_TEST(a_ring_that_reaches_into_a_hole_is_a_fault)
{
	uint64_t *addr[] = {&state.desc, &state.driver, &state.device};
	static const unsigned more[] = {16, 2, 4};

	/* The rings end where their memory ends. */
	for (unsigned ring = 0; ring < 3; ring++) {
		rings(256);
		*addr[ring] += more[ring];
		expect_fault(virtqueue_enable(&vq, 0));
	}
}
END_TEST

START_TEST(a_queue_enabled_again_starts_from_zero)
{
	start(4, 0);
	advance(3);
	offer_simple(3);
	pop_expecting(3);
	state.ready = 0;
	drv.avail->idx = drv.used->idx = drv.seen = 0;
	ck_assert_int_eq(virtqueue_enable(&vq, 0), 0);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
	ck_assert_int_eq(virtqueue_publish(&vq), 0);
	offer_simple(3);
	pop_expecting(3);
	complete(3, 7);
	ck_assert_uint_eq(drv.used->idx, 1);
	ck_assert_uint_eq(drv.used->ring[0].id, 3);
}
END_TEST

/* Popping chains, 2.7.5 and 2.7.6. */

enum where { NONE, BUF, BUF_END, HOLE, LOW, HIGH, WRAP, IN_TABLE, ODD_TABLE };

struct entry {
	enum where where;
	uint32_t len;
	uint16_t flags, next;
};

struct shape {
	const char *what;
	bool direct_only; /* indirect descriptors not negotiated */
	struct entry desc[4], table[4];
	size_t readable, writable; /* in bytes, of a good chain */
};

static uint64_t
address(enum where where, unsigned i)
{
	switch (where) {
	case BUF:
		return buf + 1024 * i;
	case BUF_END:
		return buf + BUF_LEN - 16;
	case HOLE:
		return buf + BUF_LEN;
	case LOW:
		return BASE - 16;
	case HIGH:
		return UINT64_C(1) << 47;
	case WRAP:
		return UINT64_MAX - 15;
	case IN_TABLE:
		return tables;
	case ODD_TABLE:
		return tables + 1;
	case NONE:
		break;
	}
	return 0;
}

/*
 * Lay out a chain in a ring of 4 that starts at descriptor 0 and offer it.
 */
static void
offer_shape(const struct shape *s)
{
	struct vring_desc t[4];

	start(4, s->direct_only ? 0 : INDIRECT);
	for (unsigned i = 0; i < 4; i++) {
		const struct entry *d = &s->desc[i];
		const struct entry *e = &s->table[i];

		fake_driver_desc(&drv.desc[i], address(d->where, i), d->len,
		    d->flags, d->next);
		fake_driver_desc(
		    &t[i], address(e->where, 8 + i), e->len, e->flags, e->next);
		if (d->where == IN_TABLE || d->where == ODD_TABLE)
			memset(fake_guest_at(guest, tables), 0xff, 128);
	}
	for (unsigned i = 0; i < 4; i++)
		if (s->desc[i].flags & TABLE && s->desc[i].where >= IN_TABLE)
			memcpy(
			    fake_guest_at(guest, address(s->desc[i].where, 0)),
			    t, sizeof(t));
	fake_driver_offer(&drv, 0);
}

static const struct shape bad_shapes[] = {
    {"a descriptor that follows itself", .desc = {{BUF, 16, NEXT, 0}}},
    {"a loop of two", .desc = {{BUF, 16, NEXT, 1}, {BUF, 16, NEXT, 0}}},
    {"a loop at the end of the ring",
	.desc = {{BUF, 16, NEXT, 1}, {BUF, 16, NEXT, 2}, {BUF, 16, NEXT, 3},
	    {BUF, 16, NEXT, 3}}},
    {"a loop of empty descriptors",
	.desc = {{BUF, 0, NEXT, 1}, {BUF, 0, NEXT, 0}}},
    {"next just beyond the ring", .desc = {{BUF, 16, NEXT, 4}}},
    {"next far beyond the ring", .desc = {{BUF, 16, NEXT, 65535}}},
    {"readable after writable",
	.desc = {{BUF, 16, WRITE | NEXT, 1}, {BUF, 16, 0, 0}}},
    {"readable between writable ones",
	.desc = {{BUF, 16, NEXT, 1}, {BUF, 16, WRITE | NEXT, 2},
	    {BUF, 16, NEXT, 3}, {BUF, 16, WRITE, 0}}},
    {"a buffer in a hole", .desc = {{HOLE, 1, 0, 0}}},
    {"a second buffer in a hole",
	.desc = {{BUF, 16, NEXT, 1}, {HOLE, 1, WRITE, 0}}},
    {"a buffer that reaches into a hole", .desc = {{BUF_END, 17, 0, 0}}},
    {"a buffer that reaches into memory from below", .desc = {{LOW, 32, 0, 0}}},
    {"a buffer beyond all memory", .desc = {{HIGH, 16, 0, 0}}},
    {"a buffer that wraps around to address 0", .desc = {{WRAP, 32, 0, 0}}},
    {"a buffer at the end of the address space", .desc = {{WRAP, 16, 0, 0}}},
    {"a buffer of 4 GiB - 1", .desc = {{BUF, UINT32_MAX, 0, 0}}},
    {"an indirect table that was not negotiated", .direct_only = true,
	.desc = {{IN_TABLE, 16, TABLE, 0}}, .table = {{BUF, 16, 0, 0}}},
    {"an indirect table and a next descriptor",
	.desc = {{IN_TABLE, 16, TABLE | NEXT, 1}, {BUF, 16, 0, 0}},
	.table = {{BUF, 16, 0, 0}}},
    {"an indirect table in an indirect table",
	.desc = {{IN_TABLE, 32, TABLE, 0}},
	.table = {{IN_TABLE, 16, TABLE, 0}, {BUF, 16, 0, 0}}},
    {"an indirect table at the end of an indirect table",
	.desc = {{IN_TABLE, 32, TABLE, 0}},
	.table = {{BUF, 16, NEXT, 1}, {IN_TABLE, 16, TABLE, 0}}},
    {"an indirect table of no bytes", .desc = {{IN_TABLE, 0, TABLE, 0}}},
    {"an indirect table of half a descriptor",
	.desc = {{IN_TABLE, 8, TABLE, 0}}},
    {"an indirect table of a descriptor and a half",
	.desc = {{IN_TABLE, 24, TABLE, 0}}, .table = {{BUF, 16, 0, 0}}},
    {"an indirect table of one byte more", .desc = {{IN_TABLE, 17, TABLE, 0}},
	.table = {{BUF, 16, 0, 0}}},
    {"an indirect table larger than the largest queue",
	.desc = {{IN_TABLE, (VIRTQUEUE_NUM_MAX + 1) * 16, TABLE, 0}},
	.table = {{BUF, 16, 0, 0}}},
    {"an indirect table of nearly 4 GiB",
	.desc = {{IN_TABLE, 0xfffffff0, TABLE, 0}}, .table = {{BUF, 16, 0, 0}}},
    {"an indirect table of more than 65536 descriptors",
	.desc = {{IN_TABLE, TABLE_MAX * 16, TABLE, 0}},
	.table = {{BUF, 16, 0, 0}}},
    {"an indirect table in a hole", .desc = {{HOLE, 16, TABLE, 0}}},
    {"an indirect table that reaches into a hole",
	.desc = {{BUF_END, 32, TABLE, 0}}},
    {"an indirect table that wraps around to address 0",
	.desc = {{WRAP, 32, TABLE, 0}}},
    {"next beyond the indirect table", .desc = {{IN_TABLE, 32, TABLE, 0}},
	.table = {{BUF, 16, NEXT, 2}, {BUF, 16, 0, 0}, {BUF, 16, 0, 0}}},
    {"a loop in an indirect table", .desc = {{IN_TABLE, 32, TABLE, 0}},
	.table = {{BUF, 16, NEXT, 1}, {BUF, 16, NEXT, 0}}},
    {"readable after writable in an indirect table",
	.desc = {{IN_TABLE, 32, TABLE, 0}},
	.table = {{BUF, 16, WRITE | NEXT, 1}, {BUF, 16, 0, 0}}},
    {"readable in an indirect table after writable in the ring",
	.desc = {{BUF, 16, WRITE | NEXT, 1}, {IN_TABLE, 16, TABLE, 0}},
	.table = {{BUF, 16, 0, 0}}},
    {"a buffer in a hole in an indirect table",
	.desc = {{IN_TABLE, 16, TABLE, 0}}, .table = {{HOLE, 16, 0, 0}}},
};

START_TEST(a_malformed_chain_is_a_fault_and_not_taken)
{
	offer_shape(&bad_shapes[_i]);
	expect_nothing_popped(bad_shapes[_i].what);
	/* Nor the next time. */
	expect_nothing_popped(bad_shapes[_i].what);
}
END_TEST

static const struct shape good_shapes[] = {
    {"one readable buffer", .desc = {{BUF, 16, 0, 0}}, .readable = 16},
    {"one writable buffer", .desc = {{BUF, 16, WRITE, 0}}, .writable = 16},
    {"a buffer up to the last byte of memory",
	.desc = {{BUF_END, 16, WRITE, 0}}, .writable = 16},
    {"a chain as long as the ring",
	.desc = {{BUF, 16, NEXT, 3}, {BUF, 8, WRITE, 0},
	    {BUF, 4, WRITE | NEXT, 1}, {BUF, 2, NEXT, 2}},
	.readable = 18, .writable = 12},
    {"next that is ignored without its flag", .desc = {{BUF, 16, 0, 65535}},
	.readable = 16},
    {"empty buffers among others",
	.desc = {{BUF, 0, NEXT, 1}, {BUF, 16, NEXT, 2},
	    {BUF, 0, WRITE | NEXT, 3}, {BUF, 1, WRITE, 0}},
	.readable = 16, .writable = 1},
    {"nothing but an empty buffer", .desc = {{BUF, 0, 0, 0}}},
    {"an indirect table", .desc = {{IN_TABLE, 48, TABLE, 0}},
	.table = {{BUF, 16, NEXT, 2}, {BUF, 1, WRITE, 0},
	    {BUF, 512, WRITE | NEXT, 1}},
	.readable = 16, .writable = 513},
    {"an indirect table whose unused end is garbage",
	.desc = {{IN_TABLE, 128, TABLE, 0}},
	.table = {{BUF, 16, 0, 0}, {HOLE, UINT32_MAX, 7, 65535},
	    {HOLE, UINT32_MAX, 7, 65535}, {HOLE, UINT32_MAX, 7, 65535}},
	.readable = 16},
    /* 2.7.5.3.2: MUST ignore the write-only flag of such a descriptor. */
    {"an indirect table marked writable",
	.desc = {{IN_TABLE, 32, TABLE | WRITE, 0}},
	.table = {{BUF, 16, NEXT, 1}, {BUF, 1, WRITE, 0}}, .readable = 16,
	.writable = 1},
    {"an indirect table whose own descriptor has a next without its flag",
	.desc = {{IN_TABLE, 32, TABLE, 1}},
	.table = {{BUF, 16, NEXT, 1}, {BUF, 1, WRITE, 0}}, .readable = 16,
	.writable = 1},
    /* 2.7.5.3.2: MUST handle descriptors followed by a table. */
    {"descriptors, then an indirect table",
	.desc = {{BUF, 16, NEXT, 2}, {IN_TABLE, 32, TABLE, 0},
	    {BUF, 32, NEXT, 1}},
	.table = {{BUF, 64, NEXT, 1}, {BUF, 1, WRITE, 0}}, .readable = 112,
	.writable = 1},
    /* 2.7 asks for no alignment of an indirect table. */
    {"an indirect table at an odd address", .desc = {{ODD_TABLE, 32, TABLE, 0}},
	.table = {{BUF, 16, NEXT, 1}, {BUF, 1, WRITE, 0}}, .readable = 16,
	.writable = 1},
};

START_TEST(a_well_formed_chain_is_taken_whole)
{
	const struct shape *s = &good_shapes[_i];

	offer_shape(s);
	ck_assert_msg(virtqueue_pop(&vq, &chain) == 1, "refused: %s: %s",
	    s->what, vq.fault);
	ck_assert_uint_eq(chain.head, 0);
	ck_assert_uint_eq(bytes(0, chain.readable), s->readable);
	ck_assert_uint_eq(bytes(chain.readable, chain.writable), s->writable);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
}
END_TEST

START_TEST(buffers_come_in_the_order_of_the_chain)
{
	static const unsigned order[] = {0, 3, 2, 1};
	struct shape s = {.desc = {{BUF, 16, NEXT, 3}, {BUF, 8, WRITE, 0},
			      {BUF, 4, WRITE | NEXT, 1}, {BUF, 2, NEXT, 2}}};

	offer_shape(&s);
	pop_expecting(0);
	ck_assert_uint_eq(chain.readable, 2);
	ck_assert_uint_eq(chain.writable, 2);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_ptr_eq(chain.iov[i].iov_base,
		    fake_guest_at(guest, address(BUF, order[i])));
		ck_assert_uint_eq(chain.iov[i].iov_len, s.desc[order[i]].len);
	}
}
END_TEST

START_TEST(buffers_that_touch_become_one_iovec)
{
	start(8, 0);
	/* Two readable that touch, then a gap, then three writable. */
	fake_driver_desc(&drv.desc[0], buf, 16, NEXT, 1);
	fake_driver_desc(&drv.desc[1], buf + 16, 16, NEXT, 2);
	fake_driver_desc(&drv.desc[2], buf + 33, 16, NEXT, 3);
	fake_driver_desc(&drv.desc[3], buf + 49, 16, NEXT | WRITE, 4);
	fake_driver_desc(&drv.desc[4], buf + 65, 16, NEXT | WRITE, 5);
	fake_driver_desc(&drv.desc[5], buf + 81, 1, WRITE, 0);
	fake_driver_offer(&drv, 0);
	pop_expecting(0);
	ck_assert_uint_eq(chain.readable, 2);
	ck_assert_uint_eq(chain.writable, 1);
	ck_assert_ptr_eq(chain.iov[0].iov_base, fake_guest_at(guest, buf));
	ck_assert_uint_eq(chain.iov[0].iov_len, 32);
	ck_assert_uint_eq(chain.iov[1].iov_len, 16);
	/* Contiguous with a readable one, but not to be mixed with it. */
	ck_assert_ptr_eq(chain.iov[2].iov_base, fake_guest_at(guest, buf + 49));
	ck_assert_uint_eq(chain.iov[2].iov_len, 33);
}
END_TEST

START_TEST(buffers_that_overlap_or_run_backwards_stay_apart)
{
	start(4, 0);
	fake_driver_desc(&drv.desc[0], buf + 64, 16, NEXT, 1);
	fake_driver_desc(&drv.desc[1], buf + 48, 16, NEXT, 2);
	fake_driver_desc(&drv.desc[2], buf + 48, 16, 0, 0);
	fake_driver_offer(&drv, 0);
	pop_expecting(0);
	ck_assert_uint_eq(chain.readable, 3);
	ck_assert_uint_eq(bytes(0, 3), 48);
}
END_TEST

/*
 * An indirect table of 'n' buffers that do not touch.
 */
static void
fill_table(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fake_driver_desc(&table()[i], buf + 32 * i, 16,
		    i + 1 < n ? NEXT | WRITE : WRITE, i + 1);
}

START_TEST(an_indirect_table_may_be_as_long_as_the_largest_queue)
{
	/* Linux makes such chains also on a ring smaller than was offered. */
	start(_i, INDIRECT);
	fill_table(VIRTQUEUE_NUM_MAX);
	fake_driver_desc(
	    &drv.desc[1], tables, VIRTQUEUE_NUM_MAX * 16, TABLE, 0);
	fake_driver_offer(&drv, 1);
	pop_expecting(1);
	ck_assert_uint_eq(chain.writable, VIRTQUEUE_NUM_MAX);
	ck_assert_uint_eq(bytes(0, VIRTQUEUE_NUM_MAX), VIRTQUEUE_NUM_MAX * 16);
}
END_TEST

START_TEST(a_chain_of_more_buffers_than_the_largest_queue_is_a_fault)
{
	start(4, INDIRECT);
	fake_driver_desc(&drv.desc[0], buf + BUF_LEN - 1, 1, NEXT | WRITE, 1);
	fill_table(VIRTQUEUE_NUM_MAX);
	fake_driver_desc(
	    &drv.desc[1], tables, VIRTQUEUE_NUM_MAX * 16, TABLE, 0);
	fake_driver_offer(&drv, 0);
	expect_nothing_popped("257 buffers");
}
END_TEST

START_TEST(an_available_head_beyond_the_ring_is_a_fault)
{
	static const uint16_t heads[] = {4, 5, 255, 256, 32768, 65535};

	for (unsigned i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		start(4, 0);
		fake_driver_offer(&drv, heads[i]);
		expect_nothing_popped("head");
	}
}
END_TEST

START_TEST(an_available_index_that_jumps_is_a_fault)
{
	static const uint16_t jumps[] = {5, 8, 32768, 65535};

	for (unsigned i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++) {
		start(4, 0);
		advance(2);
		drv.avail->idx = 2 + jumps[i];
		expect_nothing_popped("index");
	}
}
END_TEST

START_TEST(an_available_index_that_goes_back_is_a_fault)
{
	start(4, 0);
	advance(7);
	drv.avail->idx = 6;
	expect_nothing_popped("index");
}
END_TEST

START_TEST(a_chain_made_available_again_in_flight_is_a_fault)
{
	start(4, 0);
	offer_simple(1);
	offer_simple(2);
	pop_expecting(1);
	pop_expecting(2);
	fake_driver_offer(&drv, 1);
	expect_nothing_popped("in flight");
}
END_TEST

START_TEST(a_chain_made_available_twice_at_once_is_a_fault)
{
	start(256, 0);
	offer_simple(200);
	fake_driver_offer(&drv, 200);
	pop_expecting(200);
	expect_nothing_popped("twice");
}
END_TEST

START_TEST(a_chain_that_was_returned_may_come_again)
{
	start(4, 0);
	for (unsigned i = 0; i < 3; i++) {
		offer_simple(1);
		pop_expecting(1);
		complete(1, 0);
	}
}
END_TEST

START_TEST(chains_may_be_returned_in_any_order)
{
	static const uint16_t order[] = {2, 0, 3, 1};
	struct vring_used_elem e;

	start(4, 0);
	for (unsigned i = 0; i < 4; i++)
		offer_simple(i);
	for (unsigned i = 0; i < 4; i++)
		pop_expecting(i);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(virtqueue_push(&vq, order[i], 100 + i), 0);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert(fake_driver_take(&drv, &e));
		ck_assert_uint_eq(e.id, order[i]);
		ck_assert_uint_eq(e.len, 100 + i);
	}
}
END_TEST

START_TEST(a_ring_that_goes_away_is_a_fault_not_a_crash)
{
	uint64_t gpa;

	start(4, _i & 1 ? EVENT_IDX : 0);
	offer_simple(0);
	offer_simple(1);
	pop_expecting(0);
	gpa = _i & 2 ? drv.avail_gpa : drv.used_gpa;
	ck_assert_int_eq(virtqueue_push(&vq, 0, 0), 0);
	fake_guest_hole(guest, gpa, 6);
	if (_i & 2)
		expect_nothing_popped("available ring gone");
	else
		expect_fault(virtqueue_push(&vq, 0, 0));
	expect_fault(virtqueue_set_notify(&vq, true));
	expect_fault(virtqueue_publish(&vq));
}
END_TEST

START_TEST(a_descriptor_table_that_goes_away_is_a_fault_not_a_crash)
{
	start(4, 0);
	offer_simple(0);
	fake_guest_hole(guest, drv.desc_gpa, 16);
	expect_nothing_popped("descriptor table gone");
}
END_TEST

START_TEST(a_ring_that_cannot_be_mapped_now_is_judged_when_it_is_used)
{
	uint64_t gpa;

	rings(4);
	gpa = (const uint64_t[]){
	    drv.avail_gpa, drv.desc_gpa, drv.used_gpa}[_i % 3];
	fake_guest_hole(guest, gpa, 1);
	fake_guest_shortage(guest, ENOMEM);
	ck_assert_int_eq(virtqueue_enable(&vq, 0), 0);
	/* If one of the others is not there at all, that is a fault. */
	fake_guest_shortage(guest, EFAULT);
	expect_fault(virtqueue_enable(&vq, 0));
}
END_TEST

START_TEST(only_the_last_writable_byte_of_a_chain_is_looked_up_if_so_wished)
{
	uint64_t status = buf + 9 * FAKE_GUEST_PAGE + 5;

	start(4, INDIRECT);
	fake_driver_desc(&table()[0], buf, 16, NEXT, 1);
	fake_driver_desc(&table()[1], buf + 100, 700, WRITE | NEXT, 2);
	fake_driver_desc(&table()[2], status - 15, 16, WRITE | NEXT, 3);
	fake_driver_desc(&table()[3], buf + 20, 0, WRITE, 0);
	fake_driver_desc(&drv.desc[1], tables, 64, TABLE, 0);
	fake_driver_offer(&drv, 1);
	fake_guest_hole(guest, buf + 10 * FAKE_GUEST_PAGE, 1);
	chain.status_only = true;
	pop_expecting(1);
	ck_assert_uint_eq(chain.readable, 0);
	ck_assert_uint_eq(chain.writable, 1);
	ck_assert_ptr_eq(chain.iov[0].iov_base, fake_guest_at(guest, status));
	ck_assert_uint_eq(chain.iov[0].iov_len, 1);
	chain.status_only = false;
}
END_TEST

START_TEST(positions_go_on_past_65535)
{
	struct vring_used_elem e;

	start(4, _i ? EVENT_IDX : 0);
	advance(65534);
	for (unsigned i = 0; i < 4; i++)
		offer_simple(i);
	for (unsigned i = 0; i < 4; i++)
		pop_expecting(i);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_int_eq(virtqueue_push(&vq, i, i), 0);
	*drv.used_event = 0; /* is passed on the way from 65534 to 2 */
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	ck_assert_uint_eq(drv.used->idx, 2);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert(fake_driver_take(&drv, &e));
		ck_assert_uint_eq(e.id, i);
	}
}
END_TEST

/* Returning chains, 2.7.8 and 2.7.7. */

START_TEST(a_pushed_chain_is_not_seen_before_it_is_published)
{
	struct vring_used_elem e;

	start(4, 0);
	offer_simple(3);
	pop_expecting(3);
	ck_assert_int_eq(virtqueue_push(&vq, 3, 513), 0);
	ck_assert(!fake_driver_take(&drv, &e));
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	ck_assert(fake_driver_take(&drv, &e));
	ck_assert_uint_eq(e.id, 3);
	ck_assert_uint_eq(e.len, 513);
}
END_TEST

START_TEST(nothing_pushed_needs_no_interrupt)
{
	start(4, _i ? EVENT_IDX : 0);
	ck_assert_int_eq(virtqueue_publish(&vq), 0);
	advance(2);
	ck_assert_int_eq(virtqueue_publish(&vq), 0);
	ck_assert_uint_eq(drv.used->idx, 2);
}
END_TEST

static void
push_simple(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		offer_simple(i);
		pop_expecting(i);
		ck_assert_int_eq(virtqueue_push(&vq, i, 0), 0);
	}
}

START_TEST(without_event_idx_the_driver_can_refuse_interrupts)
{
	start(4, 0);
	push_simple(1);
	*drv.used_event = 0x8000; /* means nothing: MUST be ignored, 2.7.7.2 */
	drv.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	ck_assert_int_eq(virtqueue_publish(&vq), 0);
	drv.avail->flags = 0;
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
}
END_TEST

START_TEST(with_event_idx_the_flag_that_refuses_interrupts_is_ignored)
{
	start(4, EVENT_IDX);
	push_simple(1);
	drv.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	*drv.used_event = 0;
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
}
END_TEST

/*
 * All starting points around the wrap, all batch sizes of a ring of 8, all
 * used_events in the neighbourhood.
 */
START_TEST(with_event_idx_an_interrupt_comes_when_used_event_is_passed)
{
	uint16_t old = 65536 - 4 + _i;
	struct vring_used_elem e;

	start(8, EVENT_IDX);
	jump(old);
	for (unsigned n = 1; n <= 8; n++) {
		old = state.used_idx;
		push_simple(n);
		for (int event = -4; event < 12; event++) {
			*drv.used_event = old + event;
			ck_assert_int_eq(virtqueue_publish(&vq),
			    event >= 0 && event < (int)n);
		}
		virtqueue_signalled(&vq);
		ck_assert_int_eq(virtqueue_publish(&vq), 0);
		while (fake_driver_take(&drv, &e))
			;
	}
}
END_TEST

START_TEST(the_decision_to_interrupt_repeats_until_it_was_carried_out)
{
	start(8, EVENT_IDX);
	*drv.used_event = 0;
	push_simple(2);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	/* More in between: still one interrupt owed for the first. */
	offer_simple(5);
	pop_expecting(5);
	ck_assert_int_eq(virtqueue_push(&vq, 5, 0), 0);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	ck_assert_uint_eq(drv.used->idx, 3);
	virtqueue_signalled(&vq);
	ck_assert_int_eq(virtqueue_publish(&vq), 0);
}
END_TEST

START_TEST(a_chain_pushed_after_publishing_is_owed_its_own_decision)
{
	start(8, 0);
	push_simple(1);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	offer_simple(5);
	pop_expecting(5);
	ck_assert_int_eq(virtqueue_push(&vq, 5, 0), 0);
	virtqueue_signalled(&vq);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	ck_assert_uint_eq(drv.used->idx, 2);
}
END_TEST

/* Being notified, 2.7.10. */

START_TEST(with_event_idx_a_notification_is_requested_for_the_next_chain)
{
	start(4, EVENT_IDX);
	for (unsigned i = 0; i < 10; i++) {
		ck_assert_int_eq(virtqueue_set_notify(&vq, true), 0);
		ck_assert_uint_eq(*drv.avail_event, state.last_avail_idx);
		ck_assert_uint_eq(drv.used->flags, 0); /* MUST, 2.7.10.2 */
		offer_simple(i % 4);
		ck_assert(
		    fake_driver_would_notify(&drv, true, state.last_avail_idx));
		pop_expecting(i % 4);
		complete(i % 4, 0);
	}
}
END_TEST

START_TEST(with_event_idx_no_notification_is_requested_while_polling)
{
	start(4, EVENT_IDX);
	ck_assert_int_eq(virtqueue_set_notify(&vq, true), 0);
	offer_simple(0);
	pop_expecting(0);
	ck_assert_int_eq(virtqueue_set_notify(&vq, false), 0);
	ck_assert_uint_eq(drv.used->flags, 0);
	offer_simple(1);
	ck_assert(!fake_driver_would_notify(&drv, true, 1));
	pop_expecting(1);
}
END_TEST

START_TEST(with_event_idx_no_batch_is_notified_while_polling)
{
	start(8, EVENT_IDX);
	for (unsigned i = 0; i < 8; i++) {
		offer_simple(i);
		if (i < (unsigned)_i)
			pop_expecting(i);
	}
	/* Of the driver's eight some are taken, and it looks after the last. */
	ck_assert_int_eq(virtqueue_set_notify(&vq, true), _i < 8);
	ck_assert_int_eq(virtqueue_set_notify(&vq, false), 0);
	ck_assert(!fake_driver_would_notify(&drv, true, 0));
}
END_TEST

START_TEST(without_event_idx_a_flag_asks_for_notifications)
{
	start(4, 0);
	ck_assert_int_eq(virtqueue_set_notify(&vq, false), 0);
	ck_assert_uint_eq(drv.used->flags, VRING_USED_F_NO_NOTIFY);
	ck_assert_int_eq(virtqueue_set_notify(&vq, true), 0);
	ck_assert_uint_eq(drv.used->flags, 0);
}
END_TEST

START_TEST(a_chain_that_came_before_notifications_were_on_is_reported)
{
	start(4, _i ? EVENT_IDX : 0);
	virtqueue_set_notify(&vq, false);
	offer_simple(0);
	ck_assert_int_eq(virtqueue_set_notify(&vq, true), 1);
	pop_expecting(0);
	ck_assert_int_eq(virtqueue_set_notify(&vq, true), 0);
}
END_TEST

/* A guest that acts between two instructions of the device. */

static unsigned act_at;
static bool event_idx, driver_saw, driver_notifies;

static void
replace_descriptor(unsigned nth)
{
	if (nth == act_at)
		fake_driver_desc(&drv.desc[0], buf + BUF_LEN, UINT32_MAX,
		    NEXT | WRITE, 65535);
}

static void
lengthen_descriptor(unsigned nth)
{
	if (nth == act_at)
		drv.desc[0].len = BUF_LEN + 1;
}

static void
redirect_descriptor(unsigned nth)
{
	if (nth == act_at)
		drv.desc[0].addr = buf + BUF_LEN - 8;
}

static void
replace_head(unsigned nth)
{
	if (nth == act_at)
		drv.avail->ring[0] = 65535;
}

static void
replace_index(unsigned nth)
{
	if (nth == act_at)
		drv.avail->idx = 40000;
}

static const struct {
	void (*act)(unsigned nth);
	bool avail;
} races[] = {
    {replace_descriptor, false},
    {lengthen_descriptor, false},
    {redirect_descriptor, false},
    {replace_head, true},
    {replace_index, true},
};

START_TEST(whatever_changes_while_a_chain_is_popped_it_stays_in_memory)
{
	uint8_t *at, *memory = fake_guest_at(guest, buf);
	int result;

	start(4, INDIRECT);
	for (act_at = 1; act_at < 20; act_at++) {
		virtqueue_reset(&vq);
		state.desc = drv.desc_gpa;
		state.driver = drv.avail_gpa;
		state.device = drv.used_gpa;
		state.num = 4;
		ck_assert_int_eq(virtqueue_enable(&vq, INDIRECT), 0);
		drv.avail->idx = 0;
		offer_simple(0);
		if (!fake_guest_step(guest,
			races[_i].avail ? drv.avail_gpa : drv.desc_gpa,
			races[_i].act))
			return;
		result = virtqueue_pop(&vq, &chain);
		fake_guest_step(guest,
		    races[_i].avail ? drv.avail_gpa : drv.desc_gpa, NULL);
		ck_assert_int_ne(result, 0);
		if (result < 0)
			continue;
		ck_assert_uint_eq(chain.head, 0);
		ck_assert_uint_eq(state.last_avail_idx, 1);
		ck_assert_uint_eq(state.inflight[0], 1);
		ck_assert_uint_eq(chain.readable + chain.writable, 1);
		at = chain.iov[0].iov_base;
		ck_assert(at >= memory);
		ck_assert_uint_le(chain.iov[0].iov_len, BUF_LEN);
		ck_assert(at + chain.iov[0].iov_len <= memory + BUF_LEN);
	}
}
END_TEST

static void
offer_then(unsigned nth)
{
	if (nth != act_at)
		return;
	offer_simple(1);
	driver_notifies = fake_driver_would_notify(&drv, event_idx, 1);
}

/*
 * A chain that becomes available at any moment is either seen by the device or
 * notified by the driver.
 */
START_TEST(no_chain_is_lost_between_polling_and_notification)
{
	uint64_t page;
	int result;

	event_idx = _i & 1;
	for (act_at = 1; act_at < 6; act_at++) {
		start(4, event_idx ? EVENT_IDX : 0);
		page = _i & 2 ? drv.avail_gpa : drv.used_gpa;
		virtqueue_set_notify(&vq, false);
		offer_simple(0);
		pop_expecting(0);
		driver_notifies = true; /* if the moment never comes */
		if (!fake_guest_step(guest, page, offer_then))
			return;
		result = virtqueue_set_notify(&vq, true);
		fake_guest_step(guest, page, NULL);
		ck_assert(result == 1 || driver_notifies);
	}
}
END_TEST

static void
ask_for_interrupt(unsigned nth)
{
	if (nth != act_at)
		return;
	if (event_idx)
		*drv.used_event = drv.seen;
	else
		drv.avail->flags = 0;
	driver_saw = drv.used->idx != drv.seen;
}

/*
 * Whenever the driver asks for interrupts and then looks: either it sees the
 * chain or it gets the interrupt.
 */
START_TEST(no_interrupt_falls_between_publishing_and_deciding)
{
	uint64_t page;
	int result;

	event_idx = _i & 1;
	for (act_at = 1; act_at < 6; act_at++) {
		start(4, event_idx ? EVENT_IDX : 0);
		page = _i & 2 ? drv.avail_gpa : drv.used_gpa;
		if (event_idx)
			*drv.used_event = 0x8000;
		else
			drv.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
		push_simple(1);
		driver_saw = true; /* if the moment never comes */
		if (!fake_guest_step(guest, page, ask_for_interrupt))
			return;
		result = virtqueue_publish(&vq);
		fake_guest_step(guest, page, NULL);
		ck_assert(result == 1 || driver_saw);
	}
}
END_TEST

static unsigned loads;

static void
count_load(unsigned nth)
{
	loads = nth;
}

START_TEST(every_word_of_a_ring_is_loaded_once)
{
	/* Index and entry; address, length, flags and next. */
	start(4, 0);
	offer_simple(0);
	if (!fake_guest_step(guest, drv.avail_gpa, count_load))
		return;
	pop_expecting(0);
	fake_guest_step(guest, drv.avail_gpa, NULL);
	ck_assert_uint_le(loads, 2);
	offer_simple(1);
	fake_guest_step(guest, drv.desc_gpa, count_load);
	pop_expecting(1);
	fake_guest_step(guest, drv.desc_gpa, NULL);
	ck_assert_uint_le(loads, 4);
}
END_TEST

static unsigned index_stores;

static void
watch_index(unsigned nth)
{
	static uint16_t last;

	if (nth == 1)
		last = 0;
	if (drv.used->idx == last)
		return;
	index_stores++;
	last = drv.used->idx;
	ck_assert_uint_eq(last, 3);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_eq(drv.used->ring[i].id, 2 - i);
		ck_assert_uint_eq(drv.used->ring[i].len, 10 + i);
	}
}

START_TEST(a_batch_appears_with_one_store_of_the_index_after_its_entries)
{
	start(4, 0);
	memset(drv.used->ring, 0xff, 4 * sizeof(drv.used->ring[0]));
	for (unsigned i = 0; i < 3; i++) {
		offer_simple(i);
		pop_expecting(i);
	}
	if (!fake_guest_step(guest, drv.used_gpa, watch_index))
		return;
	for (unsigned i = 0; i < 3; i++)
		virtqueue_push(&vq, 2 - i, 10 + i);
	ck_assert_uint_eq(index_stores, 0);
	virtqueue_publish(&vq);
	fake_guest_step(guest, drv.used_gpa, NULL);
	ck_assert_uint_eq(index_stores, 1);
}
END_TEST

/* Continuing a queue whose process was killed between any two stores. */

static const uint16_t starts[] = {0, 1, 3, 4, 65530, 65533, 65534, 65535};

/*
 * Another process takes over, and finds only the state.
 */
static int
succeed(void)
{
	vq = (struct virtqueue){.guest = guest, .s = &state};
	return virtqueue_adopt(&vq, EVENT_IDX | INDIRECT);
}

static void
succeed_at_rest(uint16_t taken)
{
	unsigned n = 0;

	ck_assert_msg(succeed() == 0, "refused: %s", vq.fault);
	for (unsigned i = 0; i < VIRTQUEUE_NUM_MAX / 64; i++)
		n += __builtin_popcountll(state.inflight[i]);
	ck_assert_uint_eq(n, taken);
	ck_assert_uint_eq((uint16_t)(state.last_avail_idx - state.used_idx), n);
}

static bool
is_inflight(uint16_t head)
{
	return state.inflight[head / 64] >> (head % 64) & 1;
}

/*
 * The chains to be done again are those in 'heads', in rising order.
 */
static void
expect_redone(const uint16_t *heads, unsigned n)
{
	uint16_t avail = drv.avail->idx, last = state.last_avail_idx;

	for (unsigned i = 0; i < n; i++) {
		pop_expecting(heads[i]);
		ck_assert_uint_eq(vq.resubmit_head, heads[i] + 1);
		ck_assert_uint_eq(chain.readable, 1);
		ck_assert_uint_eq(bytes(0, 1), 16);
	}
	/* Were nothing available, there would be none. */
	drv.avail->idx = last;
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
	ck_assert_uint_eq(state.last_avail_idx, last);
	drv.avail->idx = avail;
}

static void
expect_used(uint16_t head)
{
	struct vring_used_elem e;

	ck_assert(fake_driver_take(&drv, &e));
	ck_assert_uint_eq(e.id, head);
}

static void
start_at(uint16_t position)
{
	start(8, EVENT_IDX | INDIRECT);
	jump(position);
	*drv.used_event = position;
}

START_TEST(a_chain_marked_in_flight_and_not_popped_is_still_available)
{
	start_at(starts[_i]);
	offer_simple(5);
	/* The stores of virtqueue_pop() but the last. */
	state.popped_head = 5;
	succeed_at_rest(0);
	state.inflight[0] = 1 << 5;
	succeed_at_rest(0);
	expect_redone(NULL, 0);
	pop_expecting(5);
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
}
END_TEST

START_TEST(the_same_beside_chains_in_flight_concerns_only_that_one)
{
	const uint16_t heads[] = {2, 7};

	start_at(starts[_i]);
	offer_simple(7);
	offer_simple(2);
	offer_simple(5);
	pop_expecting(7);
	pop_expecting(2);
	state.popped_head = 5;
	state.inflight[0] |= 1 << 5;
	succeed_at_rest(2);
	expect_redone(heads, 2);
	pop_expecting(5);
}
END_TEST

START_TEST(popped_chains_are_done_again_and_returned_once)
{
	const uint16_t heads[] = {0, 3, 6};

	start_at(starts[_i]);
	offer_simple(3);
	offer_simple(0);
	offer_simple(6);
	pop_expecting(3);
	pop_expecting(0);
	pop_expecting(6);
	for (unsigned again = 0; again < 3; again++) {
		succeed_at_rest(3);
		expect_redone(heads, 3);
	}
	complete(6, 0);
	complete(3, 0);
	complete(0, 0);
	expect_used(6);
	expect_used(3);
	expect_used(0);
	succeed_at_rest(0);
	expect_redone(NULL, 0);
}
END_TEST

START_TEST(a_chain_whose_used_entry_only_was_stored_is_done_again)
{
	const uint16_t heads[] = {4};

	start_at(starts[_i]);
	offer_simple(4);
	pop_expecting(4);
	drv.used->ring[state.used_idx % 8].id = 4;
	state.pushed[state.used_idx % 8] = 4;
	succeed_at_rest(1);
	expect_redone(heads, 1);
}
END_TEST

START_TEST(a_chain_pushed_but_still_marked_is_not_done_again)
{
	start_at(starts[_i]);
	offer_simple(4);
	offer_simple(1);
	pop_expecting(4);
	pop_expecting(1);
	ck_assert_int_eq(virtqueue_push(&vq, 4, 0), 0);
	ck_assert_int_eq(virtqueue_push(&vq, 1, 0), 0);
	/* What the last store of each would have been. */
	state.inflight[0] |= 1 << 4 | 1 << 1;
	succeed_at_rest(0);
	expect_redone(NULL, 0);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	virtqueue_signalled(&vq);
	expect_used(4);
	expect_used(1);
}
END_TEST

START_TEST(a_chain_that_the_driver_saw_before_we_noted_it_may_come_again)
{
	const uint16_t heads[] = {4};
	uint16_t position = starts[_i];

	start_at(position);
	offer_simple(4);
	pop_expecting(4);
	ck_assert_int_eq(virtqueue_push(&vq, 4, 0), 0);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	/* Killed between the index and the note of it. */
	state.published = position;
	expect_used(4);
	offer_simple(4);
	succeed_at_rest(0);
	expect_redone(NULL, 0);
	/* The successor takes it, and is killed before it has noted more. */
	pop_expecting(4);
	succeed_at_rest(1);
	expect_redone(heads, 1);
	complete(4, 0);
	expect_used(4);
	succeed_at_rest(0);
}
END_TEST

/*
 * An indirect chain is available, of two buffers, and what 'i' names cannot be
 * mapped now: it is at the address that is returned.
 */
static uint64_t
offer_lacking(int i)
{
	fake_driver_desc(&table()[0], buf, 16, NEXT, 1);
	fake_driver_desc(&table()[1], buf + 8 * FAKE_GUEST_PAGE, 512, WRITE, 0);
	fake_driver_desc(&drv.desc[2], tables, 32, TABLE, 0);
	fake_driver_offer(&drv, 2);
	fake_guest_shortage(guest, i < 6 ? ENOMEM : ENOBUFS);
	return (const uint64_t[]){drv.avail_gpa, drv.desc_gpa, drv.used_gpa,
	    tables, buf, buf + 8 * FAKE_GUEST_PAGE}[i % 6];
}

START_TEST(what_cannot_be_mapped_now_leaves_a_chain_to_be_taken_later)
{
	struct virtqueue_state before;
	uint64_t gpa;

	start(4, INDIRECT);
	gpa = offer_lacking(_i);
	fake_guest_hole(guest, gpa, 1);
	before = state;
	ck_assert_int_eq(virtqueue_pop(&vq, &chain), VIRTQUEUE_AGAIN);
	ck_assert_mem_eq(&state, &before, sizeof(state));
	fake_guest_fill(guest, gpa, 1);
	pop_expecting(2);
	ck_assert_uint_eq(chain.readable, 1);
	ck_assert_uint_eq(chain.writable, 1);
	/* In flight, and another process takes over. */
	fake_guest_hole(guest, gpa, 1);
	succeed_at_rest(1);
	if (_i % 6 != 0) {
		ck_assert_int_eq(virtqueue_pop(&vq, &chain), VIRTQUEUE_AGAIN);
		fake_guest_fill(guest, gpa, 1);
		pop_expecting(2);
	}
	fake_guest_fill(guest, gpa, 1);
	ck_assert_int_eq(virtqueue_push(&vq, 2, 512), 0);
	fake_guest_hole(guest, drv.avail_gpa, 1);
	ck_assert_int_eq(virtqueue_set_notify(&vq, true), VIRTQUEUE_AGAIN);
	ck_assert_int_eq(virtqueue_publish(&vq), VIRTQUEUE_AGAIN);
	ck_assert_uint_eq(drv.used->idx, 0);
	fake_guest_fill(guest, drv.avail_gpa, 1);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
}
END_TEST

START_TEST(an_interrupt_not_noted_is_decided_again_the_same_way)
{
	bool wanted = _i % 2 == 0;

	start_at(starts[_i / 2]);
	offer_simple(2);
	pop_expecting(2);
	*drv.used_event = state.used_idx - !wanted;
	ck_assert_int_eq(virtqueue_push(&vq, 2, 0), 0);
	for (unsigned again = 0; again < 3; again++) {
		ck_assert_int_eq(virtqueue_publish(&vq), wanted);
		succeed_at_rest(0);
	}
	virtqueue_signalled(&vq);
	succeed_at_rest(0);
	ck_assert_int_eq(virtqueue_publish(&vq), 0);
}
END_TEST

START_TEST(a_successor_asks_for_notifications_again)
{
	start_at(starts[_i]);
	ck_assert_int_eq(virtqueue_set_notify(&vq, true), 0);
	offer_simple(1);
	pop_expecting(1);
	/* Killed before it enabled notifications again, with no more chains. */
	succeed_at_rest(1);
	ck_assert_int_eq(virtqueue_set_notify(&vq, true), 0);
	ck_assert(fake_driver_would_notify(&drv, true, state.last_avail_idx) ||
		  *drv.avail_event == state.last_avail_idx);
	offer_simple(2);
	ck_assert(fake_driver_would_notify(
	    &drv, true, (uint16_t)(drv.avail->idx - 1)));
}
END_TEST

START_TEST(a_full_queue_is_continued)
{
	uint16_t heads[8];

	start_at(starts[_i]);
	for (unsigned i = 0; i < 8; i++) {
		offer_simple(i);
		pop_expecting(i);
		heads[i] = i;
	}
	succeed_at_rest(8);
	expect_redone(heads, 8);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(virtqueue_push(&vq, i, 0), 0);
	succeed_at_rest(0);
	ck_assert_int_eq(virtqueue_publish(&vq), 1);
	for (unsigned i = 0; i < 8; i++)
		expect_used(i);
}
END_TEST

START_TEST(a_chain_that_became_bad_meanwhile_is_a_fault)
{
	start_at(0);
	offer_simple(3);
	pop_expecting(3);
	fake_driver_desc(&drv.desc[3], buf, 16, NEXT, 3);
	succeed_at_rest(1);
	expect_fault(virtqueue_pop(&vq, &chain));
}
END_TEST

/* What no queue of ours can have left; 'two' heads are in flight before. */
static void
nonsense(unsigned what)
{
	switch (what) {
	case 0:
		state.num = 0;
		break;
	case 1:
		state.num = 6;
		break;
	case 2:
		state.num = 2 * VIRTQUEUE_NUM_MAX;
		break;
	case 3:
		state.num = UINT32_MAX;
		break;
	case 4:
		state.last_avail_idx = state.used_idx + 9;
		break;
	case 5:
		state.last_avail_idx = state.used_idx - 1;
		break;
	case 6:
		state.published = state.used_idx - 9;
		break;
	case 7:
		state.published = state.used_idx + 1;
		break;
	case 8:
		state.popped_head = 8;
		break;
	case 9:
		state.popped_head = UINT16_MAX;
		break;
	case 10: /* one too few */
		state.inflight[0] &= state.inflight[0] - 1;
		break;
	case 11: /* one too many, and it is not the one being popped */
		state.popped_head = 7;
		state.inflight[0] |= 1 << 6;
		break;
	case 12: /* two too many */
		state.inflight[0] |= 1 << 6 | 1 << 7;
		break;
	case 13: /* beyond the ring */
		state.inflight[0] = 1 << 1;
		state.inflight[3] = UINT64_C(1) << 63;
		break;
	case 14:
		state.published = state.used_idx - 1;
		state.pushed[state.published % 8] = 8;
		break;
	case 15:
		state.published = state.used_idx - 1;
		state.pushed[state.published % 8] = UINT16_MAX;
		break;
	}
}

START_TEST(a_state_that_makes_no_sense_is_refused)
{
	start_at(starts[_i % 8]);
	offer_simple(1);
	offer_simple(2);
	pop_expecting(1);
	pop_expecting(2);
	nonsense(_i / 8);
	expect_fault(succeed());
}
END_TEST

START_TEST(continuing_takes_back_nothing_that_is_in_flight)
{
	start_at(starts[_i]);
	offer_simple(1);
	pop_expecting(1);
	succeed_at_rest(1);
	ck_assert(is_inflight(1));
	expect_redone((const uint16_t[]){1}, 1);
	offer_simple(1);
	expect_nothing_popped("a chain in flight");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("virtqueue");
	TCase *tc;

	tc = cases_add(s, "enable", setup, teardown);
	tcase_add_test(tc, a_reset_queue_is_not_ready_and_has_the_largest_size);
	tcase_add_loop_test(tc,
	    a_queue_of_any_power_of_two_works_to_its_last_descriptor, 0,
	    COUNT(good_sizes));
	tcase_add_loop_test(tc, a_queue_size_that_was_not_offered_is_a_fault, 0,
	    COUNT(bad_sizes));
	tcase_add_test(tc, a_misaligned_ring_is_a_fault);
	tcase_add_test(tc, a_ring_aligned_as_little_as_allowed_is_taken);
	tcase_add_test(tc, a_ring_in_a_hole_is_a_fault);
	tcase_add_loop_test(tc,
	    what_cannot_be_mapped_now_leaves_a_chain_to_be_taken_later, 0, 12);
	tcase_add_loop_test(tc,
	    a_ring_that_cannot_be_mapped_now_is_judged_when_it_is_used, 0, 3);
	tcase_add_test(tc,
	    only_the_last_writable_byte_of_a_chain_is_looked_up_if_so_wished);
	tcase_add_test(tc, a_ring_that_reaches_into_a_hole_is_a_fault);
	tcase_add_test(tc, a_queue_enabled_again_starts_from_zero);

	tc = cases_add(s, "pop", setup, teardown);
	tcase_add_loop_test(tc, a_malformed_chain_is_a_fault_and_not_taken, 0,
	    COUNT(bad_shapes));
	tcase_add_loop_test(
	    tc, a_well_formed_chain_is_taken_whole, 0, COUNT(good_shapes));
	tcase_add_test(tc, buffers_come_in_the_order_of_the_chain);
	tcase_add_test(tc, buffers_that_touch_become_one_iovec);
	tcase_add_test(tc, buffers_that_overlap_or_run_backwards_stay_apart);
	tcase_add_loop_test(
	    tc, an_indirect_table_may_be_as_long_as_the_largest_queue, 2, 3);
	tcase_add_loop_test(tc,
	    an_indirect_table_may_be_as_long_as_the_largest_queue,
	    VIRTQUEUE_NUM_MAX, VIRTQUEUE_NUM_MAX + 1);
	tcase_add_test(
	    tc, a_chain_of_more_buffers_than_the_largest_queue_is_a_fault);
	tcase_add_test(tc, an_available_head_beyond_the_ring_is_a_fault);
	tcase_add_test(tc, an_available_index_that_jumps_is_a_fault);
	tcase_add_test(tc, an_available_index_that_goes_back_is_a_fault);
	tcase_add_test(tc, a_chain_made_available_again_in_flight_is_a_fault);
	tcase_add_test(tc, a_chain_made_available_twice_at_once_is_a_fault);
	tcase_add_test(tc, a_chain_that_was_returned_may_come_again);
	tcase_add_test(tc, chains_may_be_returned_in_any_order);
	tcase_add_loop_test(
	    tc, a_ring_that_goes_away_is_a_fault_not_a_crash, 0, 4);
	tcase_add_test(
	    tc, a_descriptor_table_that_goes_away_is_a_fault_not_a_crash);
	tcase_add_loop_test(tc, positions_go_on_past_65535, 0, 2);

	tc = cases_add(s, "publish", setup, teardown);
	tcase_add_test(tc, a_pushed_chain_is_not_seen_before_it_is_published);
	tcase_add_loop_test(tc, nothing_pushed_needs_no_interrupt, 0, 2);
	tcase_add_test(tc, without_event_idx_the_driver_can_refuse_interrupts);
	tcase_add_test(
	    tc, with_event_idx_the_flag_that_refuses_interrupts_is_ignored);
	tcase_add_loop_test(tc,
	    with_event_idx_an_interrupt_comes_when_used_event_is_passed, 0, 8);
	tcase_add_test(
	    tc, the_decision_to_interrupt_repeats_until_it_was_carried_out);
	tcase_add_test(
	    tc, a_chain_pushed_after_publishing_is_owed_its_own_decision);

	tc = cases_add(s, "notify", setup, teardown);
	tcase_add_test(
	    tc, with_event_idx_a_notification_is_requested_for_the_next_chain);
	tcase_add_test(
	    tc, with_event_idx_no_notification_is_requested_while_polling);
	tcase_add_loop_test(
	    tc, with_event_idx_no_batch_is_notified_while_polling, 0, 9);
	tcase_add_test(tc, without_event_idx_a_flag_asks_for_notifications);
	tcase_add_loop_test(tc,
	    a_chain_that_came_before_notifications_were_on_is_reported, 0, 2);

	tc = cases_add(s, "races", setup, teardown);
	tcase_add_loop_test(tc,
	    whatever_changes_while_a_chain_is_popped_it_stays_in_memory, 0,
	    COUNT(races));
	tcase_add_test(tc, every_word_of_a_ring_is_loaded_once);
	tcase_add_loop_test(
	    tc, no_chain_is_lost_between_polling_and_notification, 0, 4);
	tcase_add_loop_test(
	    tc, no_interrupt_falls_between_publishing_and_deciding, 0, 4);
	tcase_add_test(
	    tc, a_batch_appears_with_one_store_of_the_index_after_its_entries);

	tc = cases_add(s, "continuing", setup, teardown);
	tcase_add_loop_test(tc,
	    a_chain_marked_in_flight_and_not_popped_is_still_available, 0,
	    COUNT(starts));
	tcase_add_loop_test(tc,
	    the_same_beside_chains_in_flight_concerns_only_that_one, 0,
	    COUNT(starts));
	tcase_add_loop_test(tc, popped_chains_are_done_again_and_returned_once,
	    0, COUNT(starts));
	tcase_add_loop_test(tc,
	    a_chain_whose_used_entry_only_was_stored_is_done_again, 0,
	    COUNT(starts));
	tcase_add_loop_test(tc,
	    a_chain_pushed_but_still_marked_is_not_done_again, 0,
	    COUNT(starts));
	tcase_add_loop_test(tc,
	    a_chain_that_the_driver_saw_before_we_noted_it_may_come_again, 0,
	    COUNT(starts));
	tcase_add_loop_test(tc,
	    an_interrupt_not_noted_is_decided_again_the_same_way, 0,
	    2 * COUNT(starts));
	tcase_add_loop_test(
	    tc, a_successor_asks_for_notifications_again, 0, COUNT(starts));
	tcase_add_loop_test(tc, a_full_queue_is_continued, 0, COUNT(starts));
	tcase_add_test(tc, a_chain_that_became_bad_meanwhile_is_a_fault);
	tcase_add_loop_test(
	    tc, a_state_that_makes_no_sense_is_refused, 0, 16 * COUNT(starts));
	tcase_add_loop_test(tc, continuing_takes_back_nothing_that_is_in_flight,
	    0, COUNT(starts));
	return cases_run(s);
}
