/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The IOREQ server: its setup, its cleanup on failure, and how accesses of one
 * and of many vCPUs are returned and completed.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <check.h>

#include "cases.h"
#include "fake_log.h"
#include "fake_xen.h"
#include "ioreq.h"

#define DOMID 7
#define VCPUS 4
#define BASE  0x2000000ULL
#define SIZE  0x200
/* Not the device's: the server does not know what it keeps. */
#define STATE_SIZE    600
#define STATE_VERSION 7

#if defined(__aarch64__)
#define IRQ	     33
#define XC_INTERRUPT XC_SET_IRQ_LEVEL
#else
#define IRQ	     5
#define XC_INTERRUPT XC_SET_ISA_IRQ_LEVEL
#endif

static struct fake_log logger;
static struct ioreq_server *io;

static struct ioreq_server *
open_server_with(
    uint16_t domid, uint64_t base, uint32_t state_size, uint32_t state_version)
{
	const struct ioreq_config config = {
	    .domid = domid,
	    .irq = IRQ,
	    .base = base,
	    .size = SIZE,
	    .state_size = state_size,
	    .state_version = state_version,
	};

	return ioreq_open(&logger.logger, &config);
}

static struct ioreq_server *
open_server_at(uint16_t domid, uint64_t base)
{
	return open_server_with(domid, base, STATE_SIZE, STATE_VERSION);
}

static struct ioreq_server *
open_server(void)
{
	return open_server_at(DOMID, BASE);
}

static void
setup_host(void)
{
	fake_xen_start(DOMID, VCPUS, 1 << 20, 0);
	fake_log_init(&logger);
}

static void
setup(void)
{
	setup_host();
	io = open_server();
	ck_assert_ptr_nonnull(io);
}

static bool
readable(void)
{
	struct pollfd fd = {.fd = ioreq_fd(io), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

/* Acknowledge all events, which are only hints. */
static unsigned
wake(void)
{
	unsigned events = 0;

	for (; readable(); events++) {
		ck_assert_uint_lt(events, 1000);
		ck_assert(ioreq_ack_event(io));
	}
	return events;
}

static void
issue(unsigned vcpu, ioreq_t req)
{
	if (req.count == 0)
		req.count = 1;
	ck_assert_uint_eq(fake_xen_issue(vcpu, &req), 1);
}

static void
issue_read(unsigned vcpu, uint32_t offset, uint32_t size)
{
	issue(vcpu, (ioreq_t){.addr = BASE + offset,
			.size = size,
			.dir = IOREQ_READ,
			.type = IOREQ_TYPE_COPY});
}

static void
issue_write(unsigned vcpu, uint32_t offset, uint32_t size, uint64_t data)
{
	issue(vcpu, (ioreq_t){.addr = BASE + offset,
			.data = data,
			.size = size,
			.dir = IOREQ_WRITE,
			.type = IOREQ_TYPE_COPY});
}

static uint64_t
answer(unsigned vcpu)
{
	uint64_t data = 0;

	ck_assert_msg(fake_xen_answered(vcpu, &data), "not answered");
	return data;
}

static void
not_answered(unsigned vcpu)
{
	uint64_t data;

	ck_assert_msg(!fake_xen_answered(vcpu, &data), "answered");
}

START_TEST(when_it_is_open_the_guest_may_run)
{
	uint64_t gpa;

	ck_assert(fake_xen_server_exists(0));
	ck_assert(fake_xen_server_enabled(0));
	for (gpa = BASE; gpa < BASE + SIZE; gpa++)
		ck_assert(fake_xen_server_claims(0, gpa));
	ck_assert(!fake_xen_server_claims(0, BASE - 1));
	ck_assert(!fake_xen_server_claims(0, BASE + SIZE));
	ck_assert_uint_eq(fake_xen_server_bound(0), VCPUS);
	ck_assert_uint_eq(fake_xen_irq_raised(), 0);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(opening_asks_for_one_of_each)
{
	ck_assert_uint_eq(fake_xen_calls(XC_DEVICEMODEL_OPEN), 1);
	ck_assert_uint_eq(fake_xen_calls(XC_EVTCHN_OPEN), 1);
	ck_assert_uint_eq(fake_xen_calls(XC_CREATE_IOREQ_SERVER), 1);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP_RESOURCE), 1);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP_IO_RANGE), 1);
	ck_assert_uint_eq(fake_xen_calls(XC_SET_IOREQ_SERVER_STATE), 1);
	ck_assert_uint_eq(fake_xen_calls(XC_BIND_INTERDOMAIN), VCPUS);
	ck_assert_uint_eq(fake_xen_calls(XC_DESTROY_IOREQ_SERVER), 0);
}
END_TEST

START_TEST(every_vcpu_that_fits_in_the_page_is_served)
{
	unsigned i;

	fake_xen_start(DOMID, FAKE_XEN_VCPUS, 1 << 20, 0);
	io = open_server();
	ck_assert_ptr_nonnull(io);
	ck_assert_uint_eq(fake_xen_server_bound(0), FAKE_XEN_VCPUS);
	for (i = 0; i < FAKE_XEN_VCPUS; i++)
		issue_read(i, 4 * i, 4);
	for (i = 0; i < FAKE_XEN_VCPUS; i++) {
		struct access a;

		ck_assert(ioreq_next(io, &a));
		a.data = a.offset;
		ioreq_complete(io, &a);
	}
	for (i = 0; i < FAKE_XEN_VCPUS; i++)
		ck_assert_uint_eq(answer(i), 4 * i);
}
END_TEST

