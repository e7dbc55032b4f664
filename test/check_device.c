/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole device in one process: the shipped objects but for vdisk.o on the
 * fake host, run by a loop like vdisk's, and a well-behaved driver.
 *
 * A slow disk is made at the seam between device.c and blk.c, by wrapping
 * two functions when linking: while 'slow', what the disk has finished is kept
 * back, and counts as in flight.  No real file can be told to be slow at just
 * that time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "cases.h"
#include "fake_xen.h"
#include "stack.h"

#define VCPUS	     4
#define MIB	     (1ULL << 20)
#define RAM	     (32 * MIB)
#define DISK	     (16 * MIB)
#define SECTOR	     512

#define FEATURE(bit) (1ULL << (bit))
#define VERSION_1    FEATURE(VIRTIO_F_VERSION_1)
#define INDIRECT     FEATURE(VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX    FEATURE(VIRTIO_RING_F_EVENT_IDX)
#define FLUSH	     FEATURE(VIRTIO_BLK_F_FLUSH)

/* Both kinds of rings, with the ways of Linux and of simpler drivers. */
static const uint64_t kinds[] = {
    VERSION_1,
    VERSION_1 | INDIRECT,
    VERSION_1 | EVENT_IDX,
    VERSION_1 | INDIRECT | EVENT_IDX | FLUSH,
};

static bool slow;
static struct blk_req *kept[BLK_REQS];
static unsigned nkept;

struct blk_req *__real_blk_reap(struct blk *b);
struct blk_req *__wrap_blk_reap(struct blk *b);
unsigned __real_blk_inflight(const struct blk *b);
unsigned __wrap_blk_inflight(const struct blk *b);

struct blk_req *
__wrap_blk_reap(struct blk *b)
{
	struct blk_req *req;

	if (!slow)
		return nkept > 0 ? kept[--nkept] : __real_blk_reap(b);
	while ((req = __real_blk_reap(b)) != NULL)
		kept[nkept++] = req;
	return NULL;
}

unsigned
__wrap_blk_inflight(const struct blk *b)
{
	return __real_blk_inflight(b) + nkept;
}

static void
steps(unsigned n)
{
	while (n-- > 0)
		stack_step();
}

static void
setup_as(bool with_grants)
{
	slow = false;
	stack_open(&(struct stack_config){.vcpus = VCPUS,
	    .low = RAM,
	    .high = RAM,
	    .disk = DISK,
	    .grants = with_grants});
}

static void
setup(void)
{
	setup_as(false);
}

static void
setup_grants(void)
{
	setup_as(true);
}

static void
start(int kind, uint16_t num)
{
	drv.indirect = true;
	driver_start(&drv, kinds[kind], num);
}

/* From the driver's descriptors on the guest has other data. */
static void
reuse_rings(void)
{
	memset(fake_xen_ram(drv.desc), 0xee, drv.heap - drv.desc);
}

static void
assert_rings_left_alone(void)
{
	const uint8_t *rings = fake_xen_ram(drv.desc);

	ck_assert(rings[0] == 0xee &&
		  memcmp(rings, rings + 1, drv.heap - drv.desc - 1) == 0);
}

/* 'n' writes of 4096 bytes each are with the disk, which does not finish. */
static void
fill_disk_queue(unsigned n)
{
	uint64_t gpa = driver_pattern(&drv, 4096, 11);
	unsigned i;

	slow = true;
	for (i = 0; i < n; i++)
		ck_assert_int_ge(
		    driver_request(&drv, VIRTIO_BLK_T_OUT, 8 * i, gpa, 4096),
		    0);
	driver_kick(&drv);
	driver_patience(&drv);
	while (blk_inflight(blk) != n)
		driver_wait(&drv);
}

START_TEST(negotiation_as_linux_does_it_ends_with_a_disk)
{
	driver_start(
	    &drv, UINT64_MAX & ~FEATURE(VIRTIO_F_ACCESS_PLATFORM), 256);
	ck_assert_uint_eq(drv.features & (VERSION_1 | INDIRECT | EVENT_IDX),
	    VERSION_1 | INDIRECT | EVENT_IDX);
	ck_assert_uint_eq(
	    driver_read(&drv, VIRTIO_MMIO_CONFIG) |
		(uint64_t)driver_read(&drv, VIRTIO_MMIO_CONFIG + 4) << 32,
	    DISK / SECTOR);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, 0,
			      driver_pattern(&drv, 4096, 1), 4096),
	    VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(nothing_is_offered_that_needs_more_than_foreign_mappings)
{
	driver_negotiate(&drv, 0);
	ck_assert_uint_eq(drv.offered & FEATURE(VIRTIO_F_ACCESS_PLATFORM), 0);
	ck_assert_uint_eq(drv.offered & FEATURE(VIRTIO_F_RING_PACKED), 0);
}
END_TEST

