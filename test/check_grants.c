/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device that touches only what the guest has granted: the shipped objects but
 * for vdisk.o, on the fake host, with a driver that lends memory as Linux does;
 * and what a guest can do wrong with that.  Whatever holds with and without
 * grants is in check_device.c.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include <xen/grant_table.h>

#include "cases.h"
#include "disk.h"
#include "fake_xen.h"
#include "stack.h"

#define MIB	     (1ULL << 20)
#define RAM	     (8 * MIB)
#define DISK	     (4 * MIB)
#define PAGE	     FAKE_XEN_PAGE

#define FEATURE(bit) (1ULL << (bit))
#define WANTED                                                                 \
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_EVENT_IDX) |      \
	    FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_DISCARD) |      \
	    FEATURE(VIRTIO_BLK_F_WRITE_ZEROES))
#define GRANT(ref) (1ULL << 63 | (uint64_t)(ref)*PAGE)

/* A reference that nobody was lent. */
#define BOGUS 5000

static void
setup_with(unsigned flags, bool with_grants)
{
	stack_open(&(struct stack_config){.vcpus = 1,
	    .low = RAM,
	    .disk = DISK,
	    .flags = flags,
	    .grants = with_grants});
}

static void
setup(void)
{
	setup_with(0, true);
}

static void
setup_direct(void)
{
	setup_with(DISK_DIRECT, true);
}

static void
setup_without(void)
{
	setup_with(0, false);
}

static void
start(void)
{
	driver_start(&drv, WANTED, 64);
}

static uint8_t
io_at(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len)
{
	return driver_io(&drv, type, sector, gpa, len);
}

/* Whether the disk still works, and the driver was told of no fault. */
static void
assert_works(void)
{
	uint64_t gpa = driver_pattern(&drv, 2 * PAGE, 77);

	ck_assert_uint_eq(
	    io_at(VIRTIO_BLK_T_OUT, 100, gpa, 2 * PAGE), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 100, gpa, 2 * PAGE));
}

/* The device wants a reset, has said 'why', and works after that. */
static void
assert_fault(const char *why)
{
	driver_patience(&drv);
	while (!(driver_read(&drv, VIRTIO_MMIO_STATUS) &
		 VIRTIO_CONFIG_S_NEEDS_RESET))
		driver_wait(&drv);
	ck_assert_msg(
	    strstr(logger.last, why) != NULL, "it said: %s", logger.last);
	driver_reset(&drv);
	ck_assert_uint_eq(fake_xen_grants_mapped(), 0);
	start();
	assert_works();
}

/* Buffer 'n' of the chain. */
static struct vring_desc *
desc(int head, unsigned n)
{
	struct vring_desc *d = driver_desc(&drv, head);

	while (n-- > 0)
		d = driver_desc(&drv, d->next);
	return d;
}

static uint32_t
ref_of(const struct vring_desc *d)
{
	return d->addr / PAGE;
}

START_TEST(it_is_offered_and_required)
{
	const uint64_t both =
	    FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_ACCESS_PLATFORM);

	ck_assert(driver_negotiate(&drv, WANTED));
	ck_assert_uint_eq(drv.features & both, both);
	/* Their tables would be copied one by one. */
	ck_assert_uint_eq(
	    drv.offered & FEATURE(VIRTIO_RING_F_INDIRECT_DESC), 0);
	drv.grants = false;
	ck_assert(!driver_negotiate(&drv, WANTED));
	ck_assert(!driver_negotiate(&drv, FEATURE(VIRTIO_F_ACCESS_PLATFORM)));
	ck_assert(driver_negotiate(&drv, both));
}
END_TEST

START_TEST(a_handle_of_before_the_restriction_is_useless)
{
	struct grants *early = grant_new(&logger.logger, DOMID);
	uint32_t ref = fake_xen_grant(FAKE_XEN_LOW, 1, false);
	struct iovec iov = {(void *)GRANT(ref), 1};
	char c;

	ck_assert_int_ge(grant_open(early), 0);
	ck_assert(guest_copy(early, &iov, &c, 1, false, NULL));
	ck_assert_int_eq(xentoolcore_restrict_all(DOMID), 0);
	ck_assert(!guest_copy(early, &iov, &c, 1, false, NULL));
	ck_assert_ptr_null(grant_map(early, GRANT(ref), 1));
}
END_TEST

