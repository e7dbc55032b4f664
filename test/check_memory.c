/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program as it is shipped, on a host that has no room for all of a guest's
 * memory: what it takes at most, and that it waits for more.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "cases.h"
#include "child.h"
#include "driver.h"
#include "fake_xen.h"

#define DOMID 7
#define MIB   (1ULL << 20)
#define RAM   (128 * MIB)
#define DISK  (64 * MIB)
#define PAGE  FAKE_XEN_PAGE
#define CHUNK (2 * MIB)
#define MODERN                                                                 \
	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC |    \
	    1ULL << VIRTIO_RING_F_EVENT_IDX)

static char disk[64];
static int file = -1;
static struct driver drv;

static void
setup(void)
{
	file = nameless_file("/tmp", DISK, disk);
	fake_xen_start(DOMID, 2, RAM, 0);
	driver_init(&drv, BASE, FAKE_XEN_LOW, RAM);
	drv.indirect = true;
}

static void
serve(const char *option)
{
	const char *args[] = {option, "7", BASE_ARG, IRQ, disk, NULL};

	if (child_start())
		child_exec(option == NULL ? args + 1 : args, NULL);
	ck_assert_str_eq(output(), "ready\n");
}

static void
sleep_ms(unsigned ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

	nanosleep(&t, NULL);
}

static void
expect_no_fault(void)
{
	ck_assert_uint_eq(
	    driver_read(&drv, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET,
	    0);
}

/* The disk at work, at 'sector'. */
static void
exercise(uint64_t sector)
{
	uint64_t out = driver_pattern(&drv, PAGE, sector);

	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, sector, out, PAGE),
	    VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, sector, out, PAGE));
}

/* A queue whose rings are at 'gpa'. */
static void
ready_at(uint64_t gpa)
{
	driver_write(&drv, VIRTIO_MMIO_QUEUE_DESC_LOW, gpa);
	driver_write(&drv, VIRTIO_MMIO_QUEUE_DESC_HIGH, gpa >> 32);
	driver_write(&drv, VIRTIO_MMIO_QUEUE_READY, 1);
}

START_TEST(a_guest_that_names_memory_it_has_not_takes_no_room)
{
	const uint64_t absent = 16ULL << 30;
	unsigned i, calls;

	serve(NULL);
	driver_negotiate(&drv, MODERN);
	for (i = 0; i < 100; i++) {
		ready_at(absent + i * CHUNK);
		ck_assert(driver_read(&drv, VIRTIO_MMIO_STATUS) &
			  VIRTIO_CONFIG_S_NEEDS_RESET);
		driver_reset(&drv);
		fake_xen_irq_take();
		driver_negotiate(&drv, MODERN);
	}
	ready_at(absent);
	/* Until it is reset, nobody looks. */
	calls = fake_xen_calls(XC_MAP2);
	for (i = 0; i < 50000; i++)
		ready_at(absent + i * CHUNK);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), calls);
	ck_assert_uint_le(fake_xen_foreign_max(), 1);
	driver_reset(&drv);
	fake_xen_irq_take();
	driver_start(&drv, MODERN, 64);
	exercise(0);
}
END_TEST

enum { PAGES = 48 * MIB / PAGE };

/*
 * A request of one page, of the disk and of memory, whose header and status are
 * in another page each; with many in flight.
 */
static void
scattered(uint32_t type, uint64_t sector, uint64_t gpa, uint64_t others)
{
	static unsigned n;
	uint64_t hdr = others + n * 7 % PAGES * PAGE;
	uint64_t status = others + (n * 13 + 5000) % PAGES * PAGE + 64;
	const struct driver_buf buf[] = {{hdr, 16, false},
	    {gpa, PAGE, type == VIRTIO_BLK_T_IN}, {status, 1, true}};
	struct virtio_blk_outhdr *h = fake_xen_ram(hdr);
	int head;

	n++;
	*h = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	*(uint8_t *)fake_xen_ram(status) = 0xff;
	head = driver_add(&drv, buf, 3);
	drv.status[head] = status;
	driver_kick(&drv);
	driver_patience(&drv);
	while (drv.inflight >= 32)
		if (driver_interrupt(&drv) == 0)
			driver_wait(&drv);
}

/*
 * All over the guest's memory and the disk.
 */