START_TEST(data_written_is_in_the_file_and_is_read_back)
{
	const uint32_t len = 64 << 10;
	uint64_t out, in;

	start(_i, 16);
	out = driver_pattern(&drv, len, 2);
	in = driver_alloc(&drv, len, 16);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 24, out, len), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 24, out, len));
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_IN, 24, in, len), VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(fake_xen_ram(in), fake_xen_ram(out), len);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(drv.interrupts, 3);
	ck_assert_uint_eq(drv.spurious, 0);
}
END_TEST

START_TEST(the_used_length_is_what_was_written_to_memory)
{
	uint64_t gpa;
	int head;

	start(_i, 16);
	gpa = driver_pattern(&drv, 8192, 3);
	head = driver_request(&drv, VIRTIO_BLK_T_IN, 0, gpa, 8192);
	driver_kick(&drv);
	driver_drain(&drv);
	ck_assert_uint_eq(drv.written[head], 8193);
	head = driver_request(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 8192);
	driver_kick(&drv);
	driver_drain(&drv);
	ck_assert_uint_eq(drv.written[head], 1);
}
END_TEST

START_TEST(the_serial_can_be_asked_for)
{
	uint64_t gpa;

	start(_i, 16);
	gpa = driver_pattern(&drv, VIRTIO_BLK_ID_BYTES, 4);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_GET_ID, 0, gpa, VIRTIO_BLK_ID_BYTES),
	    VIRTIO_BLK_S_OK);
	ck_assert_str_eq(fake_xen_ram(gpa), "serial 1");
}
END_TEST

START_TEST(any_framing_gives_the_same_data)
{
	static const uint32_t pieces[] = {0, 1, 7, 16, 100, 511, 513};
	const uint32_t len = 1024;
	uint64_t out, in;
	unsigned i;

	start(_i, 256);
	for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		/* A direct chain of 1041 bytes would not fit the queue. */
		drv.piece = pieces[i];
		if (pieces[i] == 1)
			drv.piece = 5;
		out = driver_pattern(&drv, len, i);
		in = driver_alloc(&drv, len, 1);
		ck_assert_uint_eq(
		    driver_io(&drv, VIRTIO_BLK_T_OUT, 2 * i, out, len),
		    VIRTIO_BLK_S_OK);
		ck_assert(driver_in_file(file, 2 * i, out, len));
		ck_assert_uint_eq(
		    driver_io(&drv, VIRTIO_BLK_T_IN, 2 * i, in, len),
		    VIRTIO_BLK_S_OK);
		ck_assert_mem_eq(fake_xen_ram(in), fake_xen_ram(out), len);
	}
}
END_TEST

START_TEST(header_and_data_and_status_may_share_buffers)
{
	const uint32_t len = 512;
	uint64_t out, in;
	struct virtio_blk_outhdr *hdr;
	struct driver_buf buf[2];

	start(_i, 16);
	out = driver_alloc(&drv, 16 + len + 1, 16);
	in = driver_alloc(&drv, 16 + len + 1, 16);
	hdr = fake_xen_ram(out);
	*hdr =
	    (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_OUT, .sector = 9};
	memset(hdr + 1, 0x77, len);
	buf[0] = (struct driver_buf){out, 16 + len, false};
	buf[1] = (struct driver_buf){out + 16 + len, 1, true};
	*(uint8_t *)fake_xen_ram(buf[1].gpa) = 0xff;
	driver_add(&drv, buf, 2);
	driver_kick(&drv);
	driver_drain(&drv);
	ck_assert_uint_eq(*(uint8_t *)fake_xen_ram(buf[1].gpa), 0);
	ck_assert(driver_in_file(file, 9, out + 16, len));

	hdr = fake_xen_ram(in);
	*hdr = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = 9};
	buf[0] = (struct driver_buf){in, 16, false};
	buf[1] = (struct driver_buf){in + 16, len + 1, true};
	*(uint8_t *)fake_xen_ram(in + 16 + len) = 0xff;
	driver_add(&drv, buf, 2);
	driver_kick(&drv);
	driver_drain(&drv);
	ck_assert_uint_eq(*(uint8_t *)fake_xen_ram(in + 16 + len), 0);
	ck_assert_mem_eq(fake_xen_ram(in + 16), fake_xen_ram(out + 16), len);
}
END_TEST

