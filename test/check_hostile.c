/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest could gain by breaking rules, as far as no other check_*.c shows
 * that it gains nothing (musts.md has the whole list): requests that change
 * while they are looked at, rings that never end, doorbells and resets without
 * pause, and memory that is not the device's to write.
 */
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
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
#include "guest.h"
#include "ioreq.h"
#include "unit.h"
#include "virtqueue.h"

#define BASE	     UINT64_C(0x200000000)
#define SIZE	     (64 << 20)
#define SECTOR	     512
#define SECTORS	     64
#define NUM	     VIRTQUEUE_NUM_MAX

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define VERSION_1    FEATURE(VIRTIO_F_VERSION_1)
#define EVENT_IDX    FEATURE(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT     FEATURE(VIRTIO_RING_F_INDIRECT_DESC)
#define USUAL	     (VERSION_1 | FEATURE(VIRTIO_BLK_F_FLUSH))

#define READY                                                                  \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |                \
	    VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

/* Where a request has its parts, in a page of its own. */
#define DATA   512
#define STATUS (DATA + SECTOR)

static uint64_t page; /* of requests that come one at a time */
static int file;

static void
open_disk(void)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	ck_assert(open_unit(path, 0, false));
}

static void
setup(void)
{
	uint8_t sector[SECTOR];

	file = memfd_create("check_hostile", 0);
	ck_assert_int_ge(file, 0);
	for (unsigned i = 0; i < SECTORS; i++) {
		memset(sector, i, sizeof(sector));
		ck_assert_int_eq(write(file, sector, SECTOR), SECTOR);
	}
	fake_log_init(&lg);
	fake_uring_init();
	fake_uring.wait = true;
	fake_uring.file_end = SECTORS * SECTOR;
	guest = fake_guest_open(BASE, SIZE);
	page = fake_guest_alloc(guest, FAKE_GUEST_PAGE, FAKE_GUEST_PAGE);
	open_disk();
}

/*
 * From reset to DRIVER_OK, with the rings in 'drv'.
 */
static void
negotiate(uint64_t features)
{
	wr(VIRTIO_MMIO_STATUS, 0);
	choose(features);
	wr(VIRTIO_MMIO_STATUS, READY & ~VIRTIO_CONFIG_S_DRIVER_OK);
	wr(VIRTIO_MMIO_QUEUE_NUM, drv.num);
	place(VIRTIO_MMIO_QUEUE_DESC_LOW, drv.desc_gpa);
	place(VIRTIO_MMIO_QUEUE_AVAIL_LOW, drv.avail_gpa);
	place(VIRTIO_MMIO_QUEUE_USED_LOW, drv.used_gpa);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	wr(VIRTIO_MMIO_STATUS, READY);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), READY);
}

static void
start(uint64_t features)
{
	fake_driver_init(&drv, guest, NUM);
	negotiate(features);
}

/*
 * As settle(), with a disk that never takes long and a device that never takes
 * much.
 */
static void
settle_at_once(void)
{
	unsigned n = 0;

	while (device_process_queue(dev, false) || device_enable_notify(dev))
		ck_assert_uint_lt(n++, 100);
	ck_assert(device_idle(dev));
}

static uint8_t *
at(uint64_t gpa)
{
	return fake_guest_at(guest, gpa);
}

/*
 * Make a request of one sector available, in descriptors 'head' and on.
 */
static void
offer(uint16_t head, uint64_t gpa, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};
	bool out = type == VIRTIO_BLK_T_OUT;

	memcpy(at(gpa), &hdr, sizeof(hdr));
	at(gpa)[STATUS] = 0xee;
	fake_driver_desc(
	    &drv.desc[head], gpa, sizeof(hdr), VRING_DESC_F_NEXT, head + 1);
	fake_driver_desc(&drv.desc[head + 1], gpa + DATA, SECTOR,
	    VRING_DESC_F_NEXT | (out ? 0 : VRING_DESC_F_WRITE), head + 2);
	fake_driver_desc(
	    &drv.desc[head + 2], gpa + STATUS, 1, VRING_DESC_F_WRITE, 0);
	fake_driver_offer(&drv, head);
}

static bool
in_file(uint64_t sector, uint8_t value)
{
	uint8_t buf[SECTOR];

	ck_assert_int_eq(
	    pread(file, buf, SECTOR, (off_t)sector * SECTOR), SECTOR);
	for (unsigned i = 0; i < SECTOR; i++)
		if (buf[i] != value)
			return false;
	return true;
}

