/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device of version 1 (virtio 1.2, 4.2.4): what is different in its
 * registers, its features, its status and the place of its rings.  All else is
 * that of check_virtio_mmio.c.
 */
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "blk.h"
#include "cases.h"
#include "device.h"
#include "fake_guest.h"
#include "fake_uring.h"
#include "ioreq.h"
#include "unit.h"
#include "virtqueue.h"

#define BASE	     UINT64_C(0x200000000) /* above 4 GiB */
#define SIZE	     (16 << 20)
#define SECTOR	     512
#define SECTORS	     64
#define PAGE	     4096
#define NUM	     64

#define FEATURE(bit) (UINT32_C(1) << (bit))
#define EVENT_IDX    FEATURE(VIRTIO_RING_F_EVENT_IDX)
#define FLUSH	     FEATURE(VIRTIO_BLK_F_FLUSH)

#define ACKNOWLEDGE  VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER	     VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK  VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK    VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET  VIRTIO_CONFIG_S_NEEDS_RESET

static uint64_t request; /* header, sector and status */
static char path[32];	 /* of the disk */

/* Open the disk, be it for the first time or as a successor. */
static bool
open_device(bool legacy)
{
	fake_uring_init();
	fake_log_init(&lg);
	return open_unit(path, 0, legacy);
}

static void
setup(void)
{
	int disk = memfd_create("check_legacy", 0);

	ck_assert_int_ge(disk, 0);
	ck_assert_int_eq(ftruncate(disk, SECTORS * SECTOR), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", disk);
	guest = fake_guest_open(BASE, SIZE);
	request = fake_guest_alloc(guest, 2 * SECTOR, SECTOR);
	ck_assert(open_device(true));
}

static uint64_t
round_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

/*
 * A driver's empty rings: 'num' descriptors from the start of a page of 'page'
 * bytes on, the used ring at the next multiple of 'align' (2.7.2).
 */
static void
make_rings(uint16_t num, uint32_t page, uint32_t align)
{
	uint64_t most = page > align ? page : align;
	uint64_t at = fake_guest_alloc(guest, 2 * most + PAGE + 26 * num, PAGE);

	drv = (struct fake_driver){.guest = guest, .num = num};
	drv.desc_gpa = round_up(at, most);
	drv.avail_gpa = drv.desc_gpa + 16 * num;
	drv.used_gpa = round_up(drv.avail_gpa + 6 + 2 * num, align);
	drv.desc = fake_guest_at(guest, drv.desc_gpa);
	drv.avail = fake_guest_at(guest, drv.avail_gpa);
	drv.used = fake_guest_at(guest, drv.used_gpa);
	drv.used_event = &drv.avail->ring[num];
	drv.avail_event = (uint16_t *)(void *)&drv.used->ring[num];
}

static void
place_rings(uint32_t page, uint32_t align)
{
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	wr(VIRTIO_MMIO_QUEUE_NUM, drv.num);
	wr(VIRTIO_MMIO_QUEUE_ALIGN, align);
	wr(VIRTIO_MMIO_QUEUE_PFN, drv.desc_gpa / page);
}

/* In the order of Linux. */
static void
begin(uint32_t features)
{
	wr(VIRTIO_MMIO_GUEST_PAGE_SIZE, PAGE);
	wr(VIRTIO_MMIO_STATUS, 0);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, 0);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, features);
}

static void
start(uint32_t features)
{
	begin(features);
	make_rings(NUM, PAGE, PAGE);
	place_rings(PAGE, PAGE);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER | DRIVER_OK);
	io.raised = io.lowered = 0;
}

static uint8_t *
status_byte(void)
{
	return (uint8_t *)fake_guest_at(guest, request) + 16 + SECTOR;
}

/* Make a request for one sector available, with descriptors from 'head' on. */
static void
offer(uint16_t head, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};
	struct vring_desc *d = &drv.desc[head];

	memcpy(fake_guest_at(guest, request), &hdr, sizeof(hdr));
	*status_byte() = 0xee;
	fake_driver_desc(&d[0], request, 16, VRING_DESC_F_NEXT, head + 1);
	fake_driver_desc(&d[1], request + 16, SECTOR,
	    VRING_DESC_F_NEXT |
		(type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0),
	    head + 2);
	fake_driver_desc(
	    &d[2], request + 16 + SECTOR, 1, VRING_DESC_F_WRITE, 0);
	fake_driver_offer(&drv, head);
}

