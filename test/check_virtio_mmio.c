/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registers of a virtio-mmio device and what follows from them (virtio 1.2,
 * 2.1, 3.1, 4.2), with a real disk behind and a driver that does right or wrong
 * in front.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>

#include "blk.h"
#include "cases.h"
#include "device.h"
#include "disk.h"
#include "fake_guest.h"
#include "fake_uring.h"
#include "ioreq.h"
#include "unit.h"
#include "virtio_mmio.h"
#include "virtqueue.h"

#define BASE	     UINT64_C(0x200000000) /* above 4 GiB */
#define SIZE	     (64 << 20)
#define SECTOR	     512
#define SECTORS	     256

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define VERSION_1    FEATURE(VIRTIO_F_VERSION_1)
#define EVENT_IDX    FEATURE(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT     FEATURE(VIRTIO_RING_F_INDIRECT_DESC)
#define FLUSH	     FEATURE(VIRTIO_BLK_F_FLUSH)
#define WCE	     FEATURE(VIRTIO_BLK_F_CONFIG_WCE)
#define USUAL	     (VERSION_1 | FLUSH)

#define ACKNOWLEDGE  VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER	     VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK  VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK    VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET  VIRTIO_CONFIG_S_NEEDS_RESET
#define FAILED	     VIRTIO_CONFIG_S_FAILED

#define UNTOUCHED    0xee

/* A request takes three descriptors and a slot of memory. */
#define SLOTS	    (VIRTQUEUE_NUM_MAX / 3)
#define SLOT_SIZE   1024
#define SLOT_DATA   16
#define SLOT_STATUS (SLOT_DATA + SECTOR)

static uint64_t slots;
static int disk;
static char path[32]; /* of the disk */

static void
setup(void)
{
	uint8_t sector[SECTOR];

	disk = memfd_create("check_virtio_mmio", 0);
	ck_assert_int_ge(disk, 0);
	for (unsigned i = 0; i < SECTORS; i++) {
		memset(sector, i, sizeof(sector));
		ck_assert_int_eq(write(disk, sector, SECTOR), SECTOR);
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", disk);
	fake_log_init(&lg);
	fake_uring_init();
	guest = fake_guest_open(BASE, SIZE);
	slots = fake_guest_alloc(
	    guest, VIRTQUEUE_NUM_MAX * SLOT_SIZE, FAKE_GUEST_PAGE);
	ck_assert(open_unit(path, 0, false));
	ck_assert_uint_eq(lg.lines, 0);
}

/* Registers. */

static bool
reset_now(void)
{
	return write_sized(VIRTIO_MMIO_STATUS, 4, 0);
}

static uint64_t
offered(void)
{
	uint64_t low;

	wr(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	low = rd(VIRTIO_MMIO_DEVICE_FEATURES);
	wr(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	return low | (uint64_t)rd(VIRTIO_MMIO_DEVICE_FEATURES) << 32;
}

/*
 * The steps of 3.1.1 to FEATURES_OK: whether that is accepted.
 */
static bool
negotiate(uint64_t features)
{
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER);
	choose(features);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	return rd(VIRTIO_MMIO_STATUS) & FEATURES_OK;
}

static void
place_queue(uint32_t num, uint64_t desc, uint64_t driver, uint64_t device)
{
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	wr(VIRTIO_MMIO_QUEUE_NUM, num);
	place(VIRTIO_MMIO_QUEUE_DESC_LOW, desc);
	place(VIRTIO_MMIO_QUEUE_AVAIL_LOW, driver);
	place(VIRTIO_MMIO_QUEUE_USED_LOW, device);
}

static void
new_queue(uint16_t num)
{
	fake_driver_init(&drv, guest, num);
	place_queue(num, drv.desc_gpa, drv.avail_gpa, drv.used_gpa);
}

static void
driver_ok(void)
{
	wr(VIRTIO_MMIO_STATUS, rd(VIRTIO_MMIO_STATUS) | DRIVER_OK);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS),
	    ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void
start(uint64_t features)
{
	ck_assert(negotiate(features));
	new_queue(VIRTQUEUE_NUM_MAX);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 1);
	driver_ok();
	io.raised = io.lowered = 0;
}

/* Requests. */

static uint8_t *
slot(unsigned i)
{
	return fake_guest_at(guest, slots + (uint64_t)i * SLOT_SIZE);
}

static void
offer(unsigned i, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};
	struct vring_desc *d = &drv.desc[3 * i];
	uint64_t gpa = slots + (uint64_t)i * SLOT_SIZE;

	memcpy(slot(i), &hdr, sizeof(hdr));
	if (type != VIRTIO_BLK_T_OUT)
		memset(slot(i) + SLOT_DATA, UNTOUCHED, SECTOR);
	slot(i)[SLOT_STATUS] = UNTOUCHED;
	fake_driver_desc(&d[0], gpa, sizeof(hdr), VRING_DESC_F_NEXT, 3 * i + 1);
	fake_driver_desc(&d[1], gpa + SLOT_DATA, SECTOR,
	    type == VIRTIO_BLK_T_OUT ? VRING_DESC_F_NEXT
				     : VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
	    3 * i + 2);
	fake_driver_desc(&d[2], gpa + SLOT_STATUS, 1, VRING_DESC_F_WRITE, 0);
	fake_driver_offer(&drv, 3 * i);
}

static void
notify(void)
{
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	settle();
}

static void
take(unsigned i, uint32_t len)
{
	struct vring_used_elem e;

	ck_assert(fake_driver_take(&drv, &e));
	ck_assert_uint_eq(e.id, 3 * i);
	ck_assert_uint_eq(e.len, len);
	ck_assert_uint_eq(slot(i)[SLOT_STATUS], VIRTIO_BLK_S_OK);
}

/*
 * One read from beginning to end, to see that everything works.
 */
static void
expect_working(void)
{
	offer(7, VIRTIO_BLK_T_IN, 42);
	notify();
	take(7, SECTOR + 1);
	for (unsigned i = 0; i < SECTOR; i++)
		ck_assert_uint_eq(slot(7)[SLOT_DATA + i], 42);
	ck_assert(rd(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_VRING);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
}

static void
expect_as_new(void)
{
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	/* Queue 0 is selected again, or this is of another. */
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_NUM_MAX), VIRTQUEUE_NUM_MAX);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	/* The features chosen are forgotten. */
	wr(VIRTIO_MMIO_STATUS, FEATURES_OK);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), 0);
}

/* The register file, 4.2.2. */

/*
 * What a read gives with queue 'queue_sel' and features word 'features_sel'
 * selected.
 */
static uint64_t
expected(uint32_t offset, uint32_t size, uint32_t queue_sel,
    uint32_t features_sel, uint64_t features)
{
	struct virtio_blk_config c = blk_config(blk);
	uint64_t value = 0;

	if (offset >= VIRTIO_MMIO_CONFIG) {
		offset -= VIRTIO_MMIO_CONFIG;
		c.wce = 1; /* unless somebody changes it */
		for (uint32_t i = 0; i < size && offset + i < sizeof(c); i++)
			((uint8_t *)&value)[i] =
			    ((const uint8_t *)&c)[offset + i];
		return value;
	}
	if (size != 4)
		return 0;
	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return 0x74726976;
	case VIRTIO_MMIO_VERSION:
		return 2;
	case VIRTIO_MMIO_DEVICE_ID:
		return VIRTIO_ID_BLOCK;
	case VIRTIO_MMIO_VENDOR_ID:
		return 0x4b534456; /* "VDSK" */
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return features_sel > 1
			   ? 0
			   : (uint32_t)(features >> 32 * features_sel);
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return queue_sel == 0 ? VIRTQUEUE_NUM_MAX : 0;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX;
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return rd(VIRTIO_MMIO_CONFIG_GENERATION);
	}
	return 0;
}

static const uint32_t sizes[] = {1, 2, 4, 8};
static const uint32_t selections[] = {0, 1, 2, 31, 32, 64, UINT32_MAX};

START_TEST(every_read_of_every_size_gives_what_the_register_table_says)
{
	uint32_t sel = selections[_i];
	uint64_t features = offered();

	wr(VIRTIO_MMIO_QUEUE_SEL, sel);
	wr(VIRTIO_MMIO_DEVICE_FEATURES_SEL, sel);
	wr(VIRTIO_MMIO_SHM_SEL, sel);
	for (uint32_t offset = 0; offset < VIRTIO_MMIO_SIZE; offset++)
		for (unsigned i = 0; i < 4; i++)
			ck_assert_msg(
			    read_sized(offset, sizes[i]) ==
				expected(offset, sizes[i], sel, sel, features),
			    "%u bytes at %#x", sizes[i], offset);
}
END_TEST

/*
 * Whether a write with this offset and size means something.
 */
static bool
writable(uint32_t offset, uint32_t size)
{
	static const uint32_t registers[] = {VIRTIO_MMIO_DEVICE_FEATURES_SEL,
	    VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_DRIVER_FEATURES_SEL,
	    VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_NUM,
	    VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_NOTIFY,
	    VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_STATUS,
	    VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH,
	    VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
	    VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH};

	for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
		if (size == 4 && offset == registers[i])
			return true;
	return false;
}

static void
write_where_it_means_nothing(void)
{
	enum { N_VALUES = 7 };
	static const uint64_t values[N_VALUES] = {
	    0, 1, 2, 0x40, 0x80, UINT32_MAX, UINT64_MAX};

	for (uint32_t offset = 0; offset < VIRTIO_MMIO_SIZE; offset++)
		for (unsigned i = 0; i < 4; i++)
			for (unsigned v = 0; v < N_VALUES; v++)
				if (!writable(offset, sizes[i]))
					ck_assert(write_sized(
					    offset, sizes[i], values[v]));
}

static void
read_all(uint32_t *registers)
{
	for (uint32_t i = 0; i < VIRTIO_MMIO_SIZE / 4; i++)
		registers[i] = rd(4 * i);
}

START_TEST(a_write_that_means_nothing_changes_nothing)
{
	uint32_t before[VIRTIO_MMIO_SIZE / 4], after[VIRTIO_MMIO_SIZE / 4];

	/* In every phase, the last with an interrupt standing. */
	write_where_it_means_nothing();
	ck_assert(negotiate(USUAL));
	new_queue(VIRTQUEUE_NUM_MAX);
	read_all(before);
	write_where_it_means_nothing();
	read_all(after);
	ck_assert_mem_eq(before, after, sizeof(before));
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	driver_ok();
	expect_working();
	offer(1, VIRTIO_BLK_T_IN, 1);
	notify();
	read_all(before);
	write_where_it_means_nothing();
	read_all(after);
	ck_assert_mem_eq(before, after, sizeof(before));
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	take(1, SECTOR + 1);
	expect_working();
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(of_a_written_value_only_the_bytes_of_the_access_count)
{
	ck_assert(
	    write_sized(VIRTIO_MMIO_STATUS, 4, UINT64_C(0xdeadbeef00000001)));
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE);
	/* This is a write of zero, a reset. */
	ck_assert(
	    write_sized(VIRTIO_MMIO_STATUS, 4, UINT64_C(0xdeadbeef00000000)));
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), 0);
}
END_TEST