START_TEST(without_gntdev_there_is_an_error)
{
	fake_xen_fail(XC_GNTTAB_OPEN, 1, ENOENT);
	ck_assert_ptr_null(grant_new(&logger.logger, DOMID));
	ck_assert_ptr_nonnull(strstr(logger.last, "xen-gntdev"));
}
END_TEST

START_TEST(the_rings_are_mapped_and_nothing_else)
{
	start();
	assert_works();
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), 0);
	ck_assert_uint_eq(fake_xen_grants_mapped(), 3);
	ck_assert_uint_eq(fake_xen_calls(XC_GRANT_MAP), 3);
	ck_assert_uint_eq(fake_xen_mapped(0), 3);
	/* Before that is answered, as driver_reset() makes sure, too. */
	driver_write(&drv, VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(fake_xen_grants_mapped(), 0);
	driver_reset(&drv);
	start();
	ck_assert_uint_eq(fake_xen_grants_mapped(), 3);
	driver_reset(&drv);
	ck_assert_uint_eq(fake_xen_grants_mapped(), 0);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(small_rings_may_share_a_page)
{
	uint64_t page, gpa;

	driver_probe(&drv);
	ck_assert(driver_negotiate(&drv, WANTED));
	driver_queue(&drv, 4);
	driver_reset(&drv);
	page = driver_alloc(&drv, PAGE, PAGE);
	drv.desc = page;
	drv.avail = page + 64;
	drv.used = page + 128;
	ck_assert(driver_negotiate(&drv, WANTED));
	gpa = driver_lend(&drv, DRIVER_RINGS, page, PAGE, true);
	driver_write(&drv, VIRTIO_MMIO_QUEUE_NUM, 4);
	for (unsigned i = 0; i < 3; i++) {
		uint32_t low = VIRTIO_MMIO_QUEUE_DESC_LOW + 0x10 * i;

		driver_write(&drv, low, gpa + 64 * i);
		driver_write(&drv, low + 4, gpa >> 32);
	}
	driver_write(&drv, VIRTIO_MMIO_QUEUE_READY, 1);
	driver_ok(&drv);
	assert_works();
	ck_assert_uint_eq(fake_xen_grants_mapped(), 1);
	driver_reset(&drv);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(a_read_costs_two_calls_and_a_write_three)
{
	uint64_t gpa = driver_pattern(&drv, 256 << 10, 1);
	unsigned calls;

	start();
	calls = fake_xen_calls(XC_GRANT_COPY);
	ck_assert_uint_eq(
	    io_at(VIRTIO_BLK_T_IN, 0, gpa, 4096), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(fake_xen_calls(XC_GRANT_COPY) - calls, 2);
	calls = fake_xen_calls(XC_GRANT_COPY);
	ck_assert_uint_eq(
	    io_at(VIRTIO_BLK_T_IN, 0, gpa, 256 << 10), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(fake_xen_calls(XC_GRANT_COPY) - calls, 2);
	calls = fake_xen_calls(XC_GRANT_COPY);
	ck_assert_uint_eq(
	    io_at(VIRTIO_BLK_T_OUT, 0, gpa, 256 << 10), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(fake_xen_calls(XC_GRANT_COPY) - calls, 3);
}
END_TEST

START_TEST(data_of_any_size_and_place_are_right)
{
	static const uint32_t lens[] = {512, 4096, 8192, 65536, 2 << 20};
	static const uint32_t shifts[] = {0, 1, 512, 4095};

	start();
	for (unsigned i = 0; i < 20; i++) {
		uint32_t len = lens[i / 4], shift = shifts[i % 4];
		uint64_t heap = drv.heap, out, in;

		out = driver_alloc(&drv, PAGE, PAGE) + shift;
		driver_alloc(&drv, len, 1);
		for (uint32_t k = 0; k < len; k++)
			((uint8_t *)fake_xen_ram(out))[k] = k * 7 + i + k / 251;
		in = driver_alloc(&drv, PAGE, PAGE) + PAGE - 1 - shift;
		driver_alloc(&drv, len, 1);
		drv.piece = i % 3 == 2 ? len / 31 + 1 : 0;
		ck_assert_uint_eq(
		    io_at(VIRTIO_BLK_T_OUT, 2 * i, out, len), VIRTIO_BLK_S_OK);
		ck_assert(driver_in_file(file, 2 * i, out, len));
		ck_assert_uint_eq(
		    io_at(VIRTIO_BLK_T_IN, 2 * i, in, len), VIRTIO_BLK_S_OK);
		ck_assert_mem_eq(fake_xen_ram(in), fake_xen_ram(out), len);
		drv.heap = heap;
	}
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(zeroes_that_must_be_written_are)
{
	struct virtio_blk_discard_write_zeroes *range;
	uint64_t gpa = driver_pattern(&drv, 64 << 10, 5), at;

	start();
	ck_assert_uint_eq(
	    io_at(VIRTIO_BLK_T_OUT, 8, gpa, 64 << 10), VIRTIO_BLK_S_OK);
	memset(fake_xen_ram(gpa + 1024), 0, 20 << 10);
	at = driver_alloc(&drv, sizeof(*range), 16);
	range = fake_xen_ram(at);
	*range = (struct virtio_blk_discard_write_zeroes){
	    .sector = 10, .num_sectors = 40};
	ck_assert_uint_eq(
	    io_at(VIRTIO_BLK_T_WRITE_ZEROES, 0, at, sizeof(*range)),
	    VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 8, gpa, 64 << 10));
}
END_TEST

/* What can be wrong with a grant by the time that it is used. */
static const char *const wrongs[] = {
    "bogus", "taken back", "another domain's", "read-only"};

static void
spoil(struct vring_desc *d, unsigned how)
{
	if (how == 0)
		d->addr = GRANT(BOGUS);
	else if (how == 1)
		ck_assert(fake_xen_ungrant(ref_of(d), 1));
	else if (how == 2)
		fake_xen_grant_elsewhere(ref_of(d));
	else
		d->addr = GRANT(fake_xen_grant(FAKE_XEN_LOW, 1, true));
}

/* What was lent, and is not any more, need not be taken back. */
static void
forget_lent(int head)
{
	for (unsigned i = 0; i < DRIVER_LENT_MAX; i++)
		if (drv.lent[i].owner == head)
			drv.lent[i].n = 0;
}

/* Have a request completed of which one descriptor is wrong. */
static void
serve_spoiled(int head, unsigned descriptor, unsigned how)
{
	spoil(desc(head, descriptor), how);
	forget_lent(head);
	driver_kick(&drv);
	driver_drain(&drv);
}

START_TEST(data_that_cannot_be_written_to_fail)
{
	uint64_t gpa = driver_pattern(&drv, PAGE, 2);
	uint8_t before[PAGE];
	int head;

	start();
	memcpy(before, fake_xen_ram(gpa), PAGE);
	head = driver_request(&drv, VIRTIO_BLK_T_IN, 0, gpa, PAGE);
	serve_spoiled(head, 1, _i);
	ck_assert_msg(driver_status(&drv, head) == VIRTIO_BLK_S_IOERR,
	    "%s: status %u", wrongs[_i], driver_status(&drv, head));
	ck_assert_uint_eq(drv.written[head], 0);
	ck_assert_mem_eq(fake_xen_ram(gpa), before, PAGE);
	ck_assert_ptr_nonnull(strstr(logger.last, "Bad address"));
	ck_assert_uint_eq(logger.lines, 1);
	assert_works();
}
END_TEST

START_TEST(data_that_cannot_be_read_fail_and_nothing_is_written)
{
	uint64_t gpa = driver_pattern(&drv, PAGE, 2);
	static const uint8_t zeros[PAGE];
	uint8_t after[PAGE];
	int head;

	start();
	head = driver_request(&drv, VIRTIO_BLK_T_OUT, 0, gpa, PAGE);
	serve_spoiled(head, 1, _i);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(drv.written[head], 1);
	ck_assert_int_eq(pread(file, after, PAGE, 0), PAGE);
	ck_assert_mem_eq(after, zeros, PAGE);
	assert_works();
}
END_TEST

START_TEST(a_header_that_cannot_be_read_fails)
{
	uint64_t gpa = driver_pattern(&drv, PAGE, 2);
	int head;

	start();
	head = driver_request(&drv, VIRTIO_BLK_T_OUT, 0, gpa, PAGE);
	serve_spoiled(head, 0, _i);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_IOERR);
	assert_works();
}
END_TEST

START_TEST(ranges_that_cannot_be_read_fail)
{
	uint64_t gpa = driver_alloc(&drv, 16, 16);
	struct virtio_blk_discard_write_zeroes *range = fake_xen_ram(gpa);
	uint64_t data = driver_pattern(&drv, PAGE, 3);
	int head;

	start();
	ck_assert_uint_eq(
	    io_at(VIRTIO_BLK_T_OUT, 0, data, PAGE), VIRTIO_BLK_S_OK);
	*range = (struct virtio_blk_discard_write_zeroes){.num_sectors = 8};
	head = driver_request(
	    &drv, VIRTIO_BLK_T_WRITE_ZEROES, 0, gpa, sizeof(*range));
	serve_spoiled(head, 1, _i);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_IOERR);
	ck_assert(driver_in_file(file, 0, data, PAGE));
	assert_works();
}
END_TEST

START_TEST(a_serial_that_cannot_be_written_fails)
{
	uint64_t gpa = driver_pattern(&drv, 20, 2);
	int head;

	start();
	head = driver_request(&drv, VIRTIO_BLK_T_GET_ID, 0, gpa, 20);
	serve_spoiled(head, 1, _i);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(drv.written[head], 0);
	assert_works();
}
END_TEST

/* The driver gets the chain back, of which nothing is said to be written. */
START_TEST(without_a_status_nothing_was_written)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
	    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_FLUSH};
	uint64_t gpa = driver_pattern(&drv, PAGE, 2);
	uint32_t type = types[_i / 4];
	int head;

	start();
	head = driver_request(&drv, type, 0, gpa,
	    type == VIRTIO_BLK_T_FLUSH	  ? 0
	    : type == VIRTIO_BLK_T_GET_ID ? 20
					  : PAGE);
	serve_spoiled(head, type == VIRTIO_BLK_T_FLUSH ? 1 : 2, _i % 4);
	ck_assert_uint_eq(driver_status(&drv, head), 0xff);
	ck_assert_uint_eq(drv.written[head], 0);
	assert_works();
}
END_TEST

START_TEST(a_part_of_the_data_that_fails_is_all_of_it)
{
	uint64_t gpa = driver_pattern(&drv, 256 << 10, 2);
	int head;

	start();
	head = driver_request(&drv, VIRTIO_BLK_T_IN, 0, gpa, 256 << 10);
	ck_assert(fake_xen_ungrant(ref_of(desc(head, 1)) + 40, 1));
	forget_lent(head);
	driver_kick(&drv);
	driver_drain(&drv);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(drv.written[head], 0);
	assert_works();
}
END_TEST

/* No references: with bits that none have, or so many that they go beyond. */
static const struct {
	uint64_t addr;
	uint32_t len;
} odd[] = {
    {GRANT(1ULL << 32), 512},
    {GRANT(1ULL << 50), 512},
    {UINT64_MAX - 511, 512},
    {GRANT(UINT32_MAX), PAGE + 1},
    {GRANT(UINT32_MAX) + PAGE - 1, 2},
};

START_TEST(what_is_no_reference_is_a_fault)
{
	uint64_t gpa = driver_pattern(&drv, 8192, 2);
	int head;

	start();
	head = driver_request(&drv, VIRTIO_BLK_T_IN, 0, gpa, 8192);
	desc(head, 1)->addr = odd[_i].addr;
	desc(head, 1)->len = odd[_i].len;
	driver_kick(&drv);
	assert_fault("CONFIG_XEN_VIRTIO");
}
END_TEST

START_TEST(the_last_reference_is_one_like_any)
{
	uint64_t gpa = driver_pattern(&drv, PAGE, 2);
	int head;

	start();
	head = driver_request(&drv, VIRTIO_BLK_T_IN, 0, gpa, PAGE);
	desc(head, 1)->addr = GRANT(UINT32_MAX);
	driver_kick(&drv);
	driver_drain(&drv);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_IOERR);
	assert_works();
}
END_TEST