START_TEST(many_requests_all_come_back_right)
{
	enum { N = 2000, LEN = 4096 };
	static uint32_t seed[DISK / LEN];
	uint64_t out[64], gpa;
	unsigned i, at;
	uint32_t *p;

	start(_i, 64);
	for (i = 0; i < 64; i++)
		out[i] = driver_alloc(&drv, LEN, LEN);
	srand(1);
	for (i = 0; i < N; i++) {
		/* A buffer is free again when its turn's requests are. */
		if (i % 64 == 0) {
			driver_kick(&drv);
			driver_drain(&drv);
		}
		at = (unsigned)rand() % (DISK / LEN);
		/* Two writes to one place would have no order. */
		while (seed[at] / 64 == i / 64 + 1)
			at = (at + 1) % (DISK / LEN);
		seed[at] = i + 64;
		p = fake_xen_ram(out[i % 64]);
		p[0] = p[LEN / 4 - 1] = seed[at];
		while (driver_request(&drv, VIRTIO_BLK_T_OUT,
			   at * (LEN / SECTOR), out[i % 64], LEN) < 0) {
			driver_kick(&drv);
			driver_wait(&drv);
			driver_interrupt(&drv);
		}
		if (i % 5 == 0)
			driver_kick(&drv);
	}
	driver_kick(&drv);
	driver_drain(&drv);
	gpa = driver_alloc(&drv, LEN, LEN);
	p = fake_xen_ram(gpa);
	for (at = 0; at < DISK / LEN; at += 7) {
		ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_IN,
				      at * (LEN / SECTOR), gpa, LEN),
		    VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(p[0], seed[at]);
		ck_assert_uint_eq(p[LEN / 4 - 1], seed[at]);
	}
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(a_request_larger_than_the_queue_waits_for_nobody)
{
	uint64_t gpa;

	start(_i, 4);
	gpa = driver_pattern(&drv, MIB, 5);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, MIB), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 0, gpa, MIB));
}
END_TEST

START_TEST(a_request_may_have_as_many_segments_as_are_offered)
{
	uint64_t out, in;
	int head;

	drv.indirect = true;
	driver_start(
	    &drv, kinds[_i] | INDIRECT | FEATURE(VIRTIO_BLK_F_SEG_MAX), 256);
	drv.piece = 16 << 10;
	out = driver_pattern(&drv, 254 * drv.piece, 5);
	in = driver_alloc(&drv, 254 * drv.piece, 1);
	head = driver_request(&drv, VIRTIO_BLK_T_OUT, 0, out, 254 * drv.piece);
	ck_assert_int_ge(head, 0);
	driver_kick(&drv);
	driver_drain(&drv);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 0, out, 254 * drv.piece));
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_IN, 0, in, 254 * drv.piece), 0);
	ck_assert_mem_eq(fake_xen_ram(in), fake_xen_ram(out), 254 * drv.piece);
}
END_TEST

START_TEST(the_second_bank_takes_rings_and_data)
{
	uint64_t out, in;

	driver_init(&drv, BASE, FAKE_XEN_HIGH, RAM);
	drv.step = stack_step;
	drv.grants = grants != NULL;
	start(_i, 32);
	ck_assert_uint_ge(drv.desc, FAKE_XEN_HIGH);
	out = driver_pattern(&drv, MIB, 6);
	in = driver_alloc(&drv, MIB, 1);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 8, out, MIB), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 8, out, MIB));
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_IN, 8, in, MIB), VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(fake_xen_ram(in), fake_xen_ram(out), MIB);
	/* Nothing of it went to the same address in the first bank. */
	ck_assert_uint_eq(*(uint32_t *)fake_xen_ram(FAKE_XEN_LOW), 0);
}
END_TEST

START_TEST(four_vcpus_may_touch_the_device_at_once)
{
	unsigned vcpu, round;
	uint64_t gpa;

	start(_i, 64);
	gpa = driver_pattern(&drv, 4096, 7);
	for (round = 0; round < 200; round++) {
		int head = driver_request(
		    &drv, VIRTIO_BLK_T_OUT, 8 * round, gpa, 4096);

		ck_assert_int_ge(head, 0);
		driver_begin(&drv, 0, true, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
		driver_begin(
		    &drv, 1, false, VIRTIO_MMIO_INTERRUPT_STATUS, 4, 0);
		driver_begin(&drv, 2, false, VIRTIO_MMIO_MAGIC_VALUE, 4, 0);
		driver_begin(&drv, 3, false, VIRTIO_MMIO_CONFIG, 8, 0);
		for (vcpu = 4; vcpu-- > 0;) {
			uint64_t data = driver_end(&drv, vcpu);

			if (vcpu == 2)
				ck_assert_uint_eq((uint32_t)data, 0x74726976);
			if (vcpu == 3)
				ck_assert_uint_eq(data, DISK / SECTOR);
		}
		drv.vcpu = round % VCPUS;
		driver_until(&drv, head);
		ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_OK);
	}
}
END_TEST

START_TEST(a_batch_costs_one_interrupt)
{
	start(_i, 64);
	fill_disk_queue(20);
	driver_patience(&drv);
	while (nkept < 20)
		driver_wait(&drv);
	ck_assert_uint_eq(fake_xen_irq_raised(), 0);
	ck_assert_uint_eq(driver_used(&drv)->idx, 0);
	slow = false;
	driver_drain(&drv);
	ck_assert_uint_eq(fake_xen_irq_raised(), 1);
	ck_assert_uint_eq(drv.interrupts, 1);
}
END_TEST

START_TEST(kicks_are_suppressed_while_the_device_polls)
{
	uint64_t gpa;
	unsigned i;

	start(_i, 256);
	gpa = driver_pattern(&drv, 512, 9);
	for (i = 0; i < 50; i++)
		driver_request(&drv, VIRTIO_BLK_T_OUT, i, gpa, 512);
	ck_assert(driver_kick(&drv));
	driver_drain(&drv);
	ck_assert_uint_eq(drv.kicks, 1);
	/* And asked for again when it sleeps, or nothing would move. */
	steps(3);
	driver_request(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 512);
	ck_assert(driver_kick(&drv));
	driver_drain(&drv);
}
END_TEST