static void
expect_working(void)
{
	struct vring_used_elem e;

	offer(0, VIRTIO_BLK_T_IN, 42);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert(fake_driver_take(&drv, &e));
	ck_assert_uint_eq(e.id, 0);
	ck_assert_uint_eq(e.len, SECTOR + 1);
	ck_assert_uint_eq(*status_byte(), VIRTIO_BLK_S_OK);
	ck_assert(rd(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_VRING);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
}

/* Nothing that can be read about it says that there is a queue. */
static void
expect_no_queue(void)
{
	for (uint32_t offset = 0x34; offset < 0x60; offset += 4)
		ck_assert_uint_eq(rd(offset),
		    offset == VIRTIO_MMIO_QUEUE_NUM_MAX ? VIRTQUEUE_NUM_MAX
							: 0);
}

START_TEST(a_driver_of_before_version_1_has_a_disk)
{
	ck_assert_uint_eq(rd(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_VERSION), 1);
	start(FLUSH | EVENT_IDX);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG), SECTORS);
	expect_working();
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(registers_of_version_2_are_not_there)
{
	uint64_t elsewhere = fake_guest_alloc(guest, PAGE, PAGE);
	uint32_t offset = VIRTIO_MMIO_QUEUE_DESC_LOW;

	start(0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	wr(VIRTIO_MMIO_QUEUE_READY, 0);
	for (; offset <= VIRTIO_MMIO_QUEUE_USED_HIGH; offset += 4) {
		wr(offset, elsewhere);
		ck_assert_uint_eq(rd(offset), 0);
	}
	expect_working();
	wr(VIRTIO_MMIO_QUEUE_PFN, 0);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	expect_no_queue();
}
END_TEST

START_TEST(version_2_has_no_registers_of_version_1)
{
	ck_assert(open_device(false));
	ck_assert_uint_eq(rd(VIRTIO_MMIO_VERSION), 2);
	begin(FLUSH);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, FEATURE(VIRTIO_F_VERSION_1 - 32));
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	make_rings(NUM, PAGE, PAGE);
	place_rings(PAGE, PAGE);
	expect_no_queue();
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}
END_TEST

START_TEST(its_features_are_of_before_version_1)
{
	uint32_t features;

	wr(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_DEVICE_FEATURES), 0);
	wr(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	features = rd(VIRTIO_MMIO_DEVICE_FEATURES);
	ck_assert_uint_eq(features & ~blk_features(blk),
	    FEATURE(VIRTIO_F_ANY_LAYOUT) | EVENT_IDX |
		FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
	ck_assert_uint_eq(blk_features(blk) & ~(uint64_t)features, 0);
}
END_TEST

START_TEST(features_that_were_not_offered_are_not_used)
{
	begin(UINT32_MAX);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	make_rings(NUM, PAGE, PAGE);
	place_rings(PAGE, PAGE);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_PFN), drv.desc_gpa / PAGE);
	expect_working();
	/* Nor does a successor find them. */
	io.adopted = true;
	ck_assert_msg(open_device(true), "%s", lg.last);
}
END_TEST

/* Which is seen by the flushes of a driver that could not make any. */
START_TEST(legacy_features_are_negotiated_with_the_queue)
{
	begin(0);
	make_rings(NUM, PAGE, PAGE);
	place_rings(PAGE, PAGE);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, FLUSH | EVENT_IDX);
	/* A successor would be the first to take notice of others. */
	io.adopted = true;
	ck_assert(open_device(true));
	offer(0, VIRTIO_BLK_T_OUT, 1);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	ck_assert_uint_eq(*drv.avail_event, 0);
	/* With the next queue they can be others. */
	start(FLUSH | EVENT_IDX);
	offer(0, VIRTIO_BLK_T_OUT, 1);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
	ck_assert_uint_eq(*drv.avail_event, 1);
}
END_TEST

START_TEST(features_ok_is_not_kept)
{
	begin(0);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER | DRIVER_OK);
}
END_TEST

START_TEST(the_disk_is_there_before_driver_ok)
{
	begin(EVENT_IDX);
	make_rings(NUM, PAGE, PAGE);
	place_rings(PAGE, PAGE);
	expect_working();
	/* But not for a driver that has given up. */
	wr(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FAILED);
	offer(0, VIRTIO_BLK_T_IN, 1);
	settle();
	ck_assert_uint_eq(*status_byte(), 0xee);
}
END_TEST