START_TEST(a_plain_address_says_what_the_kernel_lacks)
{
	uint64_t gpa = driver_pattern(&drv, PAGE, 2);
	int head;

	start();
	head = driver_request(&drv, VIRTIO_BLK_T_IN, 0, gpa, PAGE);
	desc(head, _i)->addr = gpa;
	driver_kick(&drv);
	assert_fault("CONFIG_XEN_VIRTIO");
}
END_TEST

static void
place(uint32_t low, uint64_t addr)
{
	driver_write(&drv, low, addr);
	driver_write(&drv, low + 4, addr >> 32);
}

/* Of the three rings number 'n' is elsewhere; the others are as they must be. */
static void
start_with_ring(unsigned n, uint64_t addr, bool ready)
{
	driver_probe(&drv);
	ck_assert(driver_negotiate(&drv, WANTED));
	driver_write(&drv, VIRTIO_MMIO_QUEUE_NUM, 64);
	for (unsigned i = 0; i < 3; i++)
		place(VIRTIO_MMIO_QUEUE_DESC_LOW + 0x10 * i,
		    i == n ? addr
			   : driver_lend(&drv, DRIVER_RINGS,
				 driver_alloc(&drv, PAGE, PAGE), PAGE, true));
	driver_write(&drv, VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_QUEUE_READY), ready);
	driver_ok(&drv);
}