static void
expect_file_untouched(void)
{
	for (unsigned i = 0; i < SECTORS; i++)
		ck_assert_msg(in_file(i, i), "sector %u was written", i);
	ck_assert_int_eq(lseek(file, 0, SEEK_END), SECTORS * SECTOR);
}

static void
expect_working(void)
{
	uint16_t before = drv.used->idx;

	offer(100, page, VIRTIO_BLK_T_IN, 42);
	settle_at_once();
	ck_assert_uint_eq((uint16_t)(drv.used->idx - before), 1);
	ck_assert_uint_eq(at(page)[STATUS], VIRTIO_BLK_S_OK);
	for (unsigned i = 0; i < SECTOR; i++)
		ck_assert_uint_eq(at(page)[DATA + i], 42);
}

/* Memory that changes under the device's feet. */

static unsigned change_at;

static void
turn_into_a_write(unsigned nth)
{
	struct virtio_blk_outhdr hdr = {
	    .type = VIRTIO_BLK_T_OUT, .sector = UINT64_MAX / SECTOR};

	if (nth == change_at)
		memcpy(at(page), &hdr, sizeof(hdr));
}

static void
move_beyond_the_end(unsigned nth)
{
	uint64_t sector = SECTORS;

	if (nth == change_at)
		memcpy(at(page) + 8, &sector, sizeof(sector));
}

static void (*const changes[])(unsigned nth) = {
    turn_into_a_write, move_beyond_the_end};

START_TEST(a_header_that_changes_is_judged_and_used_as_it_was_read_once)
{
	for (change_at = 1; change_at < 12; change_at++) {
		start(USUAL);
		offer(0, page, VIRTIO_BLK_T_IN, SECTORS - 1);
		if (!fake_guest_step(guest, page, changes[_i]))
			return;
		settle_at_once();
		fake_guest_step(guest, page, NULL);
		ck_assert_uint_eq(drv.used->idx, 1);
		ck_assert_uint_eq(fake_uring.out_of_file, 0);
		ck_assert_uint_eq(fake_uring.writes, 0);
		expect_file_untouched();
	}
	ck_assert_uint_gt(fake_uring.reads, 0);
}
END_TEST

START_TEST(a_status_that_the_driver_overwrites_is_its_own_loss)
{
	start(USUAL);
	offer(0, page, VIRTIO_BLK_T_IN, 1);
	/* Its status is the header's first byte. */
	drv.desc[2].addr = page;
	settle_at_once();
	ck_assert_uint_eq(drv.used->idx, 1);
	ck_assert_uint_eq(at(page)[0], VIRTIO_BLK_S_OK);
	expect_working();
}
END_TEST

/* Memory that is not the device's to write, 2.7.5.2, 2.7.6 and 2.7.10. */

START_TEST(what_only_the_driver_may_write_stays_as_it_was)
{
	static const uint32_t types[] = {
	    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_GET_ID, 77};
	size_t avail_len = 6 + 2 * NUM, desc_len = 16 * NUM;
	uint8_t *before = malloc(avail_len + desc_len + STATUS);

	start(USUAL | EVENT_IDX);
	for (unsigned i = 0; i < 4; i++) {
		offer(4 * i, page, types[i], 3);
		if (types[i] != VIRTIO_BLK_T_OUT)
			drv.desc[4 * i].len = 16;
		memcpy(before, drv.desc, desc_len);
		memcpy(before + desc_len, drv.avail, avail_len);
		memcpy(before + desc_len + avail_len, at(page), STATUS);
		settle_at_once();
		ck_assert_mem_eq(drv.desc, before, desc_len);
		ck_assert_mem_eq(drv.avail, before + desc_len, avail_len);
		ck_assert_mem_eq(at(page), before + desc_len + avail_len,
		    types[i] == VIRTIO_BLK_T_OUT ? STATUS : DATA);
	}
	ck_assert_uint_eq(drv.used->idx, 4);
	free(before);
}
END_TEST

START_TEST(with_event_idx_the_used_rings_flags_stay_0)
{
	start(USUAL | EVENT_IDX);
	for (unsigned i = 0; i < 5; i++) {
		offer(4 * i, page, VIRTIO_BLK_T_IN, i);
		device_process_queue(dev, false);
		ck_assert_uint_eq(drv.used->flags, 0);
	}
	settle_at_once();
	ck_assert_uint_eq(drv.used->flags, 0);
}
END_TEST