START_TEST(a_kick_is_answered_before_the_disk_is_done)
{
	uint64_t gpa;

	start(_i, 16);
	gpa = driver_pattern(&drv, 512, 10);
	slow = true;
	driver_request(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 512);
	ck_assert(driver_kick(&drv));
	steps(2);
	ck_assert_uint_eq(drv.inflight, 1);
	ck_assert_uint_eq(driver_used(&drv)->idx, 0);
	slow = false;
	driver_drain(&drv);
}
END_TEST

static bool
waits(unsigned vcpu)
{
	uint64_t data;

	steps(5);
	return !fake_xen_answered(vcpu, &data);
}

START_TEST(a_reset_waits_for_requests_in_flight)
{
	start(_i, 64);
	fill_disk_queue(10);
	driver_begin(&drv, 0, true, VIRTIO_MMIO_STATUS, 4, 0);
	ck_assert(waits(0));
	/* Other vCPUs are served meanwhile, and see the old life. */
	ck_assert_uint_eq(
	    (drv.vcpu = 1, driver_read(&drv, VIRTIO_MMIO_STATUS)), 15);
	slow = false;
	driver_end(&drv, 0);
	ck_assert_uint_eq(blk_inflight(blk), 0);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS), 0);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_QUEUE_READY), 0);
}
END_TEST

START_TEST(after_a_reset_guest_memory_is_left_alone)
{
	uint64_t gpa;

	start(_i, 64);
	fill_disk_queue(10);
	driver_begin(&drv, 0, true, VIRTIO_MMIO_STATUS, 4, 0);
	/* Not to be taken any more: */
	gpa = driver_pattern(&drv, 512, 12);
	driver_request(&drv, VIRTIO_BLK_T_OUT, 1000, gpa, 512);
	driver_begin(&drv, 1, true, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
	driver_end(&drv, 1);
	slow = false;
	driver_end(&drv, 0);
	reuse_rings();
	ck_assert_uint_eq(blk_inflight(blk), 0);
	steps(100);
	assert_rings_left_alone();
	ck_assert(!driver_in_file(file, 1000, gpa, 512));
}
END_TEST

/* Of a kernel that was replaced by another one, which has not come to it yet. */
START_TEST(while_a_device_is_looked_for_its_rings_are_left_alone)
{
	static const unsigned probed[] = {VIRTIO_MMIO_MAGIC_VALUE,
	    VIRTIO_MMIO_VERSION, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_VENDOR_ID,
	    VIRTIO_MMIO_STATUS};
	uint64_t gpa;

	start(_i, 64);
	gpa = driver_pattern(&drv, 512, 12);
	driver_request(&drv, VIRTIO_BLK_T_OUT, 1000, gpa, 512);
	driver_kick(&drv);
	driver_drain(&drv);
	steps(5);
	reuse_rings();
	for (unsigned i = 0; i < sizeof(probed) / sizeof(probed[0]); i++) {
		driver_read(&drv, probed[i]);
		steps(5);
	}
	assert_rings_left_alone();
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS), 15);
	ck_assert_uint_eq(logger.lines, 0);
	driver_reset(&drv);
	memset(fake_xen_ram(drv.desc), 0, drv.heap - drv.desc);
	start(_i, 64);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 8, gpa, 512), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(a_doorbell_counts_though_another_vcpu_looks_for_the_device)
{
	uint64_t gpa;

	start(_i, 64);
	gpa = driver_pattern(&drv, 512, 12);
	for (unsigned i = 0; i < 10; i++) {
		steps(5);
		driver_request(&drv, VIRTIO_BLK_T_OUT, i, gpa, 512);
		driver_begin(&drv, 0, true, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
		driver_begin(&drv, 1, false, VIRTIO_MMIO_MAGIC_VALUE, 4, 0);
		driver_end(&drv, 0);
		driver_end(&drv, 1);
		driver_drain(&drv);
	}
}
END_TEST

/* A driver whose device is at rest, and the address of what it has written. */
static uint64_t
start_and_use(int kind)
{
	uint64_t gpa;

	start(kind, 64);
	gpa = driver_pattern(&drv, 512, 12);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 8, gpa, 512), VIRTIO_BLK_S_OK);
	device_process_queue(dev, false);
	return gpa;
}

static void
look_for_device(void)
{
	struct access a = {
	    .offset = VIRTIO_MMIO_MAGIC_VALUE, .kind = ACCESS_READ, .size = 4};

	ck_assert(device_access(dev, &a));
}

START_TEST(a_chain_counts_though_another_vcpu_looks_for_the_device)
{
	uint64_t gpa = start_and_use(_i);
	int head;

	/* Found when doorbells were enabled: there is none for it. */
	head = driver_request(&drv, VIRTIO_BLK_T_OUT, 9, gpa, 512);
	ck_assert(device_enable_notify(dev));
	look_for_device();
	steps(50);
	driver_interrupt(&drv);
	ck_assert(drv.done[head]);
}
END_TEST