START_TEST(a_ring_with_a_plain_address_says_what_the_kernel_lacks)
{
	start_with_ring(_i, driver_alloc(&drv, PAGE, PAGE), false);
	assert_fault("CONFIG_XEN_VIRTIO");
}
END_TEST

START_TEST(a_ring_that_is_not_granted_is_a_fault)
{
	struct vring_desc d = {.addr = 0};

	d.addr = driver_lend(&drv, DRIVER_ALL, FAKE_XEN_LOW, 1, true);
	spoil(&d, _i % 3);
	forget_lent(DRIVER_ALL);
	start_with_ring(_i / 3, d.addr, false);
	assert_fault("CONFIG_XEN_VIRTIO");
	/* A guest can do that as often as it likes. */
	for (unsigned i = 0; i < 50; i++) {
		driver_reset(&drv);
		start_with_ring(_i / 3, d.addr, false);
	}
	ck_assert_uint_le(logger.lines, 3);
	driver_reset(&drv);
}
END_TEST

START_TEST(a_ring_that_is_no_reference_is_a_fault)
{
	start_with_ring(_i % 3, odd[_i / 3].addr & -16, false);
	assert_fault("CONFIG_XEN_VIRTIO");
}
END_TEST

/* Xen keeps what is mapped, so this guest only harms itself. */
START_TEST(a_ring_taken_back_while_it_is_mapped_goes_on)
{
	start();
	for (unsigned i = 0; i < DRIVER_LENT_MAX; i++)
		if (drv.lent[i].n != 0)
			ck_assert(!fake_xen_ungrant(drv.lent[i].ref, 1));
	assert_works();
	driver_reset(&drv);
}
END_TEST