START_TEST(without_event_idx_the_used_rings_flags_are_0_or_1)
{
	start(USUAL);
	offer(0, page, VIRTIO_BLK_T_IN, 0);
	device_process_queue(dev, false);
	ck_assert_uint_le(drv.used->flags, 1);
	settle_at_once();
	ck_assert_uint_eq(drv.used->flags, 0);
}
END_TEST

START_TEST(a_queue_that_was_disabled_is_left_alone)
{
	unsigned lookups;

	start(USUAL);
	expect_working();
	offer(0, page, VIRTIO_BLK_T_OUT, 0);
	wr(VIRTIO_MMIO_QUEUE_READY, 0);
	io.raised = 0;
	lookups = fake_guest_lookups(guest);
	fake_guest_revoke(guest);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	settle_at_once();
	ck_assert_uint_eq(fake_guest_lookups(guest), lookups);
	ck_assert_uint_eq(io.raised, 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), READY);
	expect_file_untouched();
}
END_TEST

START_TEST(a_failed_driver_is_left_alone)
{
	unsigned lookups;

	start(USUAL);
	offer(0, page, VIRTIO_BLK_T_OUT, 0);
	wr(VIRTIO_MMIO_STATUS, READY | VIRTIO_CONFIG_S_FAILED);
	lookups = fake_guest_lookups(guest);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	settle_at_once();
	ck_assert_uint_eq(fake_guest_lookups(guest), lookups);
	expect_file_untouched();
	negotiate(USUAL);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), READY);
}
END_TEST

START_TEST(the_features_of_the_last_life_are_accepted_again)
{
	start(USUAL | EVENT_IDX | INDIRECT);
	for (unsigned i = 0; i < 3; i++) {
		negotiate(USUAL | EVENT_IDX | INDIRECT);
		drv.avail->idx = drv.used->idx = 0;
		expect_working();
	}
}
END_TEST

/* A disk is bytes, whatever they look like. */

static const struct {
	const char *format;
	const char *begin;
	size_t len;
} formats[] = {
    {"qcow2", "QFI\xfb\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\20", 24},
    {"qed", "QED\0", 4},
    {"vmdk", "KDMV\1\0\0\0", 8},
    {"vhd", "conectix", 8},
    {"vhdx", "vhdxfile", 8},
    {"luks", "LUKS\xba\xbe\0\1", 8},
    {"vdi", "<<< QEMU VM Virtual Disk Image >>>\n", 35},
};

START_TEST(a_disk_that_looks_like_an_image_file_is_taken_as_it_is)
{
	ck_assert_int_eq(pwrite(file, formats[_i].begin, formats[_i].len, 0),
	    (ssize_t)formats[_i].len);
	open_disk();
	ck_assert_uint_eq(blk_config(blk).capacity, SECTORS);
	start(USUAL);
	offer(0, page, VIRTIO_BLK_T_IN, 0);
	settle_at_once();
	ck_assert_mem_eq(at(page) + DATA, formats[_i].begin, formats[_i].len);
	/* Nor does a guest that writes such a beginning change the disk. */
	offer(4, page, VIRTIO_BLK_T_OUT, 1);
	settle_at_once();
	open_disk();
	ck_assert_uint_eq(blk_config(blk).capacity, SECTORS);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

/* Time: no input makes for more work than the queue has room for. */

/*
 * Head 'i' is a whole indirect table of one-byte buffers no two of which touch,
 * and which is no request.
 */
static void
offer_long_chain(uint16_t i, uint64_t table)
{
	struct vring_desc *t = (struct vring_desc *)(void *)at(table);

	for (unsigned k = 0; k < NUM; k++)
		fake_driver_desc(&t[k], page + 2 * k % 512, 1,
		    VRING_DESC_F_WRITE | (k + 1 < NUM ? VRING_DESC_F_NEXT : 0),
		    k + 1);
	fake_driver_desc(
	    &drv.desc[i], table, NUM * 16, VRING_DESC_F_INDIRECT, 0);
	fake_driver_offer(&drv, i);
}

START_TEST(the_longest_chains_cost_one_lookup_for_each_descriptor)
{
	uint64_t table = fake_guest_alloc(guest, NUM * 16, 16);
	unsigned lookups, i;

	start(USUAL | INDIRECT);
	for (i = 0; i < NUM; i++)
		offer_long_chain(i, table);
	lookups = fake_guest_lookups(guest);
	settle_at_once();
	ck_assert_uint_eq(drv.used->idx, NUM);
	/*
	 * Beyond its buffers: two tables, and the rings a few times; and
	 * buffers and tables once more to report them.
	 */
	ck_assert_uint_le(fake_guest_lookups(guest) - lookups,
	    NUM * ((NUM + 2) * (1 + GUEST_CAN_MIGRATE) + 6) + 16);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), READY);
}
END_TEST