/* The loop goes to sleep, and cannot map the rings to ask for a doorbell. */
static void
fail_to_enable_notify(void)
{
	guest_unmap_all(guest);
	fake_xen_starve(ENOENT);
	ck_assert(!device_enable_notify(dev));
	ck_assert(device_starved(dev));
	fake_xen_starve(0);
}

/*
 * Who was not told to notify does not, whatever another vCPU looks for.
 */
START_TEST(without_memory_to_ask_for_doorbells_none_is_waited_for)
{
	uint64_t gpa = start_and_use(_i);

	fail_to_enable_notify();
	look_for_device();
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 9, gpa, 512), VIRTIO_BLK_S_OK);
}
END_TEST

/*
 * Nor is it forgotten that a new kernel looks for the device.
 */
START_TEST(without_memory_to_ask_for_doorbells_it_is_still_looked_for)
{
	start_and_use(_i);
	look_for_device();
	fail_to_enable_notify();
	do /* the host is not asked again at once */
		device_process_queue(dev, false);
	while (device_starved(dev));
	ck_assert(!device_enable_notify(dev));
	reuse_rings();
	steps(5);
	assert_rings_left_alone();
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS), 15);
}
END_TEST

START_TEST(a_reset_device_works_again)
{
	uint64_t out;
	unsigned i;

	for (i = 0; i < 5; i++) {
		start(_i, 64 >> i);
		out = driver_pattern(&drv, 4096, i);
		ck_assert_uint_eq(
		    driver_io(&drv, VIRTIO_BLK_T_OUT, i, out, 4096),
		    VIRTIO_BLK_S_OK);
		ck_assert(driver_in_file(file, i, out, 4096));
		if (i % 2 == 0)
			fill_disk_queue(1);
		slow = false;
		driver_reset(&drv);
		/* Interrupts of the old life are gone. */
		fake_xen_irq_take();
		ck_assert_uint_eq(
		    driver_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
		ck_assert(!fake_xen_irq_up());
	}
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(disabling_the_queue_waits_for_requests_in_flight)
{
	start(_i, 64);
	fill_disk_queue(10);
	driver_begin(&drv, 0, true, VIRTIO_MMIO_QUEUE_READY, 4, 0);
	ck_assert(waits(0));
	drv.vcpu = 1;
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_QUEUE_READY), 1);
	slow = false;
	driver_end(&drv, 0);
	ck_assert_uint_eq(blk_inflight(blk), 0);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_QUEUE_READY), 0);
	/* What was in flight has been returned. */
	driver_drain(&drv);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS), 15);
}
END_TEST

START_TEST(pages_given_back_are_unmapped_when_nothing_is_in_flight)
{
	start(_i, 64);
	fill_disk_queue(10);
	ck_assert_uint_gt(fake_xen_mapped(0), 0);
	driver_invalidate(&drv, 0);
	ck_assert(waits(0));
	ck_assert_uint_gt(fake_xen_mapped(0), 0);
	slow = false;
	driver_end(&drv, 0);
	driver_drain(&drv);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS), 15);
}
END_TEST

START_TEST(new_requests_wait_until_pages_are_given_back)
{
	uint64_t gpa;

	start(_i, 64);
	fill_disk_queue(10);
	driver_invalidate(&drv, 0);
	ck_assert(waits(0));
	gpa = driver_pattern(&drv, 512, 13);
	driver_request(&drv, VIRTIO_BLK_T_OUT, 1000, gpa, 512);
	driver_begin(&drv, 1, true, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
	driver_end(&drv, 1);
	steps(10);
	ck_assert_uint_eq(blk_inflight(blk), 10);
	slow = false;
	driver_end(&drv, 0);
	driver_drain(&drv);
	ck_assert(driver_in_file(file, 1000, gpa, 512));
}
END_TEST

START_TEST(a_page_that_changed_hands_is_used_anew)
{
	uint64_t gpa;

	start(_i, 64);
	gpa = driver_alloc(&drv, 4096, 4096);
	memset(fake_xen_ram(gpa), 0x11, 4096);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 4096), VIRTIO_BLK_S_OK);
	fake_xen_take_page(gpa);
	driver_invalidate(&drv, 0);
	driver_end(&drv, 0);
	fake_xen_give_page(gpa);
	memset(fake_xen_ram(gpa), 0x22, 4096);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 4096), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 0, gpa, 4096));
}
END_TEST