static const enum fake_xen_call opening[] = {
    XC_DEVICEMODEL_OPEN,
    XC_FOREIGNMEMORY_OPEN,
    XC_EVTCHN_OPEN,
    XC_RESTRICT_ALL,
    XC_CREATE_IOREQ_SERVER,
    XC_MAP_RESOURCE,
    XC_MAP_IO_RANGE,
    XC_SET_IOREQ_SERVER_STATE,
    XC_BIND_INTERDOMAIN,
};

START_TEST(any_failure_gives_one_line_and_leaves_no_server)
{
	setup_host();
	fake_xen_fail(opening[_i], 1, EPERM);
	ck_assert_ptr_null(open_server());
	ck_assert_uint_eq(logger.lines, 1);
	ck_assert(!fake_xen_server_enabled(0));
	/* Nor does a second try find anything in its way. */
	ck_assert_ptr_nonnull(open_server());
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

START_TEST(unless_xen_keeps_it_from_other_domains_it_does_nothing)
{
	setup_host();
	fake_xen_fail(XC_RESTRICT_ALL, 1, ENOTTY);
	ck_assert_ptr_null(open_server());
	ck_assert_uint_eq(fake_xen_calls(XC_GET_IOREQ_SERVER_INFO), 0);
	ck_assert_uint_eq(fake_xen_calls(XC_CREATE_IOREQ_SERVER), 0);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP_RESOURCE), 0);
}
END_TEST

START_TEST(no_handle_of_the_process_is_good_for_another_domain_any_more)
{
	xen_pfn_t gfn = FAKE_XEN_LOW / FAKE_XEN_PAGE;
	xenforeignmemory_handle *fmem;
	void *page;
	int err;

	setup_host();
	fmem = xenforeignmemory_open(&logger.logger, 0);
	page = xenforeignmemory_map2(
	    fmem, DOMID + 1, NULL, PROT_READ, 0, 1, &gfn, &err);
	ck_assert_ptr_nonnull(page); /* it is not Xen that refuses */
	ck_assert_ptr_nonnull(open_server());
	page = xenforeignmemory_map2(
	    fmem, DOMID + 1, NULL, PROT_READ, 0, 1, &gfn, &err);
	ck_assert_ptr_null(page);
	ck_assert_int_eq(errno, EPERM);
}
END_TEST

START_TEST(failing_at_the_last_vcpu_is_failing)
{
	setup_host();
	fake_xen_fail(XC_BIND_INTERDOMAIN, VCPUS, ENOSPC);
	ck_assert_ptr_null(open_server());
	ck_assert_uint_eq(logger.lines, 1);
	ck_assert(!fake_xen_server_enabled(0));
}
END_TEST

START_TEST(without_a_domain_there_is_one_line_that_says_so)
{
	setup_host();
	ck_assert_ptr_null(open_server_at(DOMID + 1, BASE));
	ck_assert_uint_eq(logger.lines, 1);
	ck_assert_ptr_nonnull(strstr(logger.last, "domain 8"));
}
END_TEST