static const struct {
	uint16_t num;
	uint32_t page, align;
} places[] = {
    {2, PAGE, PAGE},
    {8, PAGE, 4},
    {64, PAGE, 64},
    {256, PAGE, PAGE},
    {256, 512, PAGE},
    {16, 65536, 65536},
    {256, PAGE, 65536},
    {256, 16384, 4},
};

START_TEST(the_rings_are_where_pages_and_alignment_say)
{
	uint32_t page = places[_i].page, align = places[_i].align;

	begin(0);
	wr(VIRTIO_MMIO_GUEST_PAGE_SIZE, page);
	make_rings(places[_i].num, page, align);
	place_rings(page, align);
	if (places[_i].num >= 3) {
		expect_working();
		return;
	}
	/* Too few for that. */
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_PFN), drv.desc_gpa / page);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER);
}
END_TEST

START_TEST(a_bad_place_needs_a_reset)
{
	static const struct {
		uint32_t page, pfn, align;
	} bad[] = {
	    {0, 5, PAGE},
	    {8, BASE / 8 + 1, PAGE},
	    {PAGE, 5, PAGE},
	    {PAGE, BASE / PAGE - 1, PAGE},
	    {PAGE, UINT32_MAX, PAGE},
	    {UINT32_MAX, UINT32_MAX, UINT32_MAX},
	    {PAGE, 0, 1},
	    {PAGE, 0, 0},
	};

	begin(0);
	make_rings(NUM, PAGE, PAGE);
	wr(VIRTIO_MMIO_GUEST_PAGE_SIZE, bad[_i].page);
	wr(VIRTIO_MMIO_QUEUE_NUM, NUM);
	wr(VIRTIO_MMIO_QUEUE_ALIGN, bad[_i].align);
	wr(VIRTIO_MMIO_QUEUE_PFN,
	    bad[_i].pfn != 0 ? bad[_i].pfn : drv.desc_gpa / PAGE);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER | NEEDS_RESET);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_PFN), 0);
	ck_assert_uint_eq(lg.lines, 1);
	start(0);
	expect_working();
}
END_TEST

START_TEST(a_queue_size_that_was_not_offered_needs_a_reset)
{
	begin(0);
	make_rings(NUM, PAGE, PAGE);
	drv.num = _i;
	place_rings(PAGE, PAGE);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET, NEEDS_RESET);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_PFN), 0);
}
END_TEST

START_TEST(there_is_no_other_queue)
{
	begin(0);
	make_rings(NUM, PAGE, PAGE);
	wr(VIRTIO_MMIO_QUEUE_SEL, 1);
	wr(VIRTIO_MMIO_QUEUE_NUM, NUM);
	wr(VIRTIO_MMIO_QUEUE_ALIGN, PAGE);
	wr(VIRTIO_MMIO_QUEUE_PFN, drv.desc_gpa / PAGE);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_PFN), 0);
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	expect_no_queue();
	place_rings(PAGE, PAGE);
	wr(VIRTIO_MMIO_QUEUE_SEL, 1);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_PFN), 0);
	wr(VIRTIO_MMIO_QUEUE_PFN, 0);
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	expect_working();
}
END_TEST

START_TEST(a_queue_in_use_is_not_moved)
{
	uint32_t pfn;

	start(0);
	pfn = rd(VIRTIO_MMIO_QUEUE_PFN);
	wr(VIRTIO_MMIO_QUEUE_NUM, 8);
	wr(VIRTIO_MMIO_QUEUE_ALIGN, 4);
	wr(VIRTIO_MMIO_GUEST_PAGE_SIZE, 512);
	wr(VIRTIO_MMIO_QUEUE_PFN, 5);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_PFN), pfn);
	expect_working();
}
END_TEST