START_TEST(data_in_a_hole_is_the_drivers_fault)
{
	uint64_t gpa;
	int head;

	start(_i, 64);
	gpa = driver_alloc(&drv, 4096, 4096);
	fake_xen_take_page(gpa);
	driver_invalidate(&drv, 0);
	driver_end(&drv, 0);
	head = driver_request(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 4096);
	ck_assert_int_ge(head, 0);
	driver_kick(&drv);
	driver_patience(&drv);
	while (!fake_xen_irq_up())
		driver_wait(&drv);
	fake_xen_irq_take();
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS),
	    VIRTIO_MMIO_INT_CONFIG);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS),
	    15 | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(driver_used(&drv)->idx, 0);
	ck_assert_uint_eq(logger.lines, 1);
	driver_reset(&drv);
	fake_xen_give_page(gpa);
	start(_i, 64);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 4096), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(after_a_fault_what_is_in_flight_does_not_return_and_a_reset_helps)
{
	uint64_t gpa;

	start(_i, 64);
	fill_disk_queue(10);
	driver_avail(&drv)->ring[drv.avail_idx % drv.num] = 0xffff;
	driver_avail(&drv)->idx = drv.avail_idx + 1;
	driver_write(&drv, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	steps(5);
	ck_assert_uint_eq(
	    driver_read(&drv, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET,
	    VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_begin(&drv, 0, true, VIRTIO_MMIO_STATUS, 4, 0);
	ck_assert(waits(0));
	slow = false;
	driver_end(&drv, 0);
	driver_reset(&drv);
	start(_i, 64);
	gpa = driver_pattern(&drv, 512, 14);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 512), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(beyond_the_end_nothing_is_written_and_the_queue_goes_on)
{
	const uint64_t end = DISK / SECTOR;
	uint64_t gpa;

	start(_i, 64);
	gpa = driver_pattern(&drv, 1024, 15);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, end, gpa, 512),
	    VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, end - 1, gpa, 1024),
	    VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_IN, UINT64_MAX, gpa, 512),
	    VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, UINT64_MAX / 512 + 1, gpa, 512),
	    VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(lseek(file, 0, SEEK_END), DISK);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, end - 2, gpa, 1024),
	    VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, end - 2, gpa, 1024));
}
END_TEST

START_TEST(a_polling_driver_needs_no_interrupts)
{
	uint64_t gpa;
	unsigned i;

	start(_i, 16);
	driver_avail(&drv)->flags = VRING_AVAIL_F_NO_INTERRUPT;
	*driver_used_event(&drv) = 0x8000;
	gpa = driver_pattern(&drv, 512, 16);
	for (i = 0; i < 100; i++) {
		ck_assert_int_ge(
		    driver_request(&drv, VIRTIO_BLK_T_OUT, i, gpa, 512), 0);
		driver_kick(&drv);
		driver_patience(&drv);
		while (!driver_take(&drv))
			driver_wait(&drv);
	}
	ck_assert_uint_eq(fake_xen_irq_raised(), 0);
}
END_TEST

START_TEST(the_ring_index_may_wrap)
{
	uint64_t gpa;
	unsigned i;
	int head;

	/* 65536 requests and some, 32 at a time. */
	start(_i, 128);
	gpa = driver_pattern(&drv, 512, 17);
	for (i = 0; i < 65536 / 32 + 4; i++) {
		do
			head = driver_request(
			    &drv, VIRTIO_BLK_T_GET_ID, 0, gpa, 20);
		while (head >= 0 && drv.inflight < 32);
		driver_kick(&drv);
		driver_drain(&drv);
	}
	ck_assert_uint_lt(drv.used_idx, 1000);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 3, gpa, 512), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(memory_is_mapped_once_not_per_request)
{
	uint64_t gpa;
	unsigned i, calls;

	start(_i, 64);
	gpa = driver_pattern(&drv, 64 << 10, 18);
	driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 64 << 10);
	calls = fake_xen_calls(XC_MAP2);
	for (i = 0; i < 100; i++)
		driver_io(&drv, VIRTIO_BLK_T_OUT, i, gpa, 64 << 10);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), calls);
}
END_TEST

/*
 * Whether every page of a buffer is in a copy of the guest as it is.
 */
static bool
in_copy(uint64_t gpa, uint32_t len)
{
	for (uint64_t page = gpa & -4096ULL; page < gpa + len; page += 4096)
		if (!fake_xen_copied(page))
			return false;
	return true;
}