START_TEST(the_generation_stays_as_long_as_the_configuration_does)
{
	uint32_t generation = rd(VIRTIO_MMIO_CONFIG_GENERATION);

	start(USUAL);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), generation);
	expect_working();
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), generation);
	ck_assert(reset_now());
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), generation);
}
END_TEST

START_TEST(a_driver_reads_64_bit_fields_in_two_halves)
{
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG), SECTORS);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG + 4), 0);
	ck_assert_uint_eq(read_sized(VIRTIO_MMIO_CONFIG, 8), SECTORS);
}
END_TEST

/* Features and status, 2.1, 2.2, 3.1. */

START_TEST(the_features_offered_are_those_of_disk_and_ring)
{
	ck_assert_uint_eq(
	    offered(), blk_features(blk) | VERSION_1 | EVENT_IDX | INDIRECT);
}
END_TEST

START_TEST(status_bits_are_added_and_stay)
{
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE);
	wr(VIRTIO_MMIO_STATUS, DRIVER);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER);
	wr(VIRTIO_MMIO_STATUS, FAILED);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER | FAILED);
	ck_assert(reset_now());
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), 0);
}
END_TEST

START_TEST(a_driver_cannot_set_status_bits_that_are_not_its_own)
{
	wr(VIRTIO_MMIO_STATUS, NEEDS_RESET);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), 0);
	wr(VIRTIO_MMIO_STATUS, ~(FEATURES_OK | DRIVER_OK));
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER | FAILED);
	ck_assert_uint_eq(io.raised, 0);
}
END_TEST

START_TEST(status_bits_that_do_not_exist_do_not_reset)
{
	start(USUAL);
	wr(VIRTIO_MMIO_STATUS, 0x100);
	wr(VIRTIO_MMIO_STATUS, 0x80000000);
	wr(VIRTIO_MMIO_STATUS, NEEDS_RESET);
	expect_working();
}
END_TEST

START_TEST(features_that_were_not_offered_are_not_ok)
{
	uint64_t features = offered();

	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t one = VERSION_1 | FEATURE(bit);

		ck_assert_int_eq(negotiate(one), (features & one) == one);
		if ((features & one) != one) {
			ck_assert_uint_eq(
			    rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER);
			/* Nor does it go on from there. */
			wr(VIRTIO_MMIO_STATUS,
			    ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
			ck_assert_uint_eq(
			    rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER);
		}
		ck_assert(reset_now());
	}
}
END_TEST

START_TEST(features_beyond_64_are_not_ok_in_whatever_order_they_come)
{
	for (unsigned first = 0; first < 2; first++) {
		wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER);
		if (!first)
			choose(USUAL);
		wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2 + _i);
		wr(VIRTIO_MMIO_DRIVER_FEATURES, 1);
		if (first)
			choose(USUAL);
		wr(VIRTIO_MMIO_STATUS, FEATURES_OK);
		ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER);
		ck_assert(reset_now());
	}
	ck_assert(negotiate(USUAL));
}
END_TEST

START_TEST(features_beyond_64_that_are_refused_by_the_driver_are_ok)
{
	choose(USUAL);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, 0);
	wr(VIRTIO_MMIO_STATUS, FEATURES_OK);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), FEATURES_OK);
}
END_TEST

START_TEST(a_driver_of_before_version_1_is_not_ok)
{
	ck_assert(!negotiate(0));
	ck_assert(!negotiate(offered() & ~VERSION_1));
	/* It may still learn better. */
	ck_assert(negotiate(VERSION_1));
}
END_TEST

START_TEST(everything_offered_can_be_accepted)
{
	start(offered());
	expect_working();
}
END_TEST

START_TEST(features_are_negotiated_with_features_ok)
{
	ck_assert(negotiate(USUAL));
	choose(USUAL | EVENT_IDX);
	wr(VIRTIO_MMIO_STATUS, FEATURES_OK);
	new_queue(VIRTQUEUE_NUM_MAX);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	driver_ok();
	/* With event idx this would be ignored, and the other not. */
	drv.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	*drv.used_event = 0;
	offer(0, VIRTIO_BLK_T_IN, 0);
	notify();
	take(0, SECTOR + 1);
	ck_assert_uint_eq(io.raised, 0);
}
END_TEST

START_TEST(driver_ok_without_features_ok_is_not_accepted)
{
	choose(USUAL);
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS), ACKNOWLEDGE | DRIVER);
}
END_TEST

START_TEST(a_driver_that_cannot_flush_gets_stable_writes)
{
	start(_i ? USUAL : VERSION_1);
	offer(0, VIRTIO_BLK_T_OUT, 0);
	notify();
	take(0, 1);
	ck_assert_uint_eq(fake_uring.writes, 1);
	ck_assert_uint_eq(fake_uring.datasyncs, !_i);
}
END_TEST

START_TEST(the_next_driver_chooses_anew_how_it_writes)
{
	start(_i ? USUAL : VERSION_1);
	ck_assert(reset_now());
	start(_i ? VERSION_1 : USUAL);
	offer(0, VIRTIO_BLK_T_OUT, 0);
	notify();
	ck_assert_uint_eq(fake_uring.datasyncs, _i);
}
END_TEST

/* Queue registers. */

static const uint32_t other_queues[] = {1, 2, 255, 65536, UINT32_MAX};

/* Another size, 5.2.5. */

static void
resize(uint64_t sectors)
{
	ck_assert_int_eq(ftruncate(disk, sectors * SECTOR), 0);
	device_resize(dev);
}

START_TEST(the_driver_is_notified_of_a_new_size)
{
	static const uint64_t sizes_of_disk[] = {2 * SECTORS, SECTORS / 2};

	start(USUAL);
	for (unsigned i = 0; i < 2; i++) {
		resize(sizes_of_disk[i]);
		ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), i + 1);
		ck_assert_uint_eq(
		    read_sized(VIRTIO_MMIO_CONFIG, 8), sizes_of_disk[i]);
		ck_assert_uint_eq(io.raised, i + 1);
		ck_assert_uint_eq(
		    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
		wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
		/* Asked again, it is no other. */
		resize(sizes_of_disk[i]);
		ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), i + 1);
		ck_assert_uint_eq(io.raised, i + 1);
	}
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET, 0);
}
END_TEST

/* As long as the host refuses its interrupt it is new each time. */
START_TEST(a_new_size_is_notified_when_the_host_permits)
{
	start(USUAL);
	io.refused = 2;
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_eq(io.raised, 0);
		resize(2 * SECTORS);
	}
	ck_assert_uint_eq(io.raised, 1);
	resize(2 * SECTORS);
	ck_assert_uint_eq(io.raised, 1);
}
END_TEST

/* Which the driver may have looked at before. */
START_TEST(another_size_before_driver_ok_is_notified_with_it)
{
	ck_assert(negotiate(USUAL));
	resize(2 * SECTORS);
	ck_assert_uint_ge(rd(VIRTIO_MMIO_CONFIG_GENERATION), 1);
	ck_assert_uint_eq(read_sized(VIRTIO_MMIO_CONFIG, 8), 2 * SECTORS);
	ck_assert_uint_eq(io.raised, 0);
	driver_ok();
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	driver_ok();
	resize(2 * SECTORS);
	ck_assert_uint_eq(io.raised, 1);
}
END_TEST

/* The write cache, 5.2.5 and 5.2.6.2. */

#define WCE_AT (VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce))

/* Made by the device itself, not through the ring. */
static unsigned syncs;
static int sync_error; /* how they end, if not well */
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

int
__wrap_fdatasync(int fd)
{
	syncs++;
	if (sync_error == 0)
		return __real_fdatasync(fd);
	errno = sync_error;
	return -1;
}

/*
 * How many of the writes made by one request are stable when they complete.
 */
static unsigned
stable_writes(void)
{
	unsigned before = fake_uring.datasyncs;

	offer(1, VIRTIO_BLK_T_OUT, 1);
	notify();
	take(1, 1);
	return fake_uring.datasyncs - before;
}

START_TEST(the_driver_chooses_how_it_writes)
{
	start(USUAL | WCE);
	ck_assert_uint_eq(read_sized(WCE_AT, 1), 1);
	ck_assert_uint_eq(stable_writes(), 0);
	for (unsigned i = 1; i <= 3; i++) {
		ck_assert(write_sized(WCE_AT, 1, 0));
		ck_assert_uint_eq(read_sized(WCE_AT, 1), 0);
		ck_assert_uint_eq(stable_writes(), 1);
		/* What it has written before, it will not flush any more. */
		ck_assert_uint_eq(syncs, i);
		ck_assert(write_sized(WCE_AT, 1, 0));
		ck_assert_uint_eq(syncs, i);
		ck_assert(write_sized(WCE_AT, 1, 1));
		ck_assert_uint_eq(read_sized(WCE_AT, 1), 1);
		ck_assert_uint_eq(stable_writes(), 0);
	}
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), 0);
	ck_assert_uint_eq(io.raised, 7);
}
END_TEST

START_TEST(a_driver_that_cannot_flush_begins_without_a_cache)
{
	start(VERSION_1 | WCE);
	ck_assert_uint_eq(read_sized(WCE_AT, 1), 0);
	ck_assert_uint_eq(stable_writes(), 1);
	ck_assert(write_sized(WCE_AT, 1, 1));
	ck_assert_uint_eq(stable_writes(), 0);
}
END_TEST

/* Linux resets the device when it sleeps, and does not choose again. */
START_TEST(what_the_driver_chose_is_so_after_a_reset)
{
	start(USUAL | WCE);
	for (unsigned choice = 0; choice < 2; choice++) {
		ck_assert(write_sized(WCE_AT, 1, choice));
		for (unsigned i = 0; i < 2; i++) {
			ck_assert(reset_now());
			start(USUAL | WCE);
			ck_assert_uint_eq(read_sized(WCE_AT, 1), choice);
			ck_assert_uint_eq(stable_writes(), !choice);
		}
	}
}
END_TEST

START_TEST(what_no_driver_chose_is_forgotten_at_a_reset)
{
	/* It cannot flush, or cannot choose. */
	start(_i ? VERSION_1 | WCE : USUAL | WCE);
	ck_assert(_i || write_sized(WCE_AT, 1, 0));
	ck_assert_uint_eq(stable_writes(), 1);
	ck_assert(reset_now());
	if (_i == 0) {
		start(USUAL);
		ck_assert_uint_eq(stable_writes(), 0);
		ck_assert(reset_now());
	}
	start(USUAL | WCE);
	ck_assert_uint_eq(read_sized(WCE_AT, 1), 1);
	ck_assert_uint_eq(stable_writes(), 0);
}
END_TEST