static void
scatter(unsigned requests)
{
	uint64_t gpa = driver_pattern(&drv, 48 * MIB, 1), p;
	uint64_t others = driver_alloc(&drv, 48 * MIB, PAGE);

	srandom(2);
	for (unsigned i = 0; i < requests; i++) {
		p = random() % PAGES;
		scattered(VIRTIO_BLK_T_OUT, p * 8, gpa + p * PAGE, others);
	}
	for (p = 0; p < PAGES; p++)
		scattered(VIRTIO_BLK_T_OUT, p * 8, gpa + p * PAGE, others);
	driver_drain(&drv);
	for (unsigned i = 0; i < 48; i++)
		ck_assert(
		    driver_in_file(file, i * MIB / 512, gpa + i * MIB, MIB));
	memset(fake_xen_ram(gpa), 0, 48 * MIB);
	for (p = 0; p < PAGES; p++)
		scattered(VIRTIO_BLK_T_IN, p * 8, gpa + p * 7919 % PAGES * PAGE,
		    others);
	driver_drain(&drv);
	for (p = 0; p < PAGES; p++)
		ck_assert(driver_in_file(
		    file, p * 8, gpa + p * 7919 % PAGES * PAGE, PAGE));
}

START_TEST(more_memory_than_the_limit_can_be_used_and_all_is_right)
{
	serve(_i == 0 ? "--map-limit=8" : "--map-limit=16");
	driver_start(&drv, MODERN, 64);
	scatter(2000);
	ck_assert_uint_le(
	    fake_xen_foreign_max(), (_i == 0 ? 8 : 16) * MIB / PAGE + 1);
	ck_assert_str_eq(errors(), "");
}
END_TEST

/* It has said that the host has no room, every ten seconds at most, and no more. */
static void
assert_says_no_room(time_t begun)
{
	static const char said[] = "vdisk: warning: the host has no room ";
	unsigned lines = 0;

	for (const char *at = errors(); *at != '\0'; lines++) {
		ck_assert_msg(strncmp(at, said, strlen(said)) == 0, "%s", at);
		at = strchr(at, '\n') + 1;
	}
	ck_assert_uint_ge(lines, 1);
	ck_assert_uint_le(lines, 1 + (time(NULL) - begun) / 10);
}

START_TEST(more_memory_than_the_host_has_room_for_can_be_used)
{
	time_t begun = time(NULL);

	serve(NULL);
	driver_start(&drv, MODERN, 64);
	fake_xen_set_room(12 * MIB / PAGE);
	scatter(2000);
	expect_no_fault();
	assert_says_no_room(begun);
}
END_TEST

START_TEST(a_host_without_any_room_delays_requests_and_no_more)
{
	time_t begun = time(NULL);
	unsigned calls;
	int head;

	serve(NULL);
	if (_i == 0) /* not even the rings */
		fake_xen_set_room(0);
	driver_start(&drv, MODERN, 64);
	if (_i == 1)
		exercise(1);
	fake_xen_set_room(0);
	head = driver_request(&drv, VIRTIO_BLK_T_IN, 0,
	    driver_alloc(&drv, PAGE, 4 * CHUNK), PAGE);
	driver_kick(&drv);
	sleep_ms(100);
	/* Linux logs each refusal, of which the guest cannot make more. */
	calls = fake_xen_calls(XC_MAP2);
	for (unsigned i = 0; i < 300; i++) {
		driver_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS);
		sleep_ms(1);
	}
	ck_assert_uint_lt(fake_xen_calls(XC_MAP2) - calls, 20);
	/* It does not spin meanwhile, and what it had the others have now. */
	ck_assert_uint_lt(child_busy(200), 60000000);
	ck_assert_uint_eq(fake_xen_foreign(), 0);
	driver_interrupt(&drv);
	ck_assert(!drv.done[head]);
	expect_no_fault();
	assert_says_no_room(begun);
	/* Rings, header with table, and data. */
	fake_xen_set_room(8);
	driver_until(&drv, head);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_OK);
	fake_xen_set_room(UINT64_MAX);
	exercise(2);
	assert_says_no_room(begun);
}
END_TEST

START_TEST(a_signal_or_a_reset_is_not_kept_waiting_by_a_lack_of_room)
{
	serve(NULL);
	driver_start(&drv, MODERN, 64);
	fake_xen_set_room(0);
	driver_request(
	    &drv, VIRTIO_BLK_T_IN, 0, driver_alloc(&drv, PAGE, PAGE), PAGE);
	driver_kick(&drv);
	sleep_ms(20);
	if (_i == 0) {
		driver_reset(&drv);
		fake_xen_set_room(UINT64_MAX);
		fake_xen_irq_take();
		driver_start(&drv, MODERN, 64);
		exercise(3);
	} else if (_i == 1) {
		driver_invalidate(&drv, 1);
		driver_end(&drv, 1);
	} else if (_i == 2) {
		kill(child, SIGTERM);
		ck_assert_int_eq(finish(), 0);
	} else {
		fake_xen_set_life(FAKE_XEN_DYING);
		ck_assert_int_eq(finish(), 0);
	}
}
END_TEST