START_TEST(a_chain_of_more_than_4_gib_is_a_fault)
{
	uint64_t len = 32 << 20, buf = fake_guest_alloc(guest, len, 4096);
	uint64_t gpa = fake_guest_alloc(guest, NUM * 16, 16);
	struct vring_desc *t = (struct vring_desc *)(void *)at(gpa);
	unsigned n = (UINT64_C(1) << 32) / len + 1;

	start(USUAL | INDIRECT);
	for (unsigned i = 0; i < n; i++)
		fake_driver_desc(
		    &t[i], buf, len, i + 1 < n ? VRING_DESC_F_NEXT : 0, i + 1);
	fake_driver_desc(&drv.desc[0], gpa, n * 16, VRING_DESC_F_INDIRECT, 0);
	fake_driver_offer(&drv, 0);
	settle_at_once();
	ck_assert_uint_eq(drv.used->idx, 0);
	ck_assert_str_eq(lg.last,
	    "guest fault: chain of more than 4 GiB; the device needs a reset");
}
END_TEST

static unsigned heads;

/*
 * The driver makes chains available while the device looks at the ring.
 */
static void
run_ahead(unsigned nth)
{
	if (nth % 8 != 0) /* or it runs into heads in flight, a fault */
		return;
	drv.avail->ring[heads % NUM] = heads * 4 % NUM;
	heads++;
	drv.avail->idx = heads;
}

static void
run_far_ahead(unsigned nth)
{
	(void)nth;
	drv.avail->idx += NUM;
}

static void (*const runners[])(unsigned nth) = {run_ahead, run_far_ahead};