START_TEST(the_cache_is_not_given_up_before_it_is_agreed_that_one_can)
{
	wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER);
	choose(USUAL | WCE);
	ck_assert(write_sized(WCE_AT, 1, 0));
	ck_assert_uint_eq(read_sized(WCE_AT, 1), 1);
	ck_assert(reset_now());
	start(USUAL);
	ck_assert(write_sized(WCE_AT, 1, 0));
	ck_assert_uint_eq(read_sized(WCE_AT, 1), 1);
	/* And it is a byte, not a part of something larger. */
	ck_assert(reset_now());
	start(USUAL | WCE);
	ck_assert(write_sized(WCE_AT, 4, 0));
	ck_assert(write_sized(WCE_AT - 1, 2, 0));
	ck_assert_uint_eq(read_sized(WCE_AT, 1), 1);
	ck_assert_uint_eq(syncs, 0);
}
END_TEST

START_TEST(the_cache_is_given_up_when_nothing_is_in_flight)
{
	start(USUAL | WCE);
	fake_uring.hold = true;
	offer(1, VIRTIO_BLK_T_OUT, 1);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	device_process_queue(dev, false);
	ck_assert(!write_sized(WCE_AT, 1, 0));
	ck_assert_uint_eq(read_sized(WCE_AT, 1), 1);
	ck_assert_uint_eq(syncs, 0);
	fake_uring.hold = false;
	settle();
	ck_assert(write_sized(WCE_AT, 1, 0));
	ck_assert_uint_eq(syncs, 1);
	take(1, 1);
}
END_TEST

/* Queues. */

START_TEST(there_is_no_other_queue)
{
	uint32_t offset = VIRTIO_MMIO_QUEUE_DESC_LOW;

	ck_assert(negotiate(USUAL));
	new_queue(VIRTQUEUE_NUM_MAX);
	wr(VIRTIO_MMIO_QUEUE_SEL, other_queues[_i]);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	for (; offset <= VIRTIO_MMIO_QUEUE_USED_HIGH; offset += 4)
		wr(offset, 0xdead0000);
	wr(VIRTIO_MMIO_QUEUE_NUM, 2);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	driver_ok();
	/* Nor is queue 0 stopped through another. */
	wr(VIRTIO_MMIO_QUEUE_SEL, other_queues[_i]);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	wr(VIRTIO_MMIO_QUEUE_READY, 0);
	expect_working();
}
END_TEST

START_TEST(a_queue_that_is_ready_is_not_moved_or_resized)
{
	start(USUAL);
	place_queue(2, slots, slots, slots);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 1);
	expect_working();
}
END_TEST

START_TEST(a_queue_made_ready_twice_goes_on_where_it_was)
{
	start(USUAL);
	expect_working();
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	expect_working();
	ck_assert_uint_eq(drv.used->idx, 2);
}
END_TEST

START_TEST(a_queue_made_ready_twice_with_requests_in_flight_keeps_them)
{
	start(USUAL);
	fake_uring.hold = true;
	offer(0, VIRTIO_BLK_T_IN, 5);
	while (device_process_queue(dev, false))
		;
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	fake_uring.hold = false;
	settle();
	take(0, SECTOR + 1);
	expect_working();
}
END_TEST

START_TEST(a_queue_smaller_than_offered_works)
{
	ck_assert(negotiate(USUAL));
	new_queue(1 << _i);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	driver_ok();
	for (unsigned round = 0; round < 5; round++)
		for (unsigned i = 0; 3 * i + 2 < drv.num; i++) {
			offer(i, VIRTIO_BLK_T_IN, i);
			notify();
			take(i, SECTOR + 1);
		}
}
END_TEST

START_TEST(a_queue_is_not_made_ready_before_features_are_negotiated)
{
	new_queue(VIRTQUEUE_NUM_MAX);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	ck_assert(negotiate(USUAL));
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	driver_ok();
	expect_working();
}
END_TEST

static const struct {
	const char *what;
	uint32_t num;
	uint32_t desc, driver, device; /* to be added */
} bad_queues[] = {
    {"size 0", 0, 0, 0, 0},
    {"size 1", 1, 0, 0, 0},
    {"size 3", 3, 0, 0, 0},
    {"size 512", 512, 0, 0, 0},
    {"size 65536 + 256", 65536 + 256, 0, 0, 0},
    {"descriptors misaligned", 4, 8, 0, 0},
    {"available ring misaligned", 4, 0, 1, 0},
    {"used ring misaligned", 4, 0, 0, 2},
    {"descriptors in a hole", 4, 0x1000000, 0, 0},
    {"available ring in a hole", 4, 0, 0x1000000, 0},
    {"used ring in a hole", 4, 0, 0, 0x1000000},
    {"all beyond memory", 4, 0xf0000000, 0xf0000000, 0xf0000000},
};

static void
ready_bad_queue(unsigned i)
{
	place_queue(bad_queues[i].num, slots + bad_queues[i].desc,
	    slots + 4096 + bad_queues[i].driver,
	    slots + 8192 + bad_queues[i].device);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
}

START_TEST(a_bad_queue_needs_a_reset)
{
	ck_assert(negotiate(USUAL));
	ready_bad_queue(_i);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	ck_assert(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	/* No notification before DRIVER_OK (2.1.2). */
	ck_assert_uint_eq(io.raised, 0);
	ck_assert_uint_eq(lg.lines, 1);
	ready_bad_queue(_i);
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert(reset_now());
	expect_as_new();
	start(USUAL);
	expect_working();
}
END_TEST

START_TEST(a_bad_queue_after_driver_ok_is_also_notified)
{
	ck_assert(negotiate(USUAL));
	driver_ok();
	ready_bad_queue(_i);
	ck_assert(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	ck_assert_uint_eq(io.raised, 1);
	ready_bad_queue(_i);
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(lg.lines, 1);
}
END_TEST

START_TEST(a_bad_queue_before_driver_ok_is_notified_with_it)
{
	ck_assert(negotiate(USUAL));
	ready_bad_queue(0);
	ck_assert_uint_eq(io.raised, 0);
	wr(VIRTIO_MMIO_STATUS, DRIVER_OK);
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	/* Once. */
	wr(VIRTIO_MMIO_STATUS, DRIVER_OK);
	ck_assert_uint_eq(io.raised, 1);
}
END_TEST

START_TEST(a_guest_that_faults_all_the_time_does_not_flood_the_log)
{
	for (unsigned i = 0; i < 5000; i++) {
		ck_assert(negotiate(USUAL));
		ready_bad_queue(0);
		ck_assert(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET);
		ck_assert(reset_now());
	}
	ck_assert_uint_ge(lg.lines, 1);
	ck_assert_uint_le(lg.lines, 10);
}
END_TEST

/* Notifications and interrupts. */

START_TEST(nothing_is_taken_before_driver_ok)
{
	unsigned lookups;

	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	settle();
	ck_assert(negotiate(USUAL));
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	settle();
	new_queue(VIRTQUEUE_NUM_MAX);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	lookups = fake_guest_lookups(guest);
	offer(0, VIRTIO_BLK_T_IN, 0);
	notify();
	ck_assert_uint_eq(fake_guest_lookups(guest), lookups);
	ck_assert_uint_eq(drv.used->idx, 0);
	driver_ok();
	notify();
	take(0, SECTOR + 1);
}
END_TEST

START_TEST(nothing_is_taken_before_the_queue_is_ready)
{
	ck_assert(negotiate(USUAL));
	new_queue(VIRTQUEUE_NUM_MAX);
	driver_ok();
	offer(0, VIRTIO_BLK_T_IN, 0);
	notify();
	ck_assert_uint_eq(fake_guest_lookups(guest), 0);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	notify();
	take(0, SECTOR + 1);
}
END_TEST

START_TEST(a_notification_of_another_queue_is_harmless)
{
	start(USUAL);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, other_queues[_i]);
	settle();
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET, 0);
	ck_assert_uint_eq(io.raised, 0);
	expect_working();
}
END_TEST

START_TEST(a_used_buffer_is_signalled_until_it_is_acknowledged)
{
	start(USUAL);
	offer(0, VIRTIO_BLK_T_IN, 0);
	notify();
	ck_assert_uint_eq(io.raised, 1);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(
		    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, 0);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(io.level, 1);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(io.level, 0);
	ck_assert_uint_eq(io.lowered, 3);
	ck_assert_uint_eq(io.raised, 3);
}
END_TEST

START_TEST(two_causes_are_acknowledged_one_by_one)
{
	start(USUAL);
	offer(0, VIRTIO_BLK_T_IN, 0);
	notify();
	drv.avail->idx += 1000;
	notify();
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS),
	    VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
	ck_assert_uint_eq(io.raised, 2);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	/* The line may be an edge: down, and up again. */
	ck_assert_uint_eq(io.lowered, 1);
	ck_assert_uint_eq(io.raised, 3);
	ck_assert_uint_eq(io.level, 1);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(io.level, 0);
}
END_TEST

START_TEST(a_batch_makes_one_interrupt)
{
	start(USUAL | (_i ? EVENT_IDX : 0));
	fake_uring.hold = fake_uring.wait = true;
	for (unsigned i = 0; i < 8; i++) {
		offer(i, VIRTIO_BLK_T_IN, i);
		while (device_process_queue(dev, false))
			;
	}
	ck_assert_uint_eq(drv.used->idx, 0);
	ck_assert_uint_eq(io.raised, 0);
	fake_uring.hold = false;
	settle();
	ck_assert_uint_eq(drv.used->idx, 8);
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(fake_uring.submits, 1);
}
END_TEST

/* As if it had no memory just now: who has one request waits for nothing else. */
START_TEST(an_interrupt_that_the_host_refuses_is_raised_later)
{
	start(USUAL | (_i ? EVENT_IDX : 0));
	io.refused = 5;
	offer(0, VIRTIO_BLK_T_IN, 0);
	notify();
	while (io.refused > 0) {
		ck_assert_uint_eq(io.raised, 0);
		ck_assert(device_starved(dev));
		device_process_queue(dev, false);
	}
	device_process_queue(dev, false);
	ck_assert(!device_starved(dev));
	ck_assert_uint_eq(io.raised, 1);
	take(0, SECTOR + 1);
	settle();
	ck_assert_uint_eq(io.raised, 1);
}
END_TEST

/*
 * Requests of which the disk is at once done, either itself in memory or
 * cached.
 */
static void
be_fast(bool show_tmpfs)
{
	fake_uring.show_tmpfs = show_tmpfs;
	fake_uring.wait = !show_tmpfs;
	ck_assert(open_unit(path, 0, false));
}

/*
 * Of these 8 are done in one kick, so that accesses are not delayed, and
 * signalled, so that the guest continues with them while we do the others.
 */
START_TEST(completions_are_signalled_before_the_rest_is_done)
{
	bool event_idx = _i & 1;

	be_fast(_i & 2);
	start(USUAL | (event_idx ? EVENT_IDX : 0));
	for (unsigned i = 0; i < 20; i++)
		offer(i, VIRTIO_BLK_T_IN, i);
	for (unsigned i = 1; i <= 3; i++) {
		ck_assert(device_process_queue(dev, false));
		ck_assert_uint_eq(drv.used->idx, i < 3 ? 8 * i : 20);
		/* A driver with EVENT_IDX has not asked for more than one. */
		ck_assert_uint_eq(io.raised, event_idx ? 1 : i);
	}
	ck_assert(!device_process_queue(dev, false));
}
END_TEST