START_TEST(a_ninth_server_is_refused)
{
	unsigned i;

	setup_host();
	for (i = 0; i < FAKE_XEN_SERVERS - FAKE_XEN_QEMUS; i++)
		ck_assert_ptr_nonnull(open_server_at(DOMID, BASE + i * SIZE));
	ck_assert_ptr_null(open_server_at(DOMID, BASE + i * SIZE));
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

START_TEST(the_interrupt_must_be_one_that_the_guest_can_have)
{
#if defined(__aarch64__)
	const unsigned low = 32, high = 1019;
#else
	const unsigned low = 1, high = 15;
#endif
	unsigned irq;

	for (irq = low; irq <= high; irq++)
		ck_assert_ptr_null(ioreq_irq_invalid(irq));
	ck_assert_ptr_nonnull(ioreq_irq_invalid(low - 1));
	ck_assert_ptr_nonnull(ioreq_irq_invalid(0));
	ck_assert_ptr_nonnull(ioreq_irq_invalid(high + 1));
	ck_assert_ptr_nonnull(ioreq_irq_invalid(UINT32_MAX + 6UL));
}
END_TEST

START_TEST(a_read_of_any_size_is_offered_and_its_answer_arrives)
{
	const uint64_t value = 0x8877665544332211;
	unsigned size = 1u << _i;
	struct access a;

	issue_read(1, 0x1f8, size);
	ck_assert_uint_gt(wake(), 0);
	ck_assert(ioreq_next(io, &a));
	ck_assert_uint_eq(a.kind, ACCESS_READ);
	ck_assert_uint_eq(a.vcpu, 1);
	ck_assert_uint_eq(a.offset, 0x1f8);
	ck_assert_uint_eq(a.size, size);
	not_answered(1);
	a.data = value;
	ioreq_complete(io, &a);
	ck_assert_uint_eq(
	    answer(1) << (64 - 8 * size), value << (64 - 8 * size));
	ck_assert(!ioreq_next(io, &a));
}
END_TEST

START_TEST(a_write_of_any_size_is_offered_with_its_value)
{
	const uint64_t value = 0x8877665544332211;
	unsigned size = 1u << _i;
	struct access a;

	issue_write(2, 0x10, size, value);
	ck_assert_uint_gt(wake(), 0);
	ck_assert(ioreq_next(io, &a));
	ck_assert_uint_eq(a.kind, ACCESS_WRITE);
	ck_assert_uint_eq(a.vcpu, 2);
	ck_assert_uint_eq(a.offset, 0x10);
	ck_assert_uint_eq(a.size, size);
	ck_assert_uint_eq(a.data << (64 - 8 * size), value << (64 - 8 * size));
	ioreq_complete(io, &a);
	answer(2);
	ck_assert(!ioreq_next(io, &a));
}
END_TEST

START_TEST(an_access_is_pending_from_when_it_is_made_until_it_is_offered)
{
	struct access a;

	ck_assert(!ioreq_pending(io));
	issue_write(VCPUS - 1, 0x10, 4, 1);
	ck_assert(ioreq_pending(io));
	ck_assert(ioreq_next(io, &a));
	/* Its answer may take long: it is nothing new meanwhile. */
	ck_assert(!ioreq_pending(io));
	ck_assert(!ioreq_next(io, &a));
	ck_assert(!ioreq_pending(io));
	issue_read(0, 0, 4);
	ck_assert(ioreq_pending(io));
	while (ioreq_next(io, &a))
		ioreq_complete(io, &a);
	ck_assert(!ioreq_pending(io));
}
END_TEST

START_TEST(a_vcpu_can_come_again_and_again)
{
	struct access a;
	unsigned i;

	for (i = 0; i < 1000; i++) {
		issue_write(0, 0x50, 4, i);
		ck_assert_uint_gt(wake(), 0);
		ck_assert(ioreq_next(io, &a));
		ck_assert_uint_eq(a.data, i);
		ioreq_complete(io, &a);
		answer(0);
		ck_assert(!ioreq_next(io, &a));
	}
	ck_assert(!readable());
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(an_event_while_another_is_served_is_not_lost)
{
	struct access a;

	wake();
	issue_read(0, 0, 4);
	ck_assert(ioreq_ack_event(io));
	ck_assert(ioreq_next(io, &a));
	issue_read(1, 4, 4);
	ioreq_complete(io, &a);
	answer(0);
	issue_read(0, 8, 4);
	ck_assert(readable());
	wake();
	/* Both, in whichever scan. */
	while (ioreq_next(io, &a))
		ioreq_complete(io, &a);
	while (ioreq_next(io, &a))
		ioreq_complete(io, &a);
	answer(0);
	answer(1);
}
END_TEST

START_TEST(an_unanswered_access_is_offered_again_while_others_are_served)
{
	struct access a;
	unsigned scan, seen;

	issue_write(1, 0x70, 4, 0);
	for (scan = 0; scan < 3; scan++) {
		issue_read(0, 0x60, 4);
		issue_read(3, 0x64, 4);
		wake();
		for (seen = 0; ioreq_next(io, &a); seen |= 1u << a.vcpu) {
			ck_assert_uint_eq(seen & 1u << a.vcpu, 0);
			if (a.vcpu == 1) {
				ck_assert_uint_eq(a.kind, ACCESS_WRITE);
				ck_assert_uint_eq(a.offset, 0x70);
				ck_assert_uint_eq(a.size, 4);
				ck_assert_uint_eq(a.data, 0);
				continue;
			}
			a.data = a.offset;
			ioreq_complete(io, &a);
		}
		ck_assert_uint_eq(seen, 1 << 0 | 1 << 1 | 1 << 3);
		ck_assert_uint_eq(answer(0), 0x60);
		ck_assert_uint_eq(answer(3), 0x64);
		not_answered(1);
	}
	ck_assert(ioreq_next(io, &a));
	ck_assert_uint_eq(a.vcpu, 1);
	ioreq_complete(io, &a);
	answer(1);
	ck_assert(!ioreq_next(io, &a));
}
END_TEST

START_TEST(all_vcpus_at_once_get_their_own_answers)
{
	struct access a;
	unsigned i;

	for (i = 0; i < VCPUS; i++)
		issue_read(i, 0x100 + 8 * i, 8);
	wake();
	for (i = 0; i < VCPUS; i++) {
		ck_assert(ioreq_next(io, &a));
		a.data = 1000 + a.vcpu;
		ioreq_complete(io, &a);
	}
	ck_assert(!ioreq_next(io, &a));
	for (i = 0; i < VCPUS; i++)
		ck_assert_uint_eq(answer(i), 1000 + i);
}
END_TEST

START_TEST(that_pages_were_given_back_is_offered_as_such)
{
	ioreq_t req = {.data = UINT64_MAX,
	    .size = 4,
	    .dir = IOREQ_WRITE,
	    .type = IOREQ_TYPE_INVALIDATE};
	struct access a;

	issue(3, req);
	wake();
	ck_assert(ioreq_next(io, &a));
	ck_assert_uint_eq(a.kind, ACCESS_INVALIDATE);
	ck_assert_uint_eq(a.vcpu, 3);
	not_answered(3);
	ck_assert(!ioreq_next(io, &a));
	ck_assert(ioreq_next(io, &a));
	ck_assert_uint_eq(a.kind, ACCESS_INVALIDATE);
	ioreq_complete(io, &a);
	answer(3);
}
END_TEST

/* What no driver does; 'count' 0 stands for 1. */
static const ioreq_t odd[] = {
    {.addr = BASE, .size = 4, .count = 2, .type = IOREQ_TYPE_COPY},
    {.addr = BASE, .size = 4, .count = UINT32_MAX, .type = IOREQ_TYPE_COPY},
    {.addr = BASE, .size = 4, .data_is_ptr = 1, .type = IOREQ_TYPE_COPY},
    {.addr = BASE + SIZE - 1, .size = 2, .type = IOREQ_TYPE_COPY},
    {.addr = BASE + SIZE - 4, .size = 8, .type = IOREQ_TYPE_COPY},
    {.addr = BASE, .size = UINT32_MAX, .type = IOREQ_TYPE_COPY},
    {.addr = BASE, .size = 4, .type = IOREQ_TYPE_PIO},
    {.addr = BASE, .size = 4, .type = IOREQ_TYPE_PCI_CONFIG},
    {.addr = BASE, .size = 4, .type = IOREQ_TYPE_TIMEOFFSET},
    {.addr = BASE, .size = 4, .type = 0xff},
};

START_TEST(what_no_driver_does_reads_all_ones)
{
	ioreq_t req = odd[_i];
	struct access a;

	req.dir = IOREQ_READ;
	issue(0, req);
	wake();
	ck_assert(!ioreq_next(io, &a));
	ck_assert_uint_eq(answer(0), UINT64_MAX);
}
END_TEST

START_TEST(what_no_driver_does_writes_nothing)
{
	ioreq_t req = odd[_i];
	struct access a;

	req.dir = IOREQ_WRITE;
	req.data = 42;
	issue(0, req);
	wake();
	ck_assert(!ioreq_next(io, &a));
	answer(0);
}
END_TEST

START_TEST(an_address_before_the_window_is_outside)
{
	ioreq_t *slot = fake_xen_server_page(0);
	struct access a;

	/* Xen would not send it here. */
	issue_read(0, 0, 4);
	slot->addr = BASE - 4;
	wake();
	ck_assert(!ioreq_next(io, &a));
	ck_assert_uint_eq(answer(0), UINT64_MAX);
}
END_TEST

START_TEST(odd_accesses_do_not_stop_the_scan)
{
	struct access a;
	ioreq_t req = odd[0];

	req.dir = IOREQ_READ;
	issue(0, req);
	issue_read(1, 0x70, 4);
	wake();
	ck_assert(ioreq_next(io, &a));
	ck_assert_uint_eq(a.vcpu, 1);
	a.data = 5;
	ioreq_complete(io, &a);
	ck_assert(!ioreq_next(io, &a));
	answer(0);
	ck_assert_uint_eq(answer(1), 5);
}
END_TEST

START_TEST(spurious_events_are_harmless)
{
	struct access a;
	unsigned i;

	/* Binding has raised one for each. */
	ck_assert_uint_eq(wake(), VCPUS);
	ck_assert(!ioreq_next(io, &a));
	for (i = 0; i < 10; i++) {
		fake_xen_spurious(0, i % VCPUS);
		fake_xen_spurious(0, i % VCPUS);
		ck_assert_uint_ge(wake(), 1);
		ck_assert(!ioreq_next(io, &a));
	}
	ck_assert_uint_eq(fake_xen_calls(XC_NOTIFY), 0);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(an_answer_costs_one_notification)
{
	struct access a;

	issue_read(0, 0, 4);
	wake();
	ck_assert(ioreq_next(io, &a));
	ioreq_complete(io, &a);
	ck_assert_uint_eq(fake_xen_calls(XC_NOTIFY), 1);
}
END_TEST

START_TEST(event_channels_that_fail_are_reported)
{
	fake_xen_fail(XC_PENDING, 1, EIO);
	ck_assert(!ioreq_ack_event(io));
	ck_assert_uint_eq(logger.lines, 1);
	fake_xen_fail(XC_UNMASK, 1, EIO);
	ck_assert(!ioreq_ack_event(io));
	ck_assert_uint_eq(logger.lines, 2);
}
END_TEST

START_TEST(an_interrupt_is_raised)
{
	ioreq_interrupt(io, 1);
	ck_assert_uint_eq(fake_xen_irq_raised(), 1);
	ck_assert_uint_eq(fake_xen_irq_number(), IRQ);
	ck_assert(fake_xen_irq_up());
	ck_assert_uint_eq(fake_xen_calls(XC_INTERRUPT), 1);
}
END_TEST

START_TEST(a_lowered_interrupt_can_be_raised_again)
{
	ioreq_interrupt(io, 1);
	fake_xen_irq_take();
	ioreq_interrupt(io, 0);
	ck_assert(!fake_xen_irq_up());
	ioreq_interrupt(io, 1);
	ck_assert_uint_eq(fake_xen_irq_raised(), 2);
	ck_assert(fake_xen_irq_up());
}
END_TEST

START_TEST(an_interrupt_that_could_not_be_lowered_is_raised_again)
{
	ioreq_interrupt(io, 1);
	fake_xen_irq_take();
	fake_xen_fail(XC_INTERRUPT, 1, ENOMEM);
	ioreq_interrupt(io, 0);
	ck_assert(ioreq_interrupt(io, 1));
	ck_assert_uint_eq(fake_xen_irq_raised(), 2);
	ck_assert(fake_xen_irq_up());
}
END_TEST

START_TEST(an_interrupt_that_fails_is_logged_once)
{
	unsigned i;

	for (i = 0; i < 10; i++) {
		fake_xen_fail(XC_INTERRUPT, 1, EINVAL);
		ioreq_interrupt(io, 1);
	}
	ck_assert_uint_eq(logger.lines, 1);
	ioreq_interrupt(io, 0);
	ioreq_interrupt(io, 1);
	ck_assert(fake_xen_irq_up());
}
END_TEST

START_TEST(the_guest_is_alive_until_its_destruction_begins)
{
	ck_assert(ioreq_domain_exists(io));
	fake_xen_set_life(FAKE_XEN_DYING);
	ck_assert(!ioreq_domain_exists(io));
	fake_xen_set_life(FAKE_XEN_DEAD);
	ck_assert(!ioreq_domain_exists(io));
	ck_assert_uint_eq(fake_xen_calls(XC_SET_IOREQ_SERVER_STATE), 1);
}
END_TEST

START_TEST(a_question_that_fails_otherwise_is_no_death)
{
	fake_xen_fail(XC_GET_IOREQ_SERVER_INFO, 1, EINTR);
	ck_assert(ioreq_domain_exists(io));
	ck_assert(ioreq_domain_exists(io));
}
END_TEST

/*
 * Successors.  The predecessor is another process.
 */

#define SLOTS (FAKE_XEN_PAGE / sizeof(ioreq_t))

/* Slots that state and mark leave, one of which Xen must not use. */
#define VCPUS_MAX                                                              \
	(SLOTS - 1 - (STATE_SIZE + sizeof(ioreq_t) - 1) / sizeof(ioreq_t) - 1)

/* What a predecessor left in its state. */
static void
fill_state(void *state)
{
	uint8_t *p = state;
	unsigned i;

	for (i = 0; i < STATE_SIZE; i++)
		p[i] = 3 * i + 1;
}

/*
 * A process that serves at 'base' until it is told; its pid.
 */
static pid_t
fork_server_with(uint64_t base, uint32_t size, uint32_t version)
{
	bool adopted;
	int fd[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(fd), 0);
	pid = fork();
	ck_assert_int_ne(pid, -1);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		io = open_server_with(DOMID, base, size, version);
		if (io == NULL)
			_exit(1);
		fill_state(ioreq_state(io, &adopted));
		if (write(fd[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	close(fd[1]);
	/* It serves, or is killed. */
	if (read(fd[0], &c, 1) < 0)
		ck_abort();
	close(fd[0]);
	return pid;
}

static pid_t
fork_server(void)
{
	return fork_server_with(BASE, STATE_SIZE, STATE_VERSION);
}

static void
end(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
}

static unsigned
servers(void)
{
	unsigned i, n = 0;

	for (i = 0; i < FAKE_XEN_SERVERS - FAKE_XEN_QEMUS; i++)
		n += fake_xen_server_exists(i);
	return n;
}

/*
 * This process continues server 'id', and says nothing.
 */
static void
expect_continued(unsigned id)
{
	uint8_t want[STATE_SIZE];
	bool adopted;

	io = open_server();
	ck_assert_msg(io != NULL, "refused: %s", logger.last);
	ck_assert_uint_eq(logger.lines, 0);
	fill_state(want);
	ck_assert_mem_eq(ioreq_state(io, &adopted), want, STATE_SIZE);
	ck_assert(adopted);
	ck_assert(fake_xen_server_enabled(id));
	ck_assert(fake_xen_server_claims(id, BASE));
	ck_assert_uint_eq(fake_xen_server_bound(id), VCPUS);
}

/*
 * It starts afresh, with server 'id'.
 */
static void
expect_new(unsigned id)
{
	static const uint8_t zero[STATE_SIZE];
	bool adopted;

	io = open_server();
	ck_assert_msg(io != NULL, "refused: %s", logger.last);
	ck_assert_mem_eq(ioreq_state(io, &adopted), zero, STATE_SIZE);
	ck_assert(!adopted);
	ck_assert(fake_xen_server_claims(id, BASE));
	ck_assert_uint_gt(fake_xen_server_bound(id), 0);
}

static void
serve_one(unsigned vcpu)
{
	struct access a;

	ck_assert(!ioreq_pending(io));
	issue_read(vcpu, 0x70, 4);
	ck_assert(ioreq_pending(io));
	wake();
	ck_assert(ioreq_next(io, &a));
	a.data = 42;
	ioreq_complete(io, &a);
	ck_assert(!ioreq_next(io, &a));
	ck_assert_uint_eq(answer(vcpu), 42);
}

/* 'n' servers of another program, which keeps something of its own in them. */
static void
foreign_servers(unsigned n)
{
	xendevicemodel_handle *dmod = xendevicemodel_open(NULL, 0);
	ioservid_t id;
	unsigned i;

	for (i = 0; i < n; i++) {
		ck_assert_int_eq(xendevicemodel_create_ioreq_server(dmod, DOMID,
				     HVM_IOREQSRV_BUFIOREQ_OFF, &id),
		    0);
		memset(fake_xen_server_page(id), 0x51 + id, FAKE_XEN_PAGE);
	}
}

START_TEST(on_x86_a_guest_without_a_qemu_is_refused_and_never_interrupted)
{
	setup_host();
	foreign_servers(_i);
	fake_xen_remove_qemu();
#if defined(__x86_64__)
	ck_assert_ptr_null(open_server());
	ck_assert_uint_eq(logger.lines, 1);
	ck_assert_ptr_nonnull(strstr(logger.last, "not an HVM guest"));
	ck_assert_uint_eq(servers(), _i);
	ck_assert_uint_eq(fake_xen_calls(XC_INTERRUPT), 0);
#else
	ck_assert_ptr_nonnull(open_server());
#endif
}
END_TEST

START_TEST(that_qemu_may_be_in_another_domain)
{
	setup_host();
	fake_xen_move_qemu();
	ck_assert_ptr_nonnull(open_server());
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(the_server_of_a_killed_predecessor_is_continued)
{
	setup_host();
	end(fork_server());
	expect_continued(0);
	ck_assert_uint_eq(servers(), 1);
	serve_one(0);
	serve_one(VCPUS - 1);
}
END_TEST

START_TEST(it_is_found_beside_servers_of_other_programs)
{
	uint8_t before[FAKE_XEN_SERVERS][FAKE_XEN_PAGE];
	unsigned i;

	setup_host();
	foreign_servers(_i);
	end(fork_server());
	for (i = 0; i < FAKE_XEN_SERVERS; i++)
		memcpy(before[i], fake_xen_server_page(i), FAKE_XEN_PAGE);
	expect_continued(_i);
	ck_assert_uint_eq(servers(), _i + 1);
	for (i = 0; (int)i < _i; i++) {
		ck_assert_mem_eq(
		    before[i], fake_xen_server_page(i), FAKE_XEN_PAGE);
		ck_assert(!fake_xen_server_enabled(i));
	}
	serve_one(1);
}
END_TEST

START_TEST(a_foreign_page_is_only_read_and_not_kept)
{
	uint8_t before[FAKE_XEN_PAGE];

	setup_host();
	foreign_servers(1);
	memcpy(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	expect_new(1);
	ck_assert_mem_eq(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP_RESOURCE), 2);
	ck_assert_uint_eq(fake_xen_calls(XC_UNMAP_RESOURCE), 1);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(a_page_that_cannot_be_mapped_is_passed_over)
{
	setup_host();
	foreign_servers(1);
	end(fork_server());
	fake_xen_fail(XC_MAP_RESOURCE, 1, EPERM);
	expect_continued(1);
}
END_TEST

/* It may be that of a predecessor: a second server would take its place. */
START_TEST(a_page_for_which_the_host_has_no_memory_is_not_passed_over)
{
	setup_host();
	end(fork_server());
	fake_xen_fail(XC_MAP_RESOURCE, 1, _i == 0 ? ENOMEM : ENOENT);
	ck_assert_ptr_null(open_server());
	ck_assert_uint_eq(logger.lines, 1);
	ck_assert_uint_eq(servers(), 1);
	logger.lines = 0;
	expect_continued(0);
}
END_TEST

START_TEST(the_server_of_another_disk_is_left_alone)
{
	uint8_t before[FAKE_XEN_PAGE];

	setup_host();
	end(fork_server_with(BASE + SIZE, STATE_SIZE, STATE_VERSION));
	memcpy(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	expect_new(1);
	ck_assert_mem_eq(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	ck_assert_uint_eq(fake_xen_server_bound(0), 0);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(what_another_version_left_is_refused)
{
	uint8_t before[FAKE_XEN_PAGE];

	setup_host();
	end(fork_server_with(
	    BASE, STATE_SIZE + (_i == 0 ? 0 : 8), STATE_VERSION + (_i == 0)));
	memcpy(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	ck_assert_ptr_null(open_server());
	ck_assert_uint_eq(logger.lines, 1);
	ck_assert_ptr_nonnull(strstr(logger.last, "version"));
	ck_assert_mem_eq(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	ck_assert_uint_eq(servers(), 1);
	ck_assert(fake_xen_server_enabled(0));
}
END_TEST

START_TEST(an_access_that_waited_goes_on_once_there_is_a_successor)
{
	static const uint8_t states[] = {
	    STATE_IOREQ_READY, STATE_IOREQ_INPROCESS};
	struct access a;

	setup_host();
	end(fork_server());
	issue_write(2, 0x50, 4, 77);
	fake_xen_server_page(0)[2].state = states[_i];
	expect_continued(0);
	not_answered(2);
	ck_assert(ioreq_next(io, &a));
	ck_assert_uint_eq(a.vcpu, 2);
	ck_assert_uint_eq(a.kind, ACCESS_WRITE);
	ck_assert_uint_eq(a.data, 77);
	ioreq_complete(io, &a);
	answer(2);
	ck_assert(!ioreq_next(io, &a));
}
END_TEST

START_TEST(an_answer_that_was_not_announced_is_and_is_not_made_again)
{
	struct access a;

	setup_host();
	end(fork_server());
	issue_read(1, 0x70, 4);
	fake_xen_server_page(0)[1].data = 1234;
	fake_xen_server_page(0)[1].state = STATE_IORESP_READY;
	expect_continued(0);
	ck_assert(!ioreq_next(io, &a));
	ck_assert_uint_eq(answer(1), 1234);
	ck_assert_uint_eq(fake_xen_calls(XC_NOTIFY), 1);
}
END_TEST

START_TEST(while_another_serves_it_gives_up_and_disturbs_nothing)
{
	uint8_t before[FAKE_XEN_PAGE];
	struct timespec from, to;
	unsigned tries;
	pid_t other;

	setup_host();
	other = fork_server();
	issue_read(1, 0x70, 4);
	memcpy(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	tries = fake_xen_calls(XC_BIND_INTERDOMAIN);
	clock_gettime(CLOCK_MONOTONIC, &from);
	ck_assert_ptr_null(open_server());
	clock_gettime(CLOCK_MONOTONIC, &to);
	ck_assert_int_ge(to.tv_sec - from.tv_sec, 1);
	/* Longer on a host that is busy, but not more often. */
	ck_assert_uint_le(fake_xen_calls(XC_BIND_INTERDOMAIN) - tries, 2010);
	ck_assert_uint_eq(logger.lines, 1);
	ck_assert_ptr_nonnull(strstr(logger.last, "another vdisk"));
	ck_assert_mem_eq(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	ck_assert_uint_eq(fake_xen_server_bound(0), VCPUS);
	ck_assert_uint_eq(fake_xen_calls(XC_NOTIFY), 0);
	ck_assert_uint_eq(fake_xen_calls(XC_DESTROY_IOREQ_SERVER), 0);
	ck_assert_uint_eq(servers(), 1);
	end(other);
}
END_TEST

START_TEST(a_predecessor_that_takes_its_time_to_die_is_waited_for)
{
	pid_t other, killer;

	setup_host();
	other = fork_server();
	killer = fork();
	if (killer == 0) {
		usleep(100000);
		kill(other, SIGKILL);
		_exit(0);
	}
	expect_continued(0);
	ck_assert_int_eq(waitpid(other, NULL, 0), other);
	ck_assert_int_eq(waitpid(killer, NULL, 0), killer);
	serve_one(0);
}
END_TEST

/* What a predecessor may be killed before; the last ones when all is done. */
static const struct {
	enum fake_xen_call call;
	unsigned nth;
} ends[] = {
    {XC_CREATE_IOREQ_SERVER, 1},
    {XC_MAP_RESOURCE, 1},
    {XC_MAP_IO_RANGE, 1},
    {XC_SET_IOREQ_SERVER_STATE, 1},
    {XC_BIND_INTERDOMAIN, 1},
    {XC_BIND_INTERDOMAIN, 2},
    {XC_BIND_INTERDOMAIN, VCPUS},
};

/* Of the fake: a successor that is killed while it takes from the dead. */
START_TEST(ports_of_the_dead_are_free_whoever_is_killed)
{
	setup_host();
	end(fork_server());
	fake_xen_fail(XC_RELEASE, _i + 1, FAKE_XEN_KILLED);
	end(fork_server());
	expect_continued(0);
}
END_TEST

START_TEST(killed_while_it_opens_it_is_no_hindrance)
{
	unsigned id = ends[_i].call == XC_MAP_RESOURCE;
	bool adopted;

	setup_host();
	fake_xen_fail(ends[_i].call, ends[_i].nth, FAKE_XEN_KILLED);
	end(fork_server());
	io = open_server();
	ck_assert_msg(io != NULL, "refused: %s", logger.last);
	ck_assert_uint_eq(logger.lines, 0);
	ck_assert_uint_eq(fake_xen_server_bound(id), VCPUS);
	ck_assert_uint_eq(servers(), id + 1);
	ck_assert_uint_eq(*(uint8_t *)ioreq_state(io, &adopted), 0);
	serve_one(0);
	serve_one(VCPUS - 1);
}
END_TEST

START_TEST(killed_while_it_continues_again_and_again_it_is_no_hindrance)
{
	struct access a;
	unsigned i;

	setup_host();
	end(fork_server());
	issue_write(2, 0x50, 4, 77);
	for (i = 1; i < sizeof(ends) / sizeof(ends[0]); i++) {
		fake_xen_fail(ends[i].call, ends[i].nth, FAKE_XEN_KILLED);
		end(fork_server());
	}
	/* The second map is the one to write by. */
	fake_xen_fail(XC_MAP_RESOURCE, 2, FAKE_XEN_KILLED);
	end(fork_server());
	expect_continued(0);
	ck_assert_uint_eq(servers(), 1);
	not_answered(2);
	ck_assert(ioreq_next(io, &a));
	ck_assert_uint_eq(a.data, 77);
	ioreq_complete(io, &a);
	answer(2);
}
END_TEST

START_TEST(as_many_vcpus_as_leave_room_can_be_continued)
{
	bool adopted;

	setup_host();
	fake_xen_start(DOMID, VCPUS_MAX, 1 << 20, 0);
	end(fork_server());
	io = open_server();
	ck_assert_ptr_nonnull(io);
	ioreq_state(io, &adopted);
	ck_assert(adopted);
	ck_assert_uint_eq(logger.lines, 0);
	ck_assert_uint_eq(fake_xen_server_bound(0), VCPUS_MAX);
	serve_one(VCPUS_MAX - 1);
}
END_TEST

START_TEST(with_more_vcpus_it_works_but_says_that_nobody_can_continue)
{
	unsigned vcpus = _i == 0 ? VCPUS_MAX + 1 : FAKE_XEN_VCPUS;
	uint8_t before[FAKE_XEN_PAGE];
	bool adopted;
	uint8_t *state;

	setup_host();
	fake_xen_start(DOMID, vcpus, 1 << 20, 0);
	expect_new(0);
	ck_assert_uint_eq(logger.lines, 1);
	ck_assert_ptr_nonnull(strstr(logger.last, "survive"));
	ck_assert_uint_eq(fake_xen_server_bound(0), vcpus);
	/* Its state is not in the page, where slots are. */
	state = ioreq_state(io, &adopted);
	memcpy(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	fill_state(state);
	ck_assert_mem_eq(before, fake_xen_server_page(0), FAKE_XEN_PAGE);
	serve_one(vcpus - 1);
	serve_one(0);
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

START_TEST(with_more_vcpus_a_second_start_continues_nothing)
{
	setup_host();
	fake_xen_start(DOMID, FAKE_XEN_VCPUS, 1 << 20, 0);
	end(fork_server());
	expect_new(1);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("ioreq");
	TCase *tc = cases_add(s, "ioreq", setup, NULL);

	tcase_add_test(tc, when_it_is_open_the_guest_may_run);
	tcase_add_test(tc, opening_asks_for_one_of_each);
	tcase_add_test(tc, every_vcpu_that_fits_in_the_page_is_served);
	tcase_add_loop_test(tc, any_failure_gives_one_line_and_leaves_no_server,
	    0, COUNT(opening));
	tcase_add_test(
	    tc, unless_xen_keeps_it_from_other_domains_it_does_nothing);
	tcase_add_test(
	    tc, no_handle_of_the_process_is_good_for_another_domain_any_more);
	tcase_add_test(tc, failing_at_the_last_vcpu_is_failing);
	tcase_add_test(tc, without_a_domain_there_is_one_line_that_says_so);
	tcase_add_test(tc, a_ninth_server_is_refused);
	tcase_add_loop_test(tc,
	    on_x86_a_guest_without_a_qemu_is_refused_and_never_interrupted, 0,
	    2);
	tcase_add_test(tc, that_qemu_may_be_in_another_domain);
	tcase_add_test(tc, the_interrupt_must_be_one_that_the_guest_can_have);
	tcase_add_loop_test(
	    tc, a_read_of_any_size_is_offered_and_its_answer_arrives, 0, 4);
	tcase_add_loop_test(
	    tc, a_write_of_any_size_is_offered_with_its_value, 0, 4);
	tcase_add_test(
	    tc, an_access_is_pending_from_when_it_is_made_until_it_is_offered);
	tcase_add_test(tc, a_vcpu_can_come_again_and_again);
	tcase_add_test(tc, an_event_while_another_is_served_is_not_lost);
	tcase_add_test(
	    tc, an_unanswered_access_is_offered_again_while_others_are_served);
	tcase_add_test(tc, all_vcpus_at_once_get_their_own_answers);
	tcase_add_test(tc, that_pages_were_given_back_is_offered_as_such);
	tcase_add_loop_test(
	    tc, what_no_driver_does_reads_all_ones, 0, COUNT(odd));
	tcase_add_loop_test(
	    tc, what_no_driver_does_writes_nothing, 0, COUNT(odd));
	tcase_add_test(tc, an_address_before_the_window_is_outside);
	tcase_add_test(tc, odd_accesses_do_not_stop_the_scan);
	tcase_add_test(tc, spurious_events_are_harmless);
	tcase_add_test(tc, an_answer_costs_one_notification);
	tcase_add_test(tc, event_channels_that_fail_are_reported);
	tcase_add_test(tc, an_interrupt_is_raised);
	tcase_add_test(tc, a_lowered_interrupt_can_be_raised_again);
	tcase_add_test(
	    tc, an_interrupt_that_could_not_be_lowered_is_raised_again);
	tcase_add_test(tc, an_interrupt_that_fails_is_logged_once);
	tcase_add_test(tc, the_guest_is_alive_until_its_destruction_begins);
	tcase_add_test(tc, a_question_that_fails_otherwise_is_no_death);
	tcase_add_test(tc, the_server_of_a_killed_predecessor_is_continued);
	tcase_add_loop_test(tc, it_is_found_beside_servers_of_other_programs, 0,
	    FAKE_XEN_SERVERS - FAKE_XEN_QEMUS);
	tcase_add_test(tc, a_foreign_page_is_only_read_and_not_kept);
	tcase_add_test(tc, a_page_that_cannot_be_mapped_is_passed_over);
	tcase_add_loop_test(tc,
	    a_page_for_which_the_host_has_no_memory_is_not_passed_over, 0, 2);
	tcase_add_test(tc, the_server_of_another_disk_is_left_alone);
	tcase_add_loop_test(tc, what_another_version_left_is_refused, 0, 2);
	tcase_add_loop_test(
	    tc, an_access_that_waited_goes_on_once_there_is_a_successor, 0, 2);
	tcase_add_test(
	    tc, an_answer_that_was_not_announced_is_and_is_not_made_again);
	tcase_add_test(
	    tc, while_another_serves_it_gives_up_and_disturbs_nothing);
	tcase_add_test(
	    tc, a_predecessor_that_takes_its_time_to_die_is_waited_for);
	tcase_add_loop_test(
	    tc, killed_while_it_opens_it_is_no_hindrance, 0, COUNT(ends));
	tcase_add_loop_test(
	    tc, ports_of_the_dead_are_free_whoever_is_killed, 0, VCPUS);
	tcase_add_test(
	    tc, killed_while_it_continues_again_and_again_it_is_no_hindrance);
	tcase_add_test(tc, as_many_vcpus_as_leave_room_can_be_continued);
	tcase_add_loop_test(tc,
	    with_more_vcpus_it_works_but_says_that_nobody_can_continue, 0, 2);
	tcase_add_test(tc, with_more_vcpus_a_second_start_continues_nothing);
	return cases_run(s);
}