START_TEST(whatever_is_written_is_in_a_copy_of_the_guest)
{
	static const struct {
		uint32_t type;
		uint64_t sector;
		uint32_t len;
		uint8_t status;
	} requests[] = {
	    {VIRTIO_BLK_T_IN, 0, 8192, VIRTIO_BLK_S_OK},
	    {VIRTIO_BLK_T_IN, 0, 1 << 20, VIRTIO_BLK_S_OK},
	    {VIRTIO_BLK_T_IN, DISK / SECTOR, 512, VIRTIO_BLK_S_IOERR},
	    {VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_OK},
	    {VIRTIO_BLK_T_OUT, 0, 512, VIRTIO_BLK_S_OK},
	    {VIRTIO_BLK_T_FLUSH, 0, 0, VIRTIO_BLK_S_OK},
	    {77, 0, 512, VIRTIO_BLK_S_UNSUPP},
	};
	uint64_t gpa = driver_alloc(&drv, 2 << 20, 4096) + 4000;

	if (!GUEST_CAN_MIGRATE)
		return;
	start(_i, 64);
	driver_pattern(&drv, 4096, 1);
	ck_assert_int_eq(
	    pwrite(file, fake_xen_ram(drv.heap - 4096), 4096, 512), 4096);
	for (unsigned i = 0; i < COUNT(requests); i++) {
		uint32_t type = requests[i].type;
		int head;

		fake_xen_copy(true);
		head = driver_request(
		    &drv, type, requests[i].sector, gpa, requests[i].len);
		driver_kick(&drv);
		driver_until(&drv, head);
		ck_assert_uint_eq(
		    driver_status(&drv, head), requests[i].status);
		ck_assert(fake_xen_copied(drv.status[head]));
		if (requests[i].status == VIRTIO_BLK_S_OK &&
		    (type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID))
			ck_assert(in_copy(gpa, requests[i].len));
	}
	/* What was last written to the used ring comes with the reset. */
	driver_reset(&drv);
	ck_assert(in_copy(drv.used, 6 + 8 * drv.num));
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(a_queue_that_is_disabled_is_in_a_copy_of_the_guest)
{
	if (!GUEST_CAN_MIGRATE)
		return;
	start(_i, 16);
	fake_xen_copy(true);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	driver_write(&drv, VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert(in_copy(drv.used, 6 + 8 * drv.num));
}
END_TEST

START_TEST(a_batch_is_reported_with_one_call)
{
	unsigned calls;

	start(_i, 64);
	fill_disk_queue(8);
	calls = fake_xen_calls(XC_MODIFIED_MEMORY);
	slow = false;
	driver_drain(&drv);
	ck_assert_uint_eq(
	    fake_xen_calls(XC_MODIFIED_MEMORY) - calls, GUEST_CAN_MIGRATE);
}
END_TEST

/*
 * A driver as those of small systems: few descriptors, one request at a time,
 * and each in two buffers, since more may not fit.  It waits for the interrupt
 * for every other one, and looks at the used ring for the rest.
 */
static struct {
	uint64_t gpa; /* header, data, status */
	unsigned requests;
	uint8_t disk[DISK]; /* what must be there */
} tiny;

static uint8_t
tiny_io(uint32_t type, uint64_t sector, const void *data, uint32_t len)
{
	struct virtio_blk_outhdr *hdr = fake_xen_ram(tiny.gpa);
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	uint32_t out = sizeof(*hdr) + (in ? 0 : len);
	const struct driver_buf buf[] = {
	    {tiny.gpa, out, false},
	    {tiny.gpa + out, sizeof(*hdr) + len + 1 - out, true},
	};
	uint8_t *status = (uint8_t *)(hdr + 1) + len;
	int head;

	*hdr = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	if (!in && len > 0)
		memcpy(hdr + 1, data, len);
	*status = 0xff;
	head = driver_add(&drv, buf, 2);
	ck_assert_int_ge(head, 0);
	driver_kick(&drv);
	if (++tiny.requests % 2 == 0)
		driver_until(&drv, head);
	driver_patience(&drv);
	while (!drv.done[head] && !driver_take(&drv))
		driver_wait(&drv);
	ck_assert_uint_eq(drv.written[head], in ? len + 1 : 1);
	return *status;
}

static void
tiny_write(uint64_t offset, uint8_t value, uint32_t len)
{
	memset(tiny.disk + offset, value, len);
	ck_assert_uint_eq(
	    tiny_io(VIRTIO_BLK_T_OUT, offset / SECTOR, tiny.disk + offset, len),
	    VIRTIO_BLK_S_OK);
}

static void
tiny_clear(uint32_t type, uint64_t offset, uint64_t len)
{
	const struct virtio_blk_discard_write_zeroes range = {
	    .sector = offset / SECTOR, .num_sectors = len / SECTOR};

	memset(tiny.disk + offset, 0, len);
	ck_assert_uint_eq(
	    tiny_io(type, 0, &range, sizeof(range)), VIRTIO_BLK_S_OK);
}

static void
tiny_verify(uint64_t offset, uint32_t len)
{
	ck_assert_uint_eq(tiny_io(VIRTIO_BLK_T_IN, offset / SECTOR, NULL, len),
	    VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(
	    (uint8_t *)fake_xen_ram(tiny.gpa) + 16, tiny.disk + offset, len);
}

/*
 * What mkfs.ext4 does: it looks for what is there, gives all of it back, writes
 * here and there, in pieces of all sizes, and has it flushed.
 */
START_TEST(few_descriptors_are_enough_for_a_file_system)
{
	static const uint16_t sizes[] = {2, 4, 16};
	const uint32_t group = 2 << 20;
	uint64_t at;

	driver_start(&drv,
	    kinds[_i / COUNT(sizes)] | FLUSH | FEATURE(VIRTIO_BLK_F_DISCARD) |
		FEATURE(VIRTIO_BLK_F_WRITE_ZEROES),
	    sizes[_i % COUNT(sizes)]);
	drv.indirect = true;
	memset(&tiny, 0, sizeof(tiny));
	tiny.gpa = driver_alloc(&drv, 2 << 20, 16);
	ck_assert_uint_eq(tiny_io(VIRTIO_BLK_T_GET_ID, 0, NULL, 20), 0);
	tiny_verify(0, 4096);
	tiny_verify(64 << 10, 512);
	tiny_verify(DISK - 4096, 4096);
	tiny_clear(VIRTIO_BLK_T_DISCARD, 0, DISK);
	tiny_write(0, 1, 8192);
	tiny_write(DISK - 64 * 1024, 2, 64 * 1024);
	for (at = 0; at < DISK; at += group) {
		tiny_write(at + 1024, 3, 1024);
		tiny_write(at + 4096, 4, 12288);
		tiny_clear(VIRTIO_BLK_T_WRITE_ZEROES, at + 65536, 512 << 10);
	}
	for (at = 3 << 20; at < 4 << 20; at += 128 << 10)
		tiny_write(at, at >> 17, 128 << 10);
	tiny_write(1 << 20, 5, 1 << 20);
	ck_assert_uint_eq(tiny_io(VIRTIO_BLK_T_FLUSH, 0, NULL, 0), 0);
	tiny_write(1024, 6, 1024);
	ck_assert_uint_eq(tiny_io(VIRTIO_BLK_T_FLUSH, 0, NULL, 0), 0);
	for (at = 0; at < DISK; at += 1 << 20)
		tiny_verify(at, 1 << 20);
	for (unsigned i = 0; i < 70000; i++) /* the index wraps */
		ck_assert_uint_eq(tiny_io(VIRTIO_BLK_T_OUT, 8, tiny.disk, 0),
		    VIRTIO_BLK_S_OK);
	tiny_verify(0, 1 << 20);
	ck_assert_uint_eq(drv.spurious, 0);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

#define ONCE(test) tcase_add_test(tc, test)
#define KIND(test) tcase_add_loop_test(tc, test, 0, COUNT(kinds))

/* What holds wherever the guest's memory comes from. */
static void
add_common(TCase *tc)
{
	KIND(data_written_is_in_the_file_and_is_read_back);
	KIND(the_used_length_is_what_was_written_to_memory);
	KIND(the_serial_can_be_asked_for);
	KIND(any_framing_gives_the_same_data);
	KIND(header_and_data_and_status_may_share_buffers);
	KIND(many_requests_all_come_back_right);
	KIND(a_request_larger_than_the_queue_waits_for_nobody);
	KIND(a_request_may_have_as_many_segments_as_are_offered);
	KIND(the_second_bank_takes_rings_and_data);
	KIND(four_vcpus_may_touch_the_device_at_once);
	KIND(a_batch_costs_one_interrupt);
	KIND(kicks_are_suppressed_while_the_device_polls);
	KIND(a_kick_is_answered_before_the_disk_is_done);
	KIND(a_reset_waits_for_requests_in_flight);
	KIND(after_a_reset_guest_memory_is_left_alone);
	KIND(while_a_device_is_looked_for_its_rings_are_left_alone);
	KIND(a_doorbell_counts_though_another_vcpu_looks_for_the_device);
	KIND(a_chain_counts_though_another_vcpu_looks_for_the_device);
	KIND(a_reset_device_works_again);
	KIND(disabling_the_queue_waits_for_requests_in_flight);
	KIND(beyond_the_end_nothing_is_written_and_the_queue_goes_on);
	KIND(a_polling_driver_needs_no_interrupts);
	KIND(whatever_is_written_is_in_a_copy_of_the_guest);
	KIND(a_queue_that_is_disabled_is_in_a_copy_of_the_guest);
}

int
main(void)
{
	Suite *s = suite_create("device");
	TCase *tc = cases_add(s, "grants", setup_grants, NULL);

	add_common(tc);
	tc = cases_add(s, "device", setup, NULL);
	ONCE(negotiation_as_linux_does_it_ends_with_a_disk);
	ONCE(nothing_is_offered_that_needs_more_than_foreign_mappings);
	add_common(tc);
	/* To be lent 200,000 buffers takes the toy driver too long. */
	KIND(the_ring_index_may_wrap);
	KIND(pages_given_back_are_unmapped_when_nothing_is_in_flight);
	KIND(new_requests_wait_until_pages_are_given_back);
	KIND(a_page_that_changed_hands_is_used_anew);
	KIND(data_in_a_hole_is_the_drivers_fault);
	KIND(after_a_fault_what_is_in_flight_does_not_return_and_a_reset_helps);
	KIND(memory_is_mapped_once_not_per_request);
	KIND(without_memory_to_ask_for_doorbells_none_is_waited_for);
	KIND(without_memory_to_ask_for_doorbells_it_is_still_looked_for);
	KIND(a_batch_is_reported_with_one_call);
	tcase_add_loop_test(tc, few_descriptors_are_enough_for_a_file_system, 0,
	    3 * COUNT(kinds));
	return cases_run(s);
}