/* gntdev has no memory, or Xen no room for another mapping. */
START_TEST(a_host_that_cannot_map_a_ring_is_asked_again)
{
	static const int errors[] = {ENOMEM, EINVAL};

	fake_xen_fail(XC_GRANT_MAP, 1 + _i / 2, errors[_i % 2]);
	start();
	assert_works();
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

/* From that it cannot be told, so the guest waits until it resets the device. */
START_TEST(a_ring_granted_for_reading_only_is_waited_for)
{
	struct vring_desc d = {.addr = 0};
	int64_t from;

	d.addr = driver_lend(&drv, DRIVER_ALL, FAKE_XEN_LOW, 1, true);
	spoil(&d, 3);
	forget_lent(DRIVER_ALL);
	from = milliseconds();
	start_with_ring(_i, d.addr, true);
	usleep(100000);
	ck_assert_uint_eq(
	    driver_read(&drv, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET,
	    0);
	/* Every 5 ms, and for what the driver does. */
	ck_assert_int_le(
	    fake_xen_calls(XC_GRANT_MAP), (milliseconds() - from) / 5 + 8);
	ck_assert_uint_eq(logger.lines, 0);
	driver_reset(&drv);
	start();
	assert_works();
}
END_TEST

START_TEST(a_copy_that_cannot_be_made_now_is_made_later)
{
	uint64_t gpa = driver_pattern(&drv, PAGE, 9), in;

	start();
	in = driver_alloc(&drv, PAGE, 1);
	for (unsigned nth = 1; nth <= 3; nth++) {
		fake_xen_fail(XC_GRANT_COPY, nth, ENOMEM);
		ck_assert_uint_eq(
		    io_at(VIRTIO_BLK_T_OUT, 0, gpa, PAGE), VIRTIO_BLK_S_OK);
		ck_assert(driver_in_file(file, 0, gpa, PAGE));
		fake_xen_fail_segment(nth, GNTST_eagain);
		ck_assert_uint_eq(
		    io_at(VIRTIO_BLK_T_IN, 0, in, PAGE), VIRTIO_BLK_S_OK);
		ck_assert_mem_eq(fake_xen_ram(in), fake_xen_ram(gpa), PAGE);
	}
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(a_guest_that_is_gone_is_no_harm)
{
	uint64_t gpa = driver_pattern(&drv, PAGE, 9);

	start();
	driver_request(&drv, VIRTIO_BLK_T_IN, 0, gpa, PAGE);
	fake_xen_set_life(FAKE_XEN_DYING);
	for (unsigned i = 0; i < 100; i++)
		device_process_queue(dev, false);
	fake_xen_set_life(FAKE_XEN_DEAD);
	for (unsigned i = 0; i < 100; i++)
		device_process_queue(dev, false);
	ck_assert_uint_le(logger.lines, 2);
}
END_TEST

START_TEST(without_grants_such_addresses_are_no_memory)
{
	uint64_t gpa = driver_pattern(&drv, PAGE, 9);
	uint32_t ref = fake_xen_grant(gpa, 1, false);
	int head;

	start();
	ck_assert_uint_eq(drv.offered & FEATURE(VIRTIO_F_ACCESS_PLATFORM), 0);
	head = driver_request(&drv, VIRTIO_BLK_T_IN, 0, gpa, PAGE);
	desc(head, _i)->addr = GRANT(ref);
	driver_kick(&drv);
	assert_fault("buffer not in guest memory");
	ck_assert_uint_eq(fake_xen_calls(XC_GRANT_MAP), 0);
	ck_assert_uint_eq(fake_xen_calls(XC_GRANT_COPY), 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("grants");
	TCase *tc = cases_add(s, "grants", setup, NULL);

#define ONCE(test)     tcase_add_test(tc, test)
#define TIMES(n, test) tcase_add_loop_test(tc, test, 0, n)
	ONCE(it_is_offered_and_required);
	ONCE(a_handle_of_before_the_restriction_is_useless);
	ONCE(without_gntdev_there_is_an_error);
	ONCE(the_rings_are_mapped_and_nothing_else);
	ONCE(small_rings_may_share_a_page);
	ONCE(a_read_costs_two_calls_and_a_write_three);
	ONCE(data_of_any_size_and_place_are_right);
	ONCE(zeroes_that_must_be_written_are);
	TIMES(COUNT(wrongs), data_that_cannot_be_written_to_fail);
	/* To be read, a grant may be read-only. */
	TIMES(COUNT(wrongs) - 1,
	    data_that_cannot_be_read_fail_and_nothing_is_written);
	TIMES(COUNT(wrongs) - 1, a_header_that_cannot_be_read_fails);
	TIMES(COUNT(wrongs) - 1, ranges_that_cannot_be_read_fail);
	TIMES(COUNT(wrongs), a_serial_that_cannot_be_written_fails);
	TIMES(4 * COUNT(wrongs), without_a_status_nothing_was_written);
	ONCE(a_part_of_the_data_that_fails_is_all_of_it);
	TIMES(COUNT(odd), what_is_no_reference_is_a_fault);
	ONCE(the_last_reference_is_one_like_any);
	TIMES(3, a_plain_address_says_what_the_kernel_lacks);
	TIMES(3, a_ring_with_a_plain_address_says_what_the_kernel_lacks);
	TIMES(3 * (COUNT(wrongs) - 1), a_ring_that_is_not_granted_is_a_fault);
	TIMES(3 * COUNT(odd), a_ring_that_is_no_reference_is_a_fault);
	ONCE(a_ring_taken_back_while_it_is_mapped_goes_on);
	TIMES(3 * 2, a_host_that_cannot_map_a_ring_is_asked_again);
	TIMES(3, a_ring_granted_for_reading_only_is_waited_for);
	ONCE(a_copy_that_cannot_be_made_now_is_made_later);
	ONCE(a_guest_that_is_gone_is_no_harm);
	tc = cases_add(s, "direct", setup_direct, NULL);
	ONCE(data_of_any_size_and_place_are_right);
	ONCE(zeroes_that_must_be_written_are);
	TIMES(COUNT(wrongs), data_that_cannot_be_written_to_fail);
	TIMES(COUNT(wrongs) - 1,
	    data_that_cannot_be_read_fail_and_nothing_is_written);
	tc = cases_add(s, "without", setup_without, NULL);
	TIMES(3, without_grants_such_addresses_are_no_memory);
	return cases_run(s);
}