START_TEST(an_available_index_that_runs_away_keeps_nobody_busy)
{
	unsigned lookups, n, served = 0;

	start(USUAL);
	for (n = 0; n < NUM; n += 4)
		offer(n, page, 99, 0);
	drv.avail->idx = heads = 0;
	if (!fake_guest_step(guest, drv.avail_gpa, runners[_i]))
		return;
	/* However often the loop of vdisk.c comes by, each time it gets on. */
	for (n = 0; n < 20; n++) {
		uint16_t before = drv.used->idx;

		lookups = fake_guest_lookups(guest);
		device_process_queue(dev, false);
		ck_assert_uint_le(
		    fake_guest_lookups(guest) - lookups, NUM * 8 + 16);
		ck_assert(device_idle(dev));
		served += (uint16_t)(drv.used->idx - before);
	}
	fake_guest_step(guest, drv.avail_gpa, NULL);
	ck_assert_uint_le(lg.lines, 2);
	if (_i == 0)
		ck_assert_uint_gt(served, 0);
	else /* more than the ring holds is a fault */
		ck_assert(rd(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

START_TEST(doorbells_without_end_do_not_keep_the_disk_from_finishing)
{
	struct pollfd p = {.fd = engine_fd(blk->engine), .events = POLLIN};
	unsigned lookups;

	fake_uring.wait = false;
	start(USUAL);
	offer(0, page, VIRTIO_BLK_T_IN, 42);
	for (unsigned n = 0; drv.used->idx == 0; n++) {
		ck_assert_uint_lt(n, 100000);
		wr(VIRTIO_MMIO_QUEUE_NOTIFY, n);
		device_process_queue(dev, false);
		if (n == 10)
			ck_assert_int_eq(poll(&p, 1, 5000) >= 0, 1);
	}
	/* Nor does one of them cost more than one check. */
	settle_at_once();
	lookups = fake_guest_lookups(guest);
	for (unsigned n = 0; n < 1000; n++) {
		wr(VIRTIO_MMIO_QUEUE_NOTIFY, n);
		ck_assert(!device_process_queue(dev, false));
	}
	ck_assert_uint_le(fake_guest_lookups(guest) - lookups, 1000 * 4);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(more_requests_than_the_queue_holds_do_not_keep_the_device_awake)
{
	const uint64_t table = page + 1024;
	const uint32_t len = 3 * sizeof(struct vring_desc);

	start(USUAL | INDIRECT);
	fake_uring.hold = true;
	offer(0, page, VIRTIO_BLK_T_IN, 42);
	memcpy(at(table), drv.desc, len);
	for (unsigned i = 0; i < NUM; i++) {
		fake_driver_desc(
		    &drv.desc[i], table, len, VRING_DESC_F_INDIRECT, 0);
		if (i > 0)
			fake_driver_offer(&drv, i);
	}
	while (device_process_queue(dev, false))
		;
	ck_assert_uint_eq(blk_inflight(blk), NUM);
	/* It need not poll for what it could not start. */
	fake_driver_offer(&drv, 0);
	ck_assert(!device_process_queue(dev, false));
	ck_assert(!device_enable_notify(dev));
	fake_uring.hold = false;
	settle_at_once();
	ck_assert_uint_eq(drv.used->idx, NUM + 1);
}
END_TEST

START_TEST(requests_without_end_do_not_keep_a_reset_from_being_answered)
{
	start(USUAL);
	fake_uring.hold = true;
	for (unsigned n = 0; n < NUM; n += 4)
		offer(n, page, VIRTIO_BLK_T_IN, n % SECTORS);
	device_process_queue(dev, false);
	ck_assert(!try_wr(VIRTIO_MMIO_STATUS, 0));
	/* The driver continues all the while, and is ignored. */
	fake_uring.hold = false;
	for (unsigned n = 0; !try_wr(VIRTIO_MMIO_STATUS, 0); n++) {
		ck_assert_uint_le(n, NUM);
		drv.avail->idx++;
		device_process_queue(dev, true);
	}
	ck_assert(!device_process_queue(dev, true));
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), 0);
}
END_TEST

START_TEST(resets_without_end_take_no_memory)
{
	size_t before = 0;

	for (unsigned n = 0; n < 10000; n++) {
		if (n == 10)
			before = mallinfo2().uordblks + mallinfo2().hblkhd;
		if (n == 0)
			start(USUAL);
		else
			negotiate(USUAL);
		drv.avail->idx = drv.used->idx = 0;
		offer(0, page, n % 2 ? VIRTIO_BLK_T_IN : 99, 3);
		device_process_queue(dev, false);
	}
	settle_at_once();
	ck_assert_uint_eq(mallinfo2().uordblks + mallinfo2().hblkhd, before);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("hostile");
	TCase *tc = cases_add(s, "guest", setup, NULL);

	tcase_add_loop_test(tc,
	    a_header_that_changes_is_judged_and_used_as_it_was_read_once, 0, 2);
	tcase_add_test(tc, a_status_that_the_driver_overwrites_is_its_own_loss);
	tcase_add_test(tc, what_only_the_driver_may_write_stays_as_it_was);
	tcase_add_test(tc, with_event_idx_the_used_rings_flags_stay_0);
	tcase_add_test(tc, without_event_idx_the_used_rings_flags_are_0_or_1);
	tcase_add_test(tc, a_queue_that_was_disabled_is_left_alone);
	tcase_add_test(tc, a_failed_driver_is_left_alone);
	tcase_add_test(tc, the_features_of_the_last_life_are_accepted_again);
	tcase_add_loop_test(tc,
	    a_disk_that_looks_like_an_image_file_is_taken_as_it_is, 0,
	    COUNT(formats));
	tcase_add_test(
	    tc, the_longest_chains_cost_one_lookup_for_each_descriptor);
	tcase_add_test(tc, a_chain_of_more_than_4_gib_is_a_fault);
	tcase_add_loop_test(
	    tc, an_available_index_that_runs_away_keeps_nobody_busy, 0, 2);
	tcase_add_test(
	    tc, doorbells_without_end_do_not_keep_the_disk_from_finishing);
	tcase_add_test(tc,
	    more_requests_than_the_queue_holds_do_not_keep_the_device_awake);
	tcase_add_test(
	    tc, requests_without_end_do_not_keep_a_reset_from_being_answered);
	tcase_add_test(tc, resets_without_end_take_no_memory);
	return cases_run(s);
}