/*
 * If fewer are done in one kick, it is signalled when half of all are done, and
 * then half of the rest.
 */
START_TEST(half_of_long_requests_are_signalled_early)
{
	enum { LEN = 64 * SECTOR }; /* which is one go */
	uint64_t data = fake_guest_alloc(guest, LEN, FAKE_GUEST_PAGE);
	static const unsigned told[] = {0, 0, 0, 4, 4, 6, 7, 8};

	be_fast(_i);
	start(USUAL);
	for (unsigned i = 0; i < 8; i++) {
		offer(i, VIRTIO_BLK_T_IN, i);
		drv.desc[3 * i + 1].addr = data;
		drv.desc[3 * i + 1].len = LEN;
	}
	for (unsigned i = 0; i < 8; i++) {
		ck_assert(device_process_queue(dev, false));
		ck_assert_uint_eq(drv.used->idx, told[i]);
	}
	ck_assert_uint_eq(io.raised, 4);
	ck_assert(!device_process_queue(dev, false));
}
END_TEST

/*
 * A busy disk needs the processor, even if an interrupt is to be acknowledged.
 */
START_TEST(the_expected_event_is_known)
{
	start(USUAL);
	ck_assert_int_eq(device_expected_event(dev), DEVICE_AVAIL);
	offer(0, VIRTIO_BLK_T_IN, 0);
	notify();
	ck_assert_int_eq(device_expected_event(dev), DEVICE_IRQ_ACK);
	fake_uring.hold = true;
	offer(1, VIRTIO_BLK_T_IN, 1);
	device_process_queue(dev, false);
	ck_assert_int_eq(device_expected_event(dev), DEVICE_COMPLETION);
	fake_uring.hold = false;
	settle();
	wr(VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
	ck_assert_int_eq(device_expected_event(dev), DEVICE_AVAIL);
}
END_TEST

START_TEST(an_interrupt_is_raised_only_if_the_driver_wants_it)
{
	start(USUAL | (_i ? EVENT_IDX : 0));
	drv.avail->flags = _i ? 0 : VRING_AVAIL_F_NO_INTERRUPT;
	*drv.used_event = 2;
	for (unsigned i = 0; i < 2; i++) {
		offer(i, VIRTIO_BLK_T_IN, i);
		notify();
	}
	ck_assert_uint_eq(drv.used->idx, 2);
	ck_assert_uint_eq(io.raised, 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_int_eq(device_expected_event(dev), DEVICE_MORE);
	drv.avail->flags = 0;
	offer(2, VIRTIO_BLK_T_IN, 2);
	notify();
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_int_eq(device_expected_event(dev), DEVICE_IRQ_ACK);
}
END_TEST

/* The flow of requests. */

START_TEST(what_is_written_can_be_read)
{
	start(USUAL);
	for (unsigned i = 0; i < SECTOR; i++)
		slot(0)[SLOT_DATA + i] = i * 7;
	offer(0, VIRTIO_BLK_T_OUT, SECTORS - 1);
	notify();
	take(0, 1);
	offer(1, VIRTIO_BLK_T_FLUSH, 0);
	drv.desc[3].next = 5; /* no data */
	notify();
	take(1, 1);
	offer(2, VIRTIO_BLK_T_IN, SECTORS - 1);
	notify();
	take(2, SECTOR + 1);
	ck_assert_mem_eq(slot(2) + SLOT_DATA, slot(0) + SLOT_DATA, SECTOR);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
}
END_TEST

START_TEST(a_full_queue_of_requests_is_served)
{
	bool seen[SLOTS] = {false};
	struct vring_used_elem e;

	start(USUAL | (_i ? EVENT_IDX : 0));
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < SLOTS; i++)
			offer(i, VIRTIO_BLK_T_IN, i);
		notify();
		for (unsigned i = 0; i < SLOTS; i++) {
			ck_assert(fake_driver_take(&drv, &e));
			ck_assert_uint_eq(e.id % 3, 0);
			ck_assert_uint_lt(e.id / 3, SLOTS);
			ck_assert_int_eq(seen[e.id / 3], round % 2);
			seen[e.id / 3] = !seen[e.id / 3];
			ck_assert_uint_eq(slot(e.id / 3)[SLOT_DATA], e.id / 3);
		}
	}
}
END_TEST