START_TEST(no_page_means_no_queue_and_waits_for_what_is_in_flight)
{
	struct pollfd p;

	start(0);
	p = (struct pollfd){.fd = engine_fd(blk->engine), .events = POLLIN};
	fake_uring.hold = true;
	offer(0, VIRTIO_BLK_T_IN, 1);
	while (device_process_queue(dev, false) || device_enable_notify(dev))
		;
	ck_assert(!try_wr(VIRTIO_MMIO_QUEUE_PFN, 0));
	ck_assert(!try_wr(VIRTIO_MMIO_STATUS, 0));
	fake_uring.hold = false;
	while (!device_idle(dev)) {
		device_process_queue(dev, true);
		poll(&p, 1, 10);
	}
	ck_assert_uint_eq(*status_byte(), VIRTIO_BLK_S_OK);
	wr(VIRTIO_MMIO_QUEUE_PFN, 0);
	expect_no_queue();
	/* Positions start from 0. */
	make_rings(NUM, PAGE, PAGE);
	place_rings(PAGE, PAGE);
	expect_working();
}
END_TEST

START_TEST(a_reset_leaves_no_queue_but_the_page_size)
{
	start(0);
	wr(VIRTIO_MMIO_STATUS, 0);
	expect_no_queue();
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), 0);
	make_rings(NUM, PAGE, PAGE);
	place_rings(PAGE, PAGE);
	expect_working();
}
END_TEST

/*
 * Killed here, and continued by another: '_i' is how far the driver had come.
 */
START_TEST(a_successor_goes_on_where_it_was)
{
	if (_i < 3)
		begin(FLUSH);
	if (_i >= 1)
		make_rings(NUM, PAGE, PAGE);
	if (_i == 2)
		place_rings(PAGE, PAGE);
	if (_i == 3) {
		wr(VIRTIO_MMIO_GUEST_PAGE_SIZE, PAGE);
		place_rings(PAGE, PAGE); /* not even a status is needed */
	}
	if (_i == 4) {
		start(FLUSH | EVENT_IDX);
		expect_working();
	}
	io.adopted = true;
	ck_assert_msg(open_device(true), "%s", lg.last);
	if (_i < 2) {
		make_rings(NUM, PAGE, PAGE);
		place_rings(PAGE, PAGE);
	}
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_PFN), drv.desc_gpa / PAGE);
	offer(3, VIRTIO_BLK_T_OUT, 1);
	settle();
	ck_assert_uint_eq(*status_byte(), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(fake_uring.datasyncs, _i == 3);
}
END_TEST

START_TEST(a_successor_must_be_of_the_same_version)
{
	start(0);
	io.adopted = true;
	ck_assert(!open_device(false));
	ck_assert_ptr_nonnull(strstr(lg.last, "legacy"));
	ck_assert(open_device(true));
	/* Reset, it can be any. */
	wr(VIRTIO_MMIO_STATUS, 0);
	ck_assert(open_device(false));
	ck_assert_uint_eq(rd(VIRTIO_MMIO_VERSION), 2);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE);
	ck_assert(!open_device(true));
	ck_assert_ptr_nonnull(strstr(lg.last, "legacy"));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("legacy");
	TCase *tc = cases_add(s, "legacy", setup, NULL);

	tcase_add_test(tc, a_driver_of_before_version_1_has_a_disk);
	tcase_add_test(tc, registers_of_version_2_are_not_there);
	tcase_add_test(tc, version_2_has_no_registers_of_version_1);
	tcase_add_test(tc, its_features_are_of_before_version_1);
	tcase_add_test(tc, features_that_were_not_offered_are_not_used);
	tcase_add_test(tc, legacy_features_are_negotiated_with_the_queue);
	tcase_add_test(tc, features_ok_is_not_kept);
	tcase_add_test(tc, the_disk_is_there_before_driver_ok);
	tcase_add_loop_test(
	    tc, the_rings_are_where_pages_and_alignment_say, 0, COUNT(places));
	tcase_add_loop_test(tc, a_bad_place_needs_a_reset, 0, 8);
	tcase_add_loop_test(
	    tc, a_queue_size_that_was_not_offered_needs_a_reset, 0, 2);
	tcase_add_test(tc, there_is_no_other_queue);
	tcase_add_test(tc, a_queue_in_use_is_not_moved);
	tcase_add_test(
	    tc, no_page_means_no_queue_and_waits_for_what_is_in_flight);
	tcase_add_test(tc, a_reset_leaves_no_queue_but_the_page_size);
	tcase_add_loop_test(tc, a_successor_goes_on_where_it_was, 0, 5);
	tcase_add_test(tc, a_successor_must_be_of_the_same_version);
	return cases_run(s);
}