START_TEST(a_successor_without_room_waits_and_does_again_what_was_in_flight)
{
	uint64_t gpa;
	unsigned redone = 0;
	int head;

	if (!fake_xen_watch(FAKE_XEN_LOW + RAM - PAGE))
		return;
	serve(NULL);
	driver_start(&drv, MODERN, 64);
	gpa = driver_pattern(&drv, PAGE, 9);
	exercise(0);
	/* Killed after every store of a request's life. */
	for (unsigned store = 1; store < 40; store++) {
		head = driver_request(
		    &drv, VIRTIO_BLK_T_OUT, 8 * store, gpa, PAGE);
		fake_xen_kill_after(store);
		driver_read(&drv, VIRTIO_MMIO_STATUS); /* it notifies */
		driver_begin(&drv, 0, true, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
		/* If nobody has died long after it was done, there is none. */
		for (unsigned i = 0; i < 200 && fake_xen_server_bound(0) != 0;
		     i += driver_used(&drv)->idx != drv.used_idx)
			sleep_ms(1);
		if (fake_xen_server_bound(0) != 0)
			break; /* it has come to its end */
		finish();
		fake_xen_set_room(0);
		serve(NULL);
		driver_end(&drv, 0);
		sleep_ms(20);
		driver_interrupt(&drv);
		redone += !drv.done[head];
		expect_no_fault();
		fake_xen_set_room(UINT64_MAX);
		driver_until(&drv, head);
		ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_OK);
		ck_assert(driver_in_file(file, 8 * store, gpa, PAGE));
	}
	ck_assert_uint_ge(redone, 3);
}
END_TEST

START_TEST(a_request_that_needs_more_than_the_limit_fails_and_others_do_not)
{
	uint64_t gpa;

	serve("--map-limit=8");
	driver_start(&drv, MODERN, 64);
	gpa = driver_alloc(&drv, 16 * MIB, PAGE);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_eq(
		    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 16 * MIB),
		    VIRTIO_BLK_S_IOERR);
		exercise(i);
		ck_assert_uint_eq(
		    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 4 * MIB),
		    VIRTIO_BLK_S_OK);
	}
	expect_no_fault();
	assert_one_line(errors());
	assert_mentions(errors(), "--map-limit");
}
END_TEST

START_TEST(a_guest_of_200_gib_can_use_all_of_it)
{
	const uint64_t from = 64ULL << 30, to = from + (200ULL << 30);
	uint64_t hdr, gpa = from;
	unsigned n = 0;

	fake_xen_endless(from);
	serve("--map-limit=262144");
	driver_start(&drv, MODERN, 256);
	hdr = driver_alloc(&drv, PAGE, PAGE);
	while (gpa < to) {
		struct driver_buf buf[256] = {{hdr, 16, false}};
		int head;

		for (n = 1; n < 255; gpa += CHUNK)
			buf[n++] = (struct driver_buf){gpa, 512, true};
		buf[n++] = (struct driver_buf){hdr + 64, 1, true};
		*(uint8_t *)fake_xen_ram(hdr + 64) = 0xff;
		head = driver_add(&drv, buf, n);
		driver_kick(&drv);
		driver_until(&drv, head);
		ck_assert_uint_eq(
		    *(uint8_t *)fake_xen_ram(hdr + 64), VIRTIO_BLK_S_OK);
	}
	ck_assert_str_eq(errors(), "");
	exercise(1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("memory");
	TCase *tc = cases_add(s, "memory", setup, child_kill);

	tcase_add_test(tc, a_guest_that_names_memory_it_has_not_takes_no_room);
	tcase_add_loop_test(
	    tc, more_memory_than_the_limit_can_be_used_and_all_is_right, 0, 2);
	tcase_add_test(tc, more_memory_than_the_host_has_room_for_can_be_used);
	tcase_add_loop_test(
	    tc, a_host_without_any_room_delays_requests_and_no_more, 0, 2);
	tcase_add_loop_test(tc,
	    a_signal_or_a_reset_is_not_kept_waiting_by_a_lack_of_room, 0, 4);
	tcase_add_test(tc,
	    a_successor_without_room_waits_and_does_again_what_was_in_flight);
	tcase_add_test(tc,
	    a_request_that_needs_more_than_the_limit_fails_and_others_do_not);
	tcase_add_test(tc, a_guest_of_200_gib_can_use_all_of_it);
	return cases_run(s);
}