START_TEST(as_many_requests_as_the_queue_has_descriptors_can_be_in_flight)
{
	uint64_t tables = fake_guest_alloc(
	    guest, VIRTQUEUE_NUM_MAX * 3 * sizeof(struct vring_desc), 16);
	struct vring_desc *t = fake_guest_at(guest, tables), ring[3];
	struct vring_used_elem e;
	unsigned runs;

	start(USUAL | INDIRECT);
	fake_uring.hold = fake_uring.wait = true;
	for (unsigned i = 0; i < VIRTQUEUE_NUM_MAX; i++) {
		struct virtio_blk_outhdr hdr = {
		    .type = VIRTIO_BLK_T_IN, .sector = i};
		uint64_t gpa = slots + (uint64_t)i * SLOT_SIZE;

		memcpy(slot(i), &hdr, sizeof(hdr));
		fake_driver_desc(&ring[0], gpa, 16, VRING_DESC_F_NEXT, 1);
		fake_driver_desc(&ring[1], gpa + SLOT_DATA, SECTOR,
		    VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
		fake_driver_desc(
		    &ring[2], gpa + SLOT_STATUS, 1, VRING_DESC_F_WRITE, 0);
		memcpy(&t[3 * i], ring, sizeof(ring));
		fake_driver_desc(&drv.desc[i], tables + i * sizeof(ring),
		    sizeof(ring), VRING_DESC_F_INDIRECT, 0);
		fake_driver_offer(&drv, i);
	}
	/* 8 are submitted in one kick, and in the last one nothing is left. */
	for (runs = 0; device_process_queue(dev, false); runs++)
		ck_assert_uint_lt(runs, VIRTQUEUE_NUM_MAX);
	ck_assert_uint_eq(runs, VIRTQUEUE_NUM_MAX / 8 - 1);
	ck_assert_uint_eq(blk_inflight(blk), VIRTQUEUE_NUM_MAX);
	fake_uring.hold = false;
	settle();
	for (unsigned i = 0; i < VIRTQUEUE_NUM_MAX; i++) {
		ck_assert(fake_driver_take(&drv, &e));
		ck_assert_uint_eq(e.len, SECTOR + 1);
		ck_assert_uint_eq(slot(e.id)[SLOT_DATA + 511], (uint8_t)e.id);
	}
	ck_assert_uint_eq(io.raised, 1);
}
END_TEST

START_TEST(a_driver_that_notifies_only_when_asked_is_never_forgotten)
{
	struct vring_used_elem e;
	uint16_t old;

	start(USUAL | (_i ? EVENT_IDX : 0));
	for (unsigned round = 0; round < 200; round++) {
		old = drv.avail->idx;
		for (unsigned i = 0; i <= round % 5; i++)
			offer(i, VIRTIO_BLK_T_IN, i);
		ck_assert(fake_driver_would_notify(&drv, _i, old));
		/* As the device runs until it sleeps: more, unasked. */
		device_process_queue(dev, false);
		offer(5, VIRTIO_BLK_T_IN, 5);
		settle();
		for (unsigned i = 0; i <= round % 5 + 1; i++)
			ck_assert(fake_driver_take(&drv, &e));
		ck_assert(!fake_driver_take(&drv, &e));
	}
}
END_TEST

START_TEST(notifications_are_off_while_busy_and_on_before_sleeping)
{
	start(USUAL | (_i ? EVENT_IDX : 0));
	settle();
	for (unsigned i = 0; i < 3; i++) {
		offer(2 * i, VIRTIO_BLK_T_IN, 0);
		ck_assert(fake_driver_would_notify(&drv, _i, 2 * i));
		ck_assert(device_process_queue(dev, false));
		offer(2 * i + 1, VIRTIO_BLK_T_IN, 0);
		ck_assert(!fake_driver_would_notify(&drv, _i, 2 * i + 1));
		/* It has come to the device's notice in time. */
		ck_assert(device_enable_notify(dev));
		while (device_process_queue(dev, false))
			;
		ck_assert(!device_enable_notify(dev));
		ck_assert(!_i || *drv.avail_event == (uint16_t)(2 * i + 2));
		ck_assert_uint_eq(drv.used->flags, 0);
		settle();
	}
}
END_TEST

static unsigned act_at;
static bool event_idx, driver_notifies;

static void
offer_then(unsigned nth)
{
	uint16_t old = drv.avail->idx;

	if (nth != act_at)
		return;
	offer(1, VIRTIO_BLK_T_IN, 1);
	driver_notifies = fake_driver_would_notify(&drv, event_idx, old);
}

/*
 * However the device and the driver interleave, a chain is served at once or
 * notified.
 */
START_TEST(a_chain_that_comes_while_the_device_goes_to_sleep_is_not_lost)
{
	uint64_t page;

	event_idx = _i & 1;
	fake_uring.wait = true;
	for (act_at = 1; act_at < 40; act_at++) {
		start(USUAL | (event_idx ? EVENT_IDX : 0));
		page = _i & 2 ? drv.avail_gpa : drv.used_gpa;
		offer(0, VIRTIO_BLK_T_IN, 0);
		driver_notifies = false;
		if (!fake_guest_step(guest, page, offer_then))
			return;
		settle();
		fake_guest_step(guest, page, NULL);
		if (drv.avail->idx == 2)
			ck_assert(drv.used->idx == 2 || driver_notifies);
		ck_assert(reset_now());
	}
}
END_TEST

START_TEST(a_vcpu_that_waits_comes_before_the_requests_not_started_yet)
{
	start(USUAL);
	fake_uring.hold = true;
	for (unsigned i = 0; i < 5; i++)
		offer(i, VIRTIO_BLK_T_IN, i);
	io.pending = true;
	/* One at a time, or accesses without end would stop the disk. */
	for (unsigned i = 1; i <= 3; i++) {
		ck_assert(device_process_queue(dev, false));
		ck_assert_uint_eq(blk_inflight(blk), i);
	}
	io.pending = false;
	ck_assert(device_process_queue(dev, false));
	ck_assert_uint_eq(blk_inflight(blk), 5);
}
END_TEST

START_TEST(a_bad_request_fails_and_the_queue_goes_on)
{
	struct vring_used_elem e;

	start(USUAL);
	offer(0, VIRTIO_BLK_T_IN, SECTORS);
	offer(1, 99, 0);
	offer(2, VIRTIO_BLK_T_IN, 0);
	drv.desc[6].len = 3; /* of the header's 16 bytes */
	notify();
	for (unsigned i = 0; i < 3; i++)
		ck_assert(fake_driver_take(&drv, &e));
	ck_assert_uint_eq(slot(0)[SLOT_STATUS], VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(slot(1)[SLOT_STATUS], VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(slot(2)[SLOT_STATUS], VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET, 0);
	expect_working();
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(while_paused_the_device_completes_but_does_not_start)
{
	start(USUAL);
	fake_uring.hold = true;
	offer(0, VIRTIO_BLK_T_IN, 0);
	while (device_process_queue(dev, false))
		;
	offer(1, VIRTIO_BLK_T_IN, 1);
	fake_uring.hold = false;
	while (!device_idle(dev))
		device_process_queue(dev, true);
	ck_assert(!device_process_queue(dev, true));
	ck_assert_uint_eq(drv.used->idx, 1);
	settle();
	ck_assert_uint_eq(drv.used->idx, 2);
}
END_TEST

/* Faults in the ring, 2.1.2. */

enum fault {
	LOOP,
	HEAD,
	INDEX,
	HOLE,
	NO_STATUS,
	TWICE,
	INDIRECT_TABLE,
	NO_RING,
	FAULTS
};

static void
break_ring(enum fault fault)
{
	offer(1, VIRTIO_BLK_T_IN, 1);
	switch (fault) {
	case LOOP:
		drv.desc[4].next = 3;
		break;
	case HEAD:
		drv.avail->ring[(uint16_t)(drv.avail->idx - 1) % drv.num] =
		    drv.num;
		break;
	case INDEX:
		drv.avail->idx += drv.num;
		break;
	case HOLE:
		drv.desc[4].addr = BASE;
		break;
	case NO_STATUS:
		drv.desc[3].flags = 0;
		break;
	case TWICE:
		fake_driver_offer(&drv, 3);
		break;
	case INDIRECT_TABLE:
		drv.desc[3].flags = VRING_DESC_F_INDIRECT;
		break;
	case NO_RING:
		fake_guest_hole(guest, drv.desc_gpa, 16);
		break;
	case FAULTS:
		break;
	}
}

static void
expect_stopped(void)
{
	unsigned lookups = fake_guest_lookups(guest);
	uint16_t used = drv.used->idx;

	ck_assert_uint_eq(rd(VIRTIO_MMIO_STATUS),
	    ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG), SECTORS);
	wr(VIRTIO_MMIO_STATUS, DRIVER_OK);
	for (unsigned i = 0; i < 3; i++) {
		wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
		settle();
	}
	ck_assert_uint_eq(fake_guest_lookups(guest), lookups);
	ck_assert_uint_eq(drv.used->idx, used);
}

START_TEST(a_broken_ring_stops_until_a_reset_heals_it)
{
	start(USUAL);
	expect_working();
	io.raised = io.lowered = 0;
	/* TWICE can only be seen while the first is in flight. */
	fake_uring.hold = true;
	break_ring(_i);
	for (unsigned n = 0; device_process_queue(dev, false); n++)
		ck_assert_uint_lt(n, 10);
	fake_uring.hold = false;
	settle();
	ck_assert(rd(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(lg.lines, 1);
	/* It says why. */
	ck_assert_ptr_null(strstr(lg.last, "(null)"));
	expect_stopped();
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert(reset_now());
	expect_as_new();
	start(USUAL);
	expect_working();
}
END_TEST

START_TEST(a_used_ring_that_goes_away_stops_the_queue)
{
	start(USUAL);
	fake_uring.hold = true;
	offer(0, VIRTIO_BLK_T_IN, 0);
	while (device_process_queue(dev, false))
		;
	fake_guest_hole(guest, drv.used_gpa, 6);
	fake_uring.hold = false;
	settle();
	ck_assert(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	ck_assert(device_idle(dev));
	ck_assert(reset_now());
	start(USUAL);
	expect_working();
}
END_TEST

/* Reset, 2.4 and 4.2.2.1, and QueueReady = 0. */

static void
put_in_flight(unsigned n)
{
	fake_uring.hold = true;
	for (unsigned i = 0; i < n; i++)
		offer(i, VIRTIO_BLK_T_IN, i);
	for (unsigned i = 0; device_process_queue(dev, false); i++)
		ck_assert_uint_lt(i, 10);
	ck_assert(!device_idle(dev));
}

static void
drain(void)
{
	struct pollfd p = {.fd = engine_fd(blk->engine), .events = POLLIN};
	unsigned n = 0;

	fake_uring.hold = false;
	for (;;) {
		while (device_process_queue(dev, true))
			ck_assert_uint_le(n++, SLOTS);
		if (device_idle(dev))
			return;
		ck_assert_int_eq(poll(&p, 1, 5000), 1);
	}
}

/*
 * The old life of the device is over: it touches nothing of the guest.
 */
static void
expect_dead(void)
{
	unsigned lookups = fake_guest_lookups(guest);
	unsigned raised = io.raised;

	fake_guest_revoke(guest);
	for (unsigned i = 0; i < 3; i++) {
		wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
		settle();
	}
	ck_assert_uint_eq(fake_guest_lookups(guest), lookups);
	ck_assert_uint_eq(io.raised, raised);
}

START_TEST(a_reset_of_an_idle_device_is_immediate)
{
	start(USUAL);
	offer(0, VIRTIO_BLK_T_IN, 0);
	notify();
	wr(VIRTIO_MMIO_QUEUE_SEL, 3);
	ck_assert_uint_ne(rd(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert(reset_now());
	/* The line goes with the bit. */
	ck_assert_uint_ge(io.lowered, 1);
	expect_as_new();
	expect_dead();
}
END_TEST

START_TEST(a_reset_waits_for_what_is_in_flight)
{
	start(USUAL);
	put_in_flight(_i);
	offer(SLOTS - 1, VIRTIO_BLK_T_IN, 1);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert(!reset_now());
		ck_assert(!device_process_queue(dev, true));
	}
	drain();
	/* What was not begun stays so. */
	ck_assert_uint_eq(slot(SLOTS - 1)[SLOT_STATUS], UNTOUCHED);
	ck_assert(reset_now());
	expect_as_new();
	expect_dead();
}
END_TEST

START_TEST(a_device_that_was_reset_in_flight_works_again)
{
	start(USUAL);
	put_in_flight(20);
	ck_assert(!reset_now());
	drain();
	ck_assert(reset_now());
	start(USUAL | EVENT_IDX | INDIRECT);
	expect_working();
	ck_assert_uint_eq(drv.used->idx, 1);
}
END_TEST

START_TEST(a_broken_ring_with_requests_in_flight_is_reset_after_them)
{
	unsigned lookups;

	start(USUAL);
	put_in_flight(3);
	drv.avail->idx += 1000;
	device_process_queue(dev, false);
	ck_assert(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	ck_assert(!reset_now());
	lookups = fake_guest_lookups(guest);
	drain();
	/* Of the ring, that is: the buffers are still in use. */
	ck_assert_uint_eq(fake_guest_lookups(guest), lookups);
	ck_assert(reset_now());
	expect_dead();
}
END_TEST

START_TEST(disabling_the_queue_waits_for_what_is_in_flight)
{
	start(USUAL);
	put_in_flight(_i);
	ck_assert(!write_sized(VIRTIO_MMIO_QUEUE_READY, 4, 0));
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 1);
	drain();
	wr(VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 0);
	/* They are returned, not lost: the driver did not reset. */
	ck_assert_uint_eq(drv.used->idx, _i);
	expect_dead();
}
END_TEST

START_TEST(a_queue_disabled_and_enabled_starts_from_zero)
{
	start(USUAL);
	expect_working();
	wr(VIRTIO_MMIO_QUEUE_READY, 0);
	new_queue(16);
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	offer(2, VIRTIO_BLK_T_IN, 9);
	notify();
	take(2, SECTOR + 1);
	ck_assert_uint_eq(drv.used->idx, 1);
}
END_TEST

START_TEST(a_thousand_lives_are_like_the_first)
{
	ck_assert(negotiate(USUAL));
	new_queue(VIRTQUEUE_NUM_MAX);
	for (unsigned i = 0; i < 1000; i++) {
		drv.avail->idx = drv.used->idx = drv.seen = 0;
		ck_assert(negotiate(USUAL));
		place_queue(drv.num, drv.desc_gpa, drv.avail_gpa, drv.used_gpa);
		wr(VIRTIO_MMIO_QUEUE_READY, 1);
		driver_ok();
		if (i % 2 == 0) {
			expect_working();
		} else {
			put_in_flight(i % SLOTS + 1);
			ck_assert(!reset_now());
			drain();
		}
		ck_assert(reset_now());
	}
	ck_assert_uint_eq(lg.lines, 0);
	/* Unmapping is for IOREQ_TYPE_INVALIDATE only. */
	ck_assert_uint_eq(fake_guest_forgets(guest), 0);
}
END_TEST

/* Continuing where another process was killed. */

/* The state that is left, as of version 1. */
struct left {
	uint64_t device_features;
	uint64_t driver_features;
	uint64_t capacity;
	uint32_t blk_size;
	uint32_t driver_features_unknown;
	uint32_t device_features_sel;
	uint32_t driver_features_sel;
	uint32_t queue_sel;
	uint32_t status;
	uint32_t interrupt_status;
	uint32_t config_generation;
	uint32_t guest_page_size;
	uint32_t queue_align;
	uint32_t queue_pfn;
	uint16_t write_through;
	uint16_t flush_failed;
	struct virtqueue_state queue;
};

_Static_assert(sizeof(struct left) == VIRTIO_MMIO_STATE_SIZE &&
		   VIRTIO_MMIO_STATE_VERSION == 3,
    "the layout is another");

static struct left *
left(void)
{
	return (struct left *)io.state;
}

/*
 * This process is dead, and what it had submitted was never done.  Another one
 * opens the same disk.
 */
static bool
succeed(bool read_only)
{
	fake_uring_init();
	fake_log_init(&lg);
	io.adopted = true;
	io.raised = io.lowered = 0;
	return open_unit(path, read_only ? DISK_READ_ONLY : 0, false);
}

static void
expect_continued(void)
{
	ck_assert_msg(succeed(false), "refused: %s", lg.last);
	/* It says so, and no more than that. */
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, "continuing"));
}

static void
expect_refused(bool read_only, const char *why)
{
	struct ioreq_server before = io;

	ck_assert(!succeed(read_only));
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_msg(strstr(lg.last, why) != NULL, "said: %s", lg.last);
	ck_assert_uint_eq(io.raised, 0);
	ck_assert_mem_eq(io.state, before.state, sizeof(io.state));
}

START_TEST(a_device_that_was_just_reset_is_as_new)
{
	uint64_t features;

	start(USUAL);
	ck_assert(reset_now());
	/* With a disk of which nobody knows anything yet. */
	left()->device_features = UINT64_MAX;
	left()->capacity = UINT64_MAX;
	left()->queue.used_idx = 77;
	ck_assert(succeed(true));
	ck_assert_uint_eq(lg.lines, 0);
	features = offered();
	ck_assert(features & FEATURE(VIRTIO_BLK_F_RO));
	ck_assert(succeed(false));
	ck_assert(!(offered() & FEATURE(VIRTIO_BLK_F_RO)));
	expect_as_new();
	ck_assert_uint_eq(io.raised, 0);
	start(USUAL);
	expect_working();
}
END_TEST

/* The stores of a reset, of which only some were made. */
START_TEST(a_reset_half_done_is_done_again)
{
	start(USUAL);
	if (_i >= 1)
		left()->queue.ready = 0;
	if (_i >= 2)
		left()->queue = (struct virtqueue_state){.num = 256};
	if (_i >= 3)
		left()->driver_features = 0;
	expect_continued();
	ck_assert(reset_now());
	expect_as_new();
	start(USUAL);
	expect_working();
}
END_TEST

START_TEST(every_register_is_as_it_was_left)
{
	uint32_t before[VIRTIO_MMIO_SIZE / 4], after[VIRTIO_MMIO_SIZE / 4];

	if (_i >= 1)
		wr(VIRTIO_MMIO_STATUS, ACKNOWLEDGE);
	if (_i >= 2)
		ck_assert(negotiate(USUAL | EVENT_IDX));
	if (_i >= 3) {
		new_queue(64);
		wr(VIRTIO_MMIO_QUEUE_READY, 1);
	}
	if (_i >= 4)
		driver_ok();
	if (_i >= 5) {
		offer(1, VIRTIO_BLK_T_IN, 1);
		notify();
	}
	wr(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	read_all(before);
	ck_assert(succeed(false));
	if (_i >= 1)
		read_all(after);
	if (_i >= 1)
		ck_assert_mem_eq(before, after, sizeof(before));
	ck_assert_uint_eq(io.raised, 0);
}
END_TEST

START_TEST(a_driver_can_go_on_setting_up_where_it_was)
{
	ck_assert(negotiate(USUAL));
	expect_continued();
	fake_driver_init(&drv, guest, 64);
	wr(VIRTIO_MMIO_QUEUE_NUM, 64);
	place(VIRTIO_MMIO_QUEUE_DESC_LOW, drv.desc_gpa);
	expect_continued();
	place(VIRTIO_MMIO_QUEUE_AVAIL_LOW, drv.avail_gpa);
	place(VIRTIO_MMIO_QUEUE_USED_LOW, drv.used_gpa);
	expect_continued();
	wr(VIRTIO_MMIO_QUEUE_READY, 1);
	expect_continued();
	ck_assert_uint_eq(rd(VIRTIO_MMIO_QUEUE_READY), 1);
	driver_ok();
	expect_working();
}
END_TEST

START_TEST(requests_in_flight_are_done_again_and_returned_once)
{
	uint8_t sector[SECTOR];
	struct vring_used_elem e;
	unsigned lives = 1 + _i;

	start(USUAL | (_i % 2 ? EVENT_IDX : 0));
	fake_uring.hold = true;
	offer(0, VIRTIO_BLK_T_IN, 40);
	offer(1, VIRTIO_BLK_T_OUT, 41);
	memset(slot(1) + SLOT_DATA, 0xab, SECTOR);
	offer(2, VIRTIO_BLK_T_FLUSH, 0);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	device_process_queue(dev, false);
	/* One that nobody has looked at. */
	offer(3, VIRTIO_BLK_T_IN, 43);
	while (lives-- > 0) {
		expect_continued();
		fake_uring.hold = true;
		device_process_queue(dev, false);
		ck_assert(!fake_driver_take(&drv, &e));
	}
	expect_continued();
	settle();
	ck_assert_uint_eq(drv.used->idx, 4);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(slot(i)[SLOT_STATUS], VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(slot(0)[SLOT_DATA], 40);
	ck_assert_uint_eq(slot(3)[SLOT_DATA], 43);
	ck_assert_int_eq(pread(disk, sector, SECTOR, 41 * SECTOR), SECTOR);
	ck_assert_uint_eq(sector[SECTOR - 1], 0xab);
	/* The kernel may finish them at once or one by one. */
	ck_assert_uint_ge(io.raised, 1);
	ck_assert_uint_le(io.raised, _i % 2 ? 1 : 4);
	expect_continued();
	settle();
	ck_assert_uint_eq(drv.used->idx, 4);
	ck_assert_uint_eq(io.raised, 0);
}
END_TEST

START_TEST(with_nothing_to_take_a_successor_asks_for_notifications)
{
	start(USUAL | EVENT_IDX);
	fake_uring.hold = true;
	offer(0, VIRTIO_BLK_T_IN, 40);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	device_process_queue(dev, false);
	/* Killed while it polled. */
	*drv.avail_event = 0;
	expect_continued();
	settle();
	take(0, SECTOR + 1);
	ck_assert_uint_eq(*drv.avail_event, 1);
}
END_TEST

START_TEST(an_interrupt_that_may_not_have_been_raised_is_raised)
{
	start(USUAL);
	offer(1, VIRTIO_BLK_T_IN, 1);
	notify();
	ck_assert_uint_eq(io.raised, 1);
	/* Killed somewhere between the used index and the note of the raise. */
	left()->queue.signalled--;
	if (_i >= 1)
		left()->interrupt_status = 0;
	if (_i >= 2)
		left()->queue.published--;
	expect_continued();
	settle();
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	take(1, SECTOR + 1);
	ck_assert_uint_eq(drv.used->idx, 1);
}
END_TEST

START_TEST(a_driver_that_does_not_flush_still_need_not)
{
	start(VERSION_1 | (_i ? FLUSH : 0));
	expect_continued();
	offer(1, VIRTIO_BLK_T_OUT, 1);
	notify();
	take(1, 1);
	ck_assert_uint_eq(fake_uring.writes, 1);
	ck_assert_uint_eq(fake_uring.datasyncs, !_i);
}
END_TEST

START_TEST(a_driver_that_gave_up_the_cache_still_has_none)
{
	start(USUAL | WCE);
	ck_assert(write_sized(WCE_AT, 1, 0));
	expect_continued();
	ck_assert_uint_eq(read_sized(WCE_AT, 1), 0);
	ck_assert_uint_eq(stable_writes(), 1);
	ck_assert(write_sized(WCE_AT, 1, 1));
	expect_continued();
	ck_assert_uint_eq(stable_writes(), 0);
}
END_TEST

START_TEST(a_write_done_again_reaches_stable_storage_as_it_should)
{
	start(VERSION_1);
	fake_uring.hold = true;
	offer(1, VIRTIO_BLK_T_OUT, 1);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	device_process_queue(dev, false);
	expect_continued();
	settle();
	take(1, 1);
	ck_assert_uint_eq(fake_uring.datasyncs, 1);
}
END_TEST

START_TEST(a_fault_that_may_not_have_been_signalled_is_signalled_again)
{
	start(USUAL);
	left()->status |= NEEDS_RESET;
	offer(1, VIRTIO_BLK_T_IN, 1);
	expect_continued();
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	/* It has stopped, and works again after a reset. */
	notify();
	ck_assert_uint_eq(slot(1)[SLOT_STATUS], UNTOUCHED);
	ck_assert(reset_now());
	start(USUAL);
	expect_working();
}
END_TEST

START_TEST(requests_in_flight_at_a_fault_are_left_alone)
{
	start(USUAL);
	fake_uring.hold = true;
	offer(1, VIRTIO_BLK_T_IN, 1);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	device_process_queue(dev, false);
	left()->status |= NEEDS_RESET;
	expect_continued();
	settle();
	ck_assert_uint_eq(fake_uring.reads, 0);
	ck_assert_uint_eq(drv.used->idx, 0);
	ck_assert(reset_now());
}
END_TEST

START_TEST(a_request_that_became_bad_is_a_fault_and_no_end)
{
	start(USUAL);
	fake_uring.hold = true;
	offer(1, VIRTIO_BLK_T_IN, 1);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	device_process_queue(dev, false);
	drv.desc[3].next = 3;
	ck_assert(succeed(false));
	ck_assert(rd(VIRTIO_MMIO_STATUS) & NEEDS_RESET);
	ck_assert_uint_ge(io.raised, 1);
	ck_assert(reset_now());
	start(USUAL);
	expect_working();
}
END_TEST

START_TEST(a_disk_that_has_grown_is_announced)
{
	uint32_t generation;

	start(USUAL);
	generation = rd(VIRTIO_MMIO_CONFIG_GENERATION);
	ck_assert_int_eq(ftruncate(disk, 2 * SECTORS * SECTOR), 0);
	expect_continued();
	ck_assert_uint_ne(rd(VIRTIO_MMIO_CONFIG_GENERATION), generation);
	ck_assert_uint_eq(read_sized(VIRTIO_MMIO_CONFIG, 8), 2 * SECTORS);
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	offer(1, VIRTIO_BLK_T_IN, 2 * SECTORS - 1);
	notify();
	take(1, SECTOR + 1);
	/* Once. */
	generation = rd(VIRTIO_MMIO_CONFIG_GENERATION);
	expect_continued();
	ck_assert_uint_eq(io.raised, 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), generation);
	/* And from now on it may not shrink to what it was, unless told. */
	resize(SECTORS);
	expect_continued();
	resize(2 * SECTORS);
	ck_assert_int_eq(ftruncate(disk, SECTORS * SECTOR), 0);
	expect_refused(false, "smaller");
}
END_TEST

START_TEST(a_disk_beyond_2_tib_is_known_again)
{
	const uint64_t sectors = UINT64_C(5) << 31;

	ck_assert_int_eq(ftruncate(disk, sectors * SECTOR), 0);
	ck_assert(succeed(false));
	start(USUAL);
	expect_continued();
	ck_assert_uint_eq(read_sized(VIRTIO_MMIO_CONFIG, 8), sectors);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_CONFIG_GENERATION), 0);
	ck_assert_uint_eq(io.raised, 0);
	ck_assert_int_eq(ftruncate(disk, (sectors - 1) * SECTOR), 0);
	expect_refused(false, "smaller");
}
END_TEST

START_TEST(a_disk_that_grows_before_driver_ok_interrupts_nobody)
{
	uint32_t generation;

	ck_assert(negotiate(USUAL));
	generation = rd(VIRTIO_MMIO_CONFIG_GENERATION);
	ck_assert_int_eq(ftruncate(disk, 2 * SECTORS * SECTOR), 0);
	expect_continued();
	ck_assert_uint_ne(rd(VIRTIO_MMIO_CONFIG_GENERATION), generation);
	ck_assert_uint_eq(io.raised, 0);
	ck_assert_uint_eq(rd(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}
END_TEST

START_TEST(a_smaller_disk_is_refused)
{
	start(USUAL);
	ck_assert_int_eq(ftruncate(disk, (SECTORS - 1) * SECTOR), 0);
	expect_refused(false, "smaller");
}
END_TEST

START_TEST(a_disk_that_is_read_only_now_is_refused)
{
	start(USUAL);
	expect_refused(true, "read-only");
}
END_TEST

START_TEST(a_disk_that_is_not_read_only_any_more_is_refused)
{
	ck_assert(succeed(false));
	io.adopted = false;
	ck_assert(open_unit(path, DISK_READ_ONLY, false));
	start(USUAL);
	expect_refused(false, "read-only");
}
END_TEST

static void
left_nonsense(unsigned what)
{
	switch (what) {
	case 0:
		left()->status |= 0x10;
		break;
	case 1:
		left()->status |= 0x80000000;
		break;
	case 2:
		left()->driver_features |= UINT64_C(1) << 50;
		break;
	case 3:
		left()->queue.ready = 2;
		break;
	case 4:
		left()->queue.num = 3;
		break;
	case 5:
		left()->queue.last_avail_idx += 5;
		break;
	case 6:
		left()->queue.inflight[0] = 6;
		break;
	case 7:
		left()->write_through = 3;
		break;
	case 8:
		left()->queue.driver++;
		break;
	case 9:
		left()->queue.device += 2;
		break;
	case 10:
		left()->flush_failed = 2;
		break;
	}
}

START_TEST(a_state_that_makes_no_sense_is_refused)
{
	start(USUAL);
	left_nonsense(_i);
	expect_refused(false, "cannot restore");
}
END_TEST

static int
status_of(uint32_t type)
{
	struct vring_used_elem e;

	offer(0, type, 0);
	notify();
	ck_assert(fake_driver_take(&drv, &e));
	return slot(0)[SLOT_STATUS];
}

/*
 * And no reset, nor a successor, makes it good again.
 */
START_TEST(a_flush_that_failed_is_not_forgotten)
{
	start(USUAL | WCE);
	ck_assert_int_eq(status_of(VIRTIO_BLK_T_FLUSH), VIRTIO_BLK_S_OK);
	if (_i) { /* or one of ours */
		sync_error = EIO;
		ck_assert(write_sized(WCE_AT, 1, 0));
		sync_error = 0;
		ck_assert_int_eq(
		    status_of(VIRTIO_BLK_T_OUT), VIRTIO_BLK_S_IOERR);
		ck_assert(write_sized(WCE_AT, 1, 1));
	} else {
		fake_uring.error = EIO;
		fake_uring.fail = 1;
		ck_assert_int_eq(
		    status_of(VIRTIO_BLK_T_FLUSH), VIRTIO_BLK_S_IOERR);
	}
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_ptr_nonnull(strstr(lg.last, "flush failed"));
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(
		    status_of(VIRTIO_BLK_T_FLUSH), VIRTIO_BLK_S_IOERR);
		ck_assert_int_eq(status_of(VIRTIO_BLK_T_OUT), VIRTIO_BLK_S_OK);
		if (i > 0)
			wr(VIRTIO_MMIO_STATUS, 0);
		if (i != 1) { /* killed, in use or after a reset */
			ck_assert(succeed(false));
			ck_assert_uint_eq(lg.lines, i == 0 ? 2 : 1);
			ck_assert_ptr_nonnull(strstr(lg.last, "flush failed"));
		}
		if (i > 0)
			start(USUAL | WCE);
	}
}
END_TEST

START_TEST(features_that_are_gone_are_refused)
{
	start(USUAL);
	left()->device_features |= FEATURE(VIRTIO_BLK_F_SECURE_ERASE);
	expect_refused(false, "feature that was offered");
}
END_TEST

/*
 * A discard that fails does no harm; a guest that is blocked does not continue.
 */
START_TEST(a_disk_that_cannot_discard_any_more_is_continued)
{
	start(USUAL | FEATURE(VIRTIO_BLK_F_DISCARD));
	ck_assert(left()->device_features & FEATURE(VIRTIO_BLK_F_DISCARD));
	io.adopted = true;
	ck_assert(open_unit(path, DISK_NO_DISCARD, false));
	ck_assert(offered() & FEATURE(VIRTIO_BLK_F_DISCARD));
	wr(VIRTIO_MMIO_STATUS, 0);
	ck_assert(!(offered() & FEATURE(VIRTIO_BLK_F_DISCARD)));
}
END_TEST

START_TEST(features_that_are_new_are_offered_after_a_reset)
{
	uint64_t all;

	start(USUAL);
	all = left()->device_features;
	left()->device_features &= ~FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
	expect_continued();
	ck_assert_uint_eq(offered(), all & ~FEATURE(VIRTIO_BLK_F_WRITE_ZEROES));
	wr(VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(offered(), all);
}
END_TEST

START_TEST(another_block_size_is_refused)
{
	start(USUAL);
	left()->blk_size = 4096;
	expect_refused(false, "block size");
}
END_TEST

/* Without a medium. */

/*
 * As succeed(), with another disk: 'name' is "none" or 'path'.
 */
static bool
exchange(const char *name, unsigned how)
{
	fake_uring_init();
	fake_log_init(&lg);
	io.adopted = true;
	io.raised = io.lowered = 0;
	return open_unit(name, how, false);
}

static void
expect_refused_disk(unsigned how, const char *why)
{
	struct ioreq_server before = io;

	ck_assert(!exchange(path, how));
	ck_assert_uint_eq(lg.lines, 1);
	ck_assert_msg(strstr(lg.last, why) != NULL, "said: %s", lg.last);
	ck_assert_mem_eq(io.state, before.state, sizeof(io.state));
	/* The guest has what it had. */
	ck_assert(exchange(DISK_NONE, 0));
	ck_assert_uint_eq(read_sized(VIRTIO_MMIO_CONFIG, 8), 0);
	ck_assert_uint_eq(io.raised, 0);
}

static void
begin_empty(unsigned how, uint64_t features)
{
	fake_log_init(&lg);
	ck_assert(open_unit(DISK_NONE, how, false));
	ck_assert_uint_eq(lg.lines, 0);
	start(features);
	ck_assert_uint_eq(read_sized(VIRTIO_MMIO_CONFIG, 8), 0);
}

/*
 * The driver is told of this size, once.
 */
static void
expect_announced(uint64_t sectors, uint32_t generation)
{
	ck_assert_uint_ne(rd(VIRTIO_MMIO_CONFIG_GENERATION), generation);
	ck_assert_uint_eq(read_sized(VIRTIO_MMIO_CONFIG, 8), sectors);
	ck_assert_uint_eq(io.raised, 1);
	ck_assert_uint_eq(
	    rd(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
}

static void
expect_failed(unsigned i)
{
	struct vring_used_elem e;

	ck_assert(fake_driver_take(&drv, &e));
	ck_assert_uint_eq(e.id, 3 * i);
	ck_assert_uint_eq(slot(i)[SLOT_STATUS], VIRTIO_BLK_S_IOERR);
}

START_TEST(without_a_medium_every_request_fails_but_for_the_name)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
	    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_FLUSH};

	begin_empty(_i == 3 ? DISK_READ_ONLY : 0, USUAL);
	offer(1, types[_i], 0);
	notify();
	expect_failed(1);
	offer(2, VIRTIO_BLK_T_GET_ID, 0);
	notify();
	take(2, VIRTIO_BLK_ID_BYTES);
	ck_assert_uint_eq(lg.lines, 0);
}
END_TEST

START_TEST(without_a_medium_all_is_offered_that_a_disk_would)
{
	uint64_t with = offered();

	ck_assert(exchange(DISK_NONE, 0));
	ck_assert_uint_eq(offered(), with);
	ck_assert(exchange(path, DISK_READ_ONLY));
	with = offered();
	ck_assert(exchange(DISK_NONE, DISK_READ_ONLY));
	ck_assert_uint_eq(offered(), with);
	ck_assert(exchange(DISK_NONE, DISK_NO_DISCARD));
	ck_assert(!(offered() & FEATURE(VIRTIO_BLK_F_DISCARD)));
	/* There is no file to be opened for that. */
	ck_assert(exchange(DISK_NONE, DISK_DIRECT));
}
END_TEST

START_TEST(a_disk_that_is_inserted_is_announced_and_used)
{
	uint32_t generation;

	begin_empty(0, USUAL);
	generation = rd(VIRTIO_MMIO_CONFIG_GENERATION);
	ck_assert(exchange(path, 0));
	expect_announced(SECTORS, generation);
	expect_working();
	/* And what is known of it counts from now on. */
	ck_assert_int_eq(ftruncate(disk, (SECTORS - 1) * SECTOR), 0);
	expect_refused(false, "smaller");
}
END_TEST

START_TEST(of_an_ejected_disk_what_was_in_flight_fails)
{
	static const uint32_t types[] = {
	    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH};
	uint32_t generation;

	start(USUAL);
	generation = rd(VIRTIO_MMIO_CONFIG_GENERATION);
	fake_uring.hold = true;
	for (unsigned i = 0; i < COUNT(types); i++)
		offer(i, types[i], 5);
	wr(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	device_process_queue(dev, false);
	ck_assert_uint_eq(drv.used->idx, 0);
	ck_assert(exchange(DISK_NONE, 0));
	expect_announced(0, generation);
	settle();
	for (unsigned i = 0; i < COUNT(types); i++)
		expect_failed(i);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	/* Another one, smaller, and with nothing of that in it. */
	generation = rd(VIRTIO_MMIO_CONFIG_GENERATION);
	resize(SECTORS / 2);
	ck_assert(exchange(path, 0));
	expect_announced(SECTORS / 2, generation);
	expect_working();
}
END_TEST

START_TEST(a_failed_flush_is_of_the_disk_that_is_ejected)
{
	start(USUAL);
	left()->flush_failed = 1;
	ck_assert(exchange(path, 0));
	ck_assert_uint_eq(left()->flush_failed, 1);
	ck_assert(exchange(DISK_NONE, 0));
	ck_assert_uint_eq(left()->flush_failed, 0);
	ck_assert(exchange(path, 0));
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	expect_working();
	offer(1, VIRTIO_BLK_T_FLUSH, 0);
	notify();
	take(1, 0);
}
END_TEST

START_TEST(a_failed_flush_is_forgotten_if_the_driver_is_unbound_at_the_eject)
{
	start(USUAL);
	left()->flush_failed = 1;
	ck_assert(reset_now());
	ck_assert_uint_eq(left()->flush_failed, 1);
	ck_assert(exchange(DISK_NONE, 0));
	ck_assert_uint_eq(left()->flush_failed, 0);
}
END_TEST

START_TEST(a_disk_that_cannot_be_what_was_offered_is_refused)
{
	begin_empty(0, USUAL);
	expect_refused_disk(DISK_READ_ONLY, "read-only");
	left()->device_features |= FEATURE(VIRTIO_BLK_F_SECURE_ERASE);
	ck_assert(!exchange(path, 0));
	ck_assert_ptr_nonnull(strstr(lg.last, "feature"));
}
END_TEST

START_TEST(blocks_are_as_the_driver_knows_them_until_a_reset)
{
	const uint32_t blk_size =
	    VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, blk_size);

	start(USUAL);
	left()->blk_size = 4096; /* of the one that is ejected */
	ck_assert(exchange(DISK_NONE, 0));
	ck_assert_uint_eq(rd(blk_size), 4096);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	expect_refused_disk(0, "block size");
	ck_assert_uint_eq(rd(blk_size), 4096);
	ck_assert(reset_now());
	ck_assert_uint_eq(rd(blk_size), 512);
	start(USUAL);
	ck_assert(exchange(path, 0));
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	expect_working();
}
END_TEST

START_TEST(a_disk_that_cannot_discard_may_be_inserted)
{
	begin_empty(0, USUAL | FEATURE(VIRTIO_BLK_F_DISCARD));
	ck_assert(exchange(path, DISK_NO_DISCARD));
	ck_assert_uint_eq(read_sized(VIRTIO_MMIO_CONFIG, 8), SECTORS);
	wr(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	expect_working();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("virtio_mmio");
	TCase *tc;

	tc = cases_add(s, "registers", setup, NULL);
	tcase_add_loop_test(tc,
	    every_read_of_every_size_gives_what_the_register_table_says, 0,
	    COUNT(selections));
	tcase_add_test(tc, a_write_that_means_nothing_changes_nothing);
	tcase_add_test(
	    tc, of_a_written_value_only_the_bytes_of_the_access_count);
	tcase_add_test(
	    tc, the_generation_stays_as_long_as_the_configuration_does);
	tcase_add_test(tc, a_driver_reads_64_bit_fields_in_two_halves);

	tc = cases_add(s, "status", setup, NULL);
	tcase_add_test(tc, the_features_offered_are_those_of_disk_and_ring);
	tcase_add_test(tc, status_bits_are_added_and_stay);
	tcase_add_test(
	    tc, a_driver_cannot_set_status_bits_that_are_not_its_own);
	tcase_add_test(tc, status_bits_that_do_not_exist_do_not_reset);
	tcase_add_test(tc, features_that_were_not_offered_are_not_ok);
	tcase_add_loop_test(tc,
	    features_beyond_64_are_not_ok_in_whatever_order_they_come, 0, 2);
	tcase_add_test(
	    tc, features_beyond_64_that_are_refused_by_the_driver_are_ok);
	tcase_add_test(tc, a_driver_of_before_version_1_is_not_ok);
	tcase_add_test(tc, everything_offered_can_be_accepted);
	tcase_add_test(tc, features_are_negotiated_with_features_ok);
	tcase_add_test(tc, driver_ok_without_features_ok_is_not_accepted);
	tcase_add_loop_test(
	    tc, a_driver_that_cannot_flush_gets_stable_writes, 0, 2);
	tcase_add_loop_test(
	    tc, the_next_driver_chooses_anew_how_it_writes, 0, 2);

	tc = cases_add(s, "size", setup, NULL);
	tcase_add_test(tc, the_driver_is_notified_of_a_new_size);
	tcase_add_test(tc, a_new_size_is_notified_when_the_host_permits);
	tcase_add_test(tc, another_size_before_driver_ok_is_notified_with_it);

	tc = cases_add(s, "cache", setup, NULL);
	tcase_add_test(tc, the_driver_chooses_how_it_writes);
	tcase_add_test(tc, a_driver_that_cannot_flush_begins_without_a_cache);
	tcase_add_test(tc, what_the_driver_chose_is_so_after_a_reset);
	tcase_add_loop_test(
	    tc, what_no_driver_chose_is_forgotten_at_a_reset, 0, 2);
	tcase_add_test(
	    tc, the_cache_is_not_given_up_before_it_is_agreed_that_one_can);
	tcase_add_test(tc, the_cache_is_given_up_when_nothing_is_in_flight);

	tc = cases_add(s, "queue", setup, NULL);
	tcase_add_loop_test(
	    tc, there_is_no_other_queue, 0, COUNT(other_queues));
	tcase_add_test(tc, a_queue_that_is_ready_is_not_moved_or_resized);
	tcase_add_test(tc, a_queue_made_ready_twice_goes_on_where_it_was);
	tcase_add_test(
	    tc, a_queue_made_ready_twice_with_requests_in_flight_keeps_them);
	tcase_add_loop_test(tc, a_queue_smaller_than_offered_works, 2, 9);
	tcase_add_test(
	    tc, a_queue_is_not_made_ready_before_features_are_negotiated);
	tcase_add_loop_test(
	    tc, a_bad_queue_needs_a_reset, 0, COUNT(bad_queues));
	tcase_add_test(tc, a_bad_queue_before_driver_ok_is_notified_with_it);
	tcase_add_loop_test(tc, a_bad_queue_after_driver_ok_is_also_notified, 0,
	    COUNT(bad_queues));
	tcase_add_test(
	    tc, a_guest_that_faults_all_the_time_does_not_flood_the_log);

	tc = cases_add(s, "notifications", setup, NULL);
	tcase_add_test(tc, nothing_is_taken_before_driver_ok);
	tcase_add_test(tc, nothing_is_taken_before_the_queue_is_ready);
	tcase_add_loop_test(tc, a_notification_of_another_queue_is_harmless, 0,
	    COUNT(other_queues));
	tcase_add_test(tc, a_used_buffer_is_signalled_until_it_is_acknowledged);
	tcase_add_test(tc, two_causes_are_acknowledged_one_by_one);
	tcase_add_loop_test(tc, a_batch_makes_one_interrupt, 0, 2);
	tcase_add_loop_test(
	    tc, an_interrupt_that_the_host_refuses_is_raised_later, 0, 2);
	tcase_add_loop_test(
	    tc, completions_are_signalled_before_the_rest_is_done, 0, 4);
	tcase_add_loop_test(
	    tc, half_of_long_requests_are_signalled_early, 0, 2);
	tcase_add_test(tc, the_expected_event_is_known);
	tcase_add_loop_test(
	    tc, an_interrupt_is_raised_only_if_the_driver_wants_it, 0, 2);

	tc = cases_add(s, "requests", setup, NULL);
	tcase_add_test(tc, what_is_written_can_be_read);
	tcase_add_loop_test(tc, a_full_queue_of_requests_is_served, 0, 2);
	tcase_add_test(
	    tc, as_many_requests_as_the_queue_has_descriptors_can_be_in_flight);
	tcase_add_loop_test(tc,
	    a_driver_that_notifies_only_when_asked_is_never_forgotten, 0, 2);
	tcase_add_loop_test(
	    tc, notifications_are_off_while_busy_and_on_before_sleeping, 0, 2);
	tcase_add_loop_test(tc,
	    a_chain_that_comes_while_the_device_goes_to_sleep_is_not_lost, 0,
	    4);
	tcase_add_test(
	    tc, a_vcpu_that_waits_comes_before_the_requests_not_started_yet);
	tcase_add_test(tc, a_bad_request_fails_and_the_queue_goes_on);
	tcase_add_test(
	    tc, while_paused_the_device_completes_but_does_not_start);

	tc = cases_add(s, "faults", setup, NULL);
	tcase_add_loop_test(
	    tc, a_broken_ring_stops_until_a_reset_heals_it, 0, FAULTS);
	tcase_add_test(tc, a_used_ring_that_goes_away_stops_the_queue);

	tc = cases_add(s, "reset", setup, NULL);
	tcase_add_test(tc, a_reset_of_an_idle_device_is_immediate);
	tcase_add_loop_test(tc, a_reset_waits_for_what_is_in_flight, 1, 3);
	tcase_add_test(tc, a_device_that_was_reset_in_flight_works_again);
	tcase_add_test(
	    tc, a_broken_ring_with_requests_in_flight_is_reset_after_them);
	tcase_add_loop_test(
	    tc, disabling_the_queue_waits_for_what_is_in_flight, 1, 3);
	tcase_add_test(tc, a_queue_disabled_and_enabled_starts_from_zero);
	tcase_add_test(tc, a_thousand_lives_are_like_the_first);

	tc = cases_add(s, "continuing", setup, NULL);
	tcase_add_test(tc, a_device_that_was_just_reset_is_as_new);
	tcase_add_loop_test(tc, a_reset_half_done_is_done_again, 0, 4);
	tcase_add_loop_test(tc, every_register_is_as_it_was_left, 0, 6);
	tcase_add_test(tc, a_driver_can_go_on_setting_up_where_it_was);
	tcase_add_loop_test(
	    tc, requests_in_flight_are_done_again_and_returned_once, 0, 4);
	tcase_add_test(
	    tc, with_nothing_to_take_a_successor_asks_for_notifications);
	tcase_add_loop_test(
	    tc, an_interrupt_that_may_not_have_been_raised_is_raised, 0, 3);
	tcase_add_loop_test(
	    tc, a_driver_that_does_not_flush_still_need_not, 0, 2);
	tcase_add_test(tc, a_driver_that_gave_up_the_cache_still_has_none);
	tcase_add_test(
	    tc, a_write_done_again_reaches_stable_storage_as_it_should);
	tcase_add_test(
	    tc, a_fault_that_may_not_have_been_signalled_is_signalled_again);
	tcase_add_test(tc, requests_in_flight_at_a_fault_are_left_alone);
	tcase_add_test(tc, a_request_that_became_bad_is_a_fault_and_no_end);
	tcase_add_test(tc, a_disk_that_has_grown_is_announced);
	tcase_add_test(tc, a_disk_beyond_2_tib_is_known_again);
	tcase_add_test(
	    tc, a_disk_that_grows_before_driver_ok_interrupts_nobody);
	tcase_add_test(tc, a_smaller_disk_is_refused);
	tcase_add_test(tc, a_disk_that_is_read_only_now_is_refused);
	tcase_add_test(tc, a_disk_that_is_not_read_only_any_more_is_refused);
	tcase_add_loop_test(tc, a_state_that_makes_no_sense_is_refused, 0, 11);
	tcase_add_loop_test(tc, a_flush_that_failed_is_not_forgotten, 0, 2);
	tcase_add_test(tc, features_that_are_gone_are_refused);
	tcase_add_test(tc, a_disk_that_cannot_discard_any_more_is_continued);
	tcase_add_test(tc, features_that_are_new_are_offered_after_a_reset);
	tcase_add_test(tc, another_block_size_is_refused);

	tc = cases_add(s, "medium", setup, NULL);
	tcase_add_loop_test(
	    tc, without_a_medium_every_request_fails_but_for_the_name, 0, 4);
	tcase_add_test(tc, without_a_medium_all_is_offered_that_a_disk_would);
	tcase_add_test(tc, a_disk_that_is_inserted_is_announced_and_used);
	tcase_add_test(tc, of_an_ejected_disk_what_was_in_flight_fails);
	tcase_add_test(tc, a_failed_flush_is_of_the_disk_that_is_ejected);
	tcase_add_test(tc,
	    a_failed_flush_is_forgotten_if_the_driver_is_unbound_at_the_eject);
	tcase_add_test(tc, a_disk_that_cannot_be_what_was_offered_is_refused);
	tcase_add_test(tc, blocks_are_as_the_driver_knows_them_until_a_reset);
	tcase_add_test(tc, a_disk_that_cannot_discard_may_be_inserted);
	return cases_run(s);
}
