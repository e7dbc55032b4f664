/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory: the window over a guest whose memory has two banks and holes,
 * and what it costs in calls and keeps mapped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <check.h>

#include "cases.h"
#include "fake_log.h"
#include "fake_xen.h"
#include "guest.h"

#define DOMID 7
#define LOW   FAKE_XEN_LOW
#define HIGH  FAKE_XEN_HIGH
#define PAGE  FAKE_XEN_PAGE
#define MIB   (1ULL << 20)
#define BANK  (16 * MIB)

/* Where one call's worth of pages could end, whatever guest.c has chosen. */
#define SEAM (2 * MIB)

static struct fake_log logger;
static struct guest *guest;
static bool no_mmap, no_commit;

void *__real_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off);

void *
__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	errno = ENOMEM;
	/* With vm.overcommit_memory=2 MAP_NORESERVE means nothing. */
	return no_mmap || (no_commit && (prot & PROT_WRITE) && fd < 0)
		   ? MAP_FAILED
		   : __real_mmap(at, len, prot, flags, fd, off);
}

static void
setup(void)
{
	fake_xen_start(DOMID, 1, BANK, BANK);
	fake_log_init(&logger);
	guest = guest_open(&logger.logger, DOMID, GUEST_LIMIT_DEFAULT, NULL);
	ck_assert_ptr_nonnull(guest);
}

/* Whether both sides see the same memory at 'gpa'. */
static bool
shared(uint64_t gpa)
{
	static uint8_t value;
	volatile uint8_t *ours = guest_map(guest, gpa, 1);
	volatile uint8_t *theirs = fake_xen_ram(gpa);

	if (ours == NULL)
		return false;
	*theirs = ++value;
	if (*ours != value)
		return false;
	*ours = ++value;
	return *theirs == value;
}

/* ... soon, after the host has refused. */
static bool
mapped_soon(uint64_t gpa)
{
	for (unsigned i = 0; i < 2000 && guest_map(guest, gpa, 1) == NULL; i++)
		usleep(1000);
	return guest_map(guest, gpa, 1) != NULL;
}

static bool
shared_soon(uint64_t gpa)
{
	return mapped_soon(gpa) && shared(gpa);
}

START_TEST(opening_maps_nothing)
{
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), 0);
	ck_assert_uint_eq(fake_xen_mapped(0), 0);
}
END_TEST

START_TEST(a_pointer_shows_the_guests_memory)
{
	ck_assert(shared(LOW));
	ck_assert(shared(LOW + 12345));
	ck_assert(shared(LOW + BANK - 1));
}
END_TEST

START_TEST(the_second_bank_is_memory_like_the_first)
{
	ck_assert(shared(HIGH));
	ck_assert(shared(HIGH + BANK - 1));
	ck_assert(shared(LOW));
}
END_TEST

START_TEST(what_is_contiguous_in_the_guest_is_contiguous_here)
{
	const uint64_t at = LOW + SEAM - 5000, len = 2 * SEAM;
	uint8_t *ours, *theirs = fake_xen_ram(at);
	uint64_t i;

	for (i = 0; i < len; i += 997)
		theirs[i] = i;
	ours = guest_map(guest, at, len);
	ck_assert_ptr_nonnull(ours);
	for (i = 0; i < len; i += 997)
		ck_assert_uint_eq(ours[i], (uint8_t)i);
	ours[len - 1] = 0x5a;
	ck_assert_uint_eq(theirs[len - 1], 0x5a);
}
END_TEST

START_TEST(parts_mapped_at_different_times_fit_together)
{
	uint8_t *low = guest_map(guest, LOW + SEAM - PAGE, PAGE);
	uint8_t *high = guest_map(guest, LOW + SEAM, PAGE);

	ck_assert_ptr_nonnull(low);
	ck_assert_ptr_eq(high, low + PAGE);
	ck_assert_ptr_eq(guest_map(guest, LOW + SEAM - 10, 20), high - 10);
}
END_TEST

START_TEST(outside_memory_there_is_no_pointer)
{
	ck_assert_ptr_null(guest_map(guest, 0, 1));
	ck_assert_ptr_null(guest_map(guest, LOW - 1, 1));
	ck_assert_ptr_null(guest_map(guest, LOW - 1, 2));
	ck_assert_ptr_null(guest_map(guest, LOW + BANK, 1));
	ck_assert_ptr_null(guest_map(guest, LOW + BANK - 1, 2));
	ck_assert_ptr_null(guest_map(guest, HIGH - 1, 1));
	ck_assert_ptr_null(guest_map(guest, HIGH + BANK, 1));
	ck_assert_ptr_null(guest_map(guest, LOW, HIGH - LOW + 1));
}
END_TEST

START_TEST(an_overflowing_range_has_no_pointer)
{
	ck_assert_ptr_null(guest_map(guest, UINT64_MAX, 1));
	ck_assert_ptr_null(guest_map(guest, UINT64_MAX, 2));
	ck_assert_ptr_null(guest_map(guest, UINT64_MAX - 4095, 4096));
	ck_assert_ptr_null(guest_map(guest, LOW, SIZE_MAX));
	ck_assert_ptr_null(guest_map(guest, LOW, SIZE_MAX - LOW + 1));
	ck_assert_ptr_null(guest_map(guest, LOW, SIZE_MAX - LOW + 2));
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), 0);
}
END_TEST

START_TEST(beyond_the_window_there_is_no_pointer_and_no_call)
{
	unsigned bit;

	/* No arm64 or x86 guest has memory there (52 bits). */
	for (bit = 52; bit < 64; bit++)
		ck_assert_ptr_null(guest_map(guest, LOW | 1ULL << bit, 1));
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), 0);
}
END_TEST

START_TEST(memory_may_be_anywhere_in_46_bits)
{
	const uint64_t end = UINT64_C(1) << 46;

	if (mmap(NULL, end, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		0) == MAP_FAILED)
		return; /* the host has no such addresses itself */
	ck_assert_ptr_null(guest_map(guest, end, 1));
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), 0);
	/* Xen is asked, though there is none. */
	ck_assert_ptr_null(guest_map(guest, end - 1, 1));
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), 1);
}
END_TEST

START_TEST(nothing_is_needed_for_no_bytes)
{
	unsigned calls;

	ck_assert_ptr_nonnull(guest_map(guest, LOW, 1));
	ck_assert_ptr_nonnull(guest_map(guest, LOW + 1, 0));
	calls = fake_xen_calls(XC_MAP2);
	ck_assert_ptr_nonnull(guest_map(guest, HIGH, 0));
	ck_assert_ptr_null(guest_map(guest, UINT64_MAX, 0));
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), calls);
}
END_TEST

START_TEST(a_page_is_mapped_once)
{
	unsigned calls, i;

	for (i = 0; i < BANK; i += PAGE)
		ck_assert_ptr_nonnull(guest_map(guest, LOW + i, PAGE));
	calls = fake_xen_calls(XC_MAP2);
	ck_assert_uint_eq(fake_xen_mapped(0), BANK / PAGE);
	for (i = 0; i < BANK; i += PAGE)
		ck_assert_ptr_nonnull(guest_map(guest, LOW + i, PAGE));
	ck_assert_ptr_nonnull(guest_map(guest, LOW, BANK));
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), calls);
	/* Calls cost more than pages: 64 at a time at the very least. */
	ck_assert_uint_le(calls, BANK / PAGE / 64);
}
END_TEST

START_TEST(a_hole_has_no_pointer_and_its_neighbours_have)
{
	const uint64_t hole = LOW + 5 * PAGE;

	fake_xen_take_page(hole);
	ck_assert_ptr_null(guest_map(guest, hole, 1));
	ck_assert_ptr_null(guest_map(guest, hole + PAGE - 1, 1));
	ck_assert_ptr_null(guest_map(guest, hole - 1, 2));
	ck_assert_ptr_null(guest_map(guest, LOW, 16 * PAGE));
	ck_assert(shared(hole - 1));
	ck_assert(shared(hole + PAGE));
	ck_assert_ptr_null(guest_map(guest, hole, 1));
}
END_TEST

START_TEST(a_page_that_appears_later_is_found)
{
	const uint64_t late = LOW + 5 * PAGE;

	fake_xen_take_page(late);
	ck_assert_ptr_null(guest_map(guest, late, 1));
	ck_assert(shared(late - PAGE));
	fake_xen_give_page(late);
	ck_assert(shared(late));
	ck_assert_ptr_nonnull(guest_map(guest, LOW, 16 * PAGE));
}
END_TEST

START_TEST(pages_that_come_and_go_take_none_with_them)
{
	fake_xen_take_page(LOW);
	fake_xen_flicker(LOW + 5 * PAGE);
	ck_assert(shared(LOW + 6 * PAGE));
	ck_assert(shared(LOW + 9 * PAGE));
	/* Of a whole chunk, too. */
	fake_xen_take_page(LOW + 300 * PAGE);
	fake_xen_flicker(LOW + 400 * PAGE);
	ck_assert(shared(LOW + 420 * PAGE));
}
END_TEST

START_TEST(a_page_that_fails_leaves_its_neighbours_where_they_are)
{
	const uint64_t hole = LOW + 5 * PAGE;
	uint8_t *ours;
	unsigned mapped;

	fake_xen_take_page(hole);
	ours = guest_map(guest, hole - PAGE, PAGE);
	ck_assert_ptr_nonnull(ours);
	mapped = fake_xen_mapped(0);
	*ours = 0x11;
	ck_assert_ptr_null(guest_map(guest, hole, 1));
	ck_assert_uint_eq(*ours, 0x11);
	mapped = fake_xen_mapped(0);
	fake_xen_give_page(hole);
	ck_assert_ptr_nonnull(guest_map(guest, hole, 1));
	ck_assert_uint_eq(*ours, 0x11);
	ck_assert_uint_eq(fake_xen_mapped(0), mapped + 1);
	ck_assert(shared(hole));
}
END_TEST

START_TEST(unmap_all_unmaps_everything)
{
	ck_assert_ptr_nonnull(guest_map(guest, LOW, BANK));
	ck_assert_ptr_nonnull(guest_map(guest, HIGH + 3 * PAGE, 1));
	ck_assert_uint_gt(fake_xen_mapped(0), BANK / PAGE);
	ck_assert_uint_ge(guest_mapped(guest), fake_xen_mapped(0) * PAGE);
	guest_unmap_all(guest);
	ck_assert_uint_eq(fake_xen_mapped(0), 0);
	ck_assert_uint_eq(guest_mapped(guest), 0);
	ck_assert(shared(LOW));
	ck_assert(shared(HIGH + 3 * PAGE));
}
END_TEST

START_TEST(after_unmap_all_the_new_page_is_used)
{
	ck_assert(shared(LOW + PAGE));
	fake_xen_take_page(LOW + PAGE);
	fake_xen_give_page(LOW + PAGE);
	guest_unmap_all(guest);
	ck_assert(shared(LOW + PAGE));
	ck_assert(shared(HIGH));
}
END_TEST

START_TEST(repeated_unmap_all_leaks_nothing)
{
	unsigned i;

	for (i = 0; i < 100; i++) {
		guest_unmap_all(guest);
		ck_assert(shared(LOW + i * PAGE));
	}
	guest_unmap_all(guest);
	ck_assert_uint_eq(fake_xen_mapped(0), 0);
}
END_TEST

START_TEST(what_the_host_refuses_is_lacking_now_and_there_later)
{
	fake_xen_set_room(1);
	ck_assert(shared(LOW)); /* a page at a time, if there is no more room */
	ck_assert_ptr_null(guest_map(guest, LOW + PAGE, 1));
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_ptr_null(guest_map(guest, LOW + SEAM, 1));
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_ptr_null(guest_map(guest, LOW - 1, 1));
	ck_assert_int_eq(errno, ENOMEM); /* nobody can tell */
	ck_assert(shared(LOW));
	fake_xen_set_room(UINT64_MAX);
	ck_assert(shared_soon(LOW + PAGE));
	ck_assert(shared(LOW + SEAM));
	ck_assert_ptr_null(guest_map(guest, LOW - 1, 1));
	ck_assert_int_eq(errno, EFAULT);
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

START_TEST(a_failed_call_leaves_no_gap_in_the_window)
{
	char *ours = guest_map(guest, LOW, 1), *other;
	unsigned i, calls = fake_xen_calls(XC_MAP2);

	ck_assert_ptr_nonnull(ours);
	for (i = 1; i < BANK / SEAM; i++) {
		fake_xen_fail(XC_MAP2, 1, ENOMEM);
		while (fake_xen_calls(XC_MAP2) == calls)
			ck_assert_ptr_null(guest_map(guest, LOW + i * SEAM, 1));
		calls = fake_xen_calls(XC_MAP2);
	}
	/* Other mappings must not land in the window. */
	for (i = 0; i < 100; i++) {
		other = aligned_alloc(SEAM, SEAM);
		ck_assert(other + SEAM <= ours || other >= ours + BANK);
	}
	ck_assert(shared_soon(LOW + BANK - 1));
}
END_TEST

/* Linux logs each refusal. */
START_TEST(a_host_that_refuses_is_asked_seldom_and_seldomer)
{
	unsigned calls, i;
	int64_t from;

	fake_xen_set_room(0);
	calls = fake_xen_calls(XC_MAP2);
	from = milliseconds();
	for (i = 0; i < 1000; i++) {
		ck_assert_ptr_null(guest_map(guest, LOW, 1));
		ck_assert_int_eq(errno, ENOMEM);
		guest_unmap_all(guest);
		usleep(1000);
	}
	/* After 20, 40, 80 ms, and so on; the second may have lasted longer. */
	calls = fake_xen_calls(XC_MAP2) - calls;
	ck_assert_uint_ge(calls, 2);
	ck_assert_uint_le(calls, 12 + 2 * ((milliseconds() - from) / 1000));
	fake_xen_set_room(UINT64_MAX);
	ck_assert(shared_soon(LOW));
}
END_TEST

START_TEST(a_host_that_commits_no_more_memory_has_it_later)
{
	no_commit = true;
	ck_assert_ptr_null(guest_map(guest, LOW, 1));
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_uint_eq(guest_mapped(guest), 0);
	guest_unmap_all(guest);
	no_commit = false;
	ck_assert(shared_soon(LOW));
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

START_TEST(memory_that_cannot_be_unmapped_is_the_end)
{
	int status;

	ck_assert(shared(LOW));
	fake_xen_fail(XC_MAP2, 1, ENOMEM);
	no_mmap = true;
	if (fork() == 0) {
		if (_i == 0)
			guest_unmap_all(guest);
		else
			guest_map(guest, LOW + SEAM, 1);
		_exit(0);
	}
	wait(&status);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 1);
}
END_TEST

START_TEST(a_dying_guest_has_no_memory)
{
	ck_assert(shared(LOW));
	fake_xen_set_life(FAKE_XEN_DYING);
	ck_assert_ptr_null(guest_map(guest, HIGH, 1));
	fake_xen_set_life(FAKE_XEN_DEAD);
	ck_assert_ptr_null(guest_map(guest, HIGH, 1));
}
END_TEST

START_TEST(without_xen_opening_fails_with_a_line)
{
	fake_xen_fail(XC_FOREIGNMEMORY_OPEN, 1, ENOENT);
	ck_assert_ptr_null(guest_open(&logger.logger, DOMID, 0, NULL));
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

/*
 * Write to 'n' pages from 'gpa' on, and tell guest.c.
 */
static void
write_pages(uint64_t gpa, unsigned n)
{
	uint8_t *p = guest_map(guest, gpa, (size_t)n * PAGE);

	ck_assert_ptr_nonnull(p);
	for (unsigned i = 0; i < n; i++)
		p[i * PAGE + PAGE / 2]++;
	guest_wrote(guest, gpa + PAGE / 2, (size_t)(n - 1) * PAGE + 1);
}

static unsigned
count_copied(uint64_t gpa, unsigned n)
{
	unsigned copied = 0;

	for (unsigned i = 0; i < n; i++)
		copied += fake_xen_copied(gpa + (uint64_t)i * PAGE);
	return copied;
}

START_TEST(what_was_written_is_reported_with_one_call)
{
	if (!GUEST_CAN_MIGRATE)
		return;
	fake_xen_copy(true);
	write_pages(LOW + 5 * PAGE, 3);
	write_pages(HIGH, 1);
	ck_assert_uint_eq(fake_xen_calls(XC_MODIFIED_MEMORY), 0);
	guest_report(guest);
	ck_assert_uint_eq(fake_xen_calls(XC_MODIFIED_MEMORY), 1);
	ck_assert_uint_eq(count_copied(LOW, 16), 3);
	ck_assert_uint_eq(count_copied(HIGH, 16), 1);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(any_number_of_pages_can_be_reported)
{
	if (!GUEST_CAN_MIGRATE)
		return;
	fake_xen_copy(true);
	write_pages(LOW, 1000);
	write_pages(HIGH, 1000);
	guest_report(guest);
	ck_assert_uint_eq(count_copied(LOW, 1001), 1000);
	ck_assert_uint_eq(count_copied(HIGH, 1001), 1000);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(a_page_that_cannot_be_reported_keeps_no_other_from_it)
{
	if (!GUEST_CAN_MIGRATE)
		return;
	fake_xen_copy(true);
	for (unsigned i = 0; i < 2; i++) {
		write_pages(LOW, 2);
		write_pages(HIGH + BANK - 2 * PAGE, 2);
		write_pages(HIGH, 2);
		guest_report(guest);
		ck_assert_uint_eq(count_copied(LOW, 2), 2);
		ck_assert_uint_eq(count_copied(HIGH + BANK - 2 * PAGE, 2), 1);
		ck_assert_uint_eq(count_copied(HIGH, 2), 2);
	}
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

START_TEST(of_a_guest_that_is_gone_nothing_is_reported_or_said)
{
	if (!GUEST_CAN_MIGRATE)
		return;
	write_pages(LOW, 2);
	fake_xen_set_life(FAKE_XEN_DEAD);
	guest_report(guest);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

/* A guest of which no more than 'limit' bytes may be mapped. */
static void
reopen(uint64_t limit)
{
	fake_xen_start(DOMID, 1, 4 * BANK, BANK);
	guest = guest_open(&logger.logger, DOMID, limit, NULL);
	ck_assert_ptr_nonnull(guest);
}

START_TEST(memory_that_is_not_there_takes_no_room)
{
	unsigned i;

	/* Two calls at most for each, of one page. */
	fake_xen_set_room(1);
	for (i = 0; i < 50000; i++) {
		ck_assert_ptr_null(
		    guest_map(guest, HIGH + BANK + (uint64_t)i * SEAM, PAGE));
		ck_assert_int_eq(errno, EFAULT);
	}
	ck_assert_uint_le(fake_xen_calls(XC_MAP2), 2 * i);
	ck_assert_uint_eq(fake_xen_foreign(), 0);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

/* What the guest has of LOW to LOW + SEAM, as ranges of pages. */
static const struct {
	unsigned from, to;
} sparse[][3] = {
    {{7, 8}},
    {{511, 512}},
    {{0, 1}, {511, 512}},
    {{0, 100}, {200, 210}, {300, 512}},
    {{3, 5}, {8, 11}, {13, 20}},
    {{16, 32}, {64, 80}, {81, 97}},
    {{0, 511}},
};

START_TEST(a_guest_with_holes_takes_no_more_room_than_it_has_pages)
{
	unsigned pages = 0, calls, i, page, pass;
	bool has[512] = {false};

	for (i = 0; i < 3; i++)
		for (page = sparse[_i][i].from; page < sparse[_i][i].to; page++)
			has[page] = ++pages;
	for (page = 0; page < 512; page++)
		if (!has[page])
			fake_xen_take_page(LOW + page * PAGE);
	for (pass = 0; pass < 2; pass++) {
		calls = fake_xen_calls(XC_MAP2);
		for (page = 0; page < 512; page++)
			if (has[page])
				ck_assert(shared(LOW + page * PAGE));
		ck_assert_uint_eq(fake_xen_foreign(), pages);
	}
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), calls);
	/* Nor does it by asking for what it has not. */
	for (page = 0; page < 512; page++)
		ck_assert(has[page] ==
			  (guest_map(guest, LOW + page * PAGE, PAGE) != NULL));
	ck_assert_uint_eq(fake_xen_foreign(), pages);
}
END_TEST

START_TEST(no_more_is_mapped_than_the_limit)
{
	const uint64_t limit = _i == 0 ? 16 * MIB : 8 * MIB; /* the least */
	uint64_t at = 0, last = UINT64_MAX;
	unsigned lacked = 0, worn = 0, i;

	reopen(_i == 0 ? limit : 0);
	fake_xen_set_room(UINT64_MAX);
	srandom(1);
	for (i = 0; i < 20000; i++) {
		if (last != at)
			at =
			    LOW + (uint64_t)random() % (4 * BANK / PAGE) * PAGE;
		if (guest_map(guest, at, PAGE) == NULL) {
			ck_assert_int_eq(errno, ENOBUFS);
			/* There is room after one of these calls. */
			if (last != at) {
				ck_assert(guest_reclaim(guest));
				last = at;
				lacked++;
			} else {
				ck_assert_uint_lt(worn, lacked / 100);
				guest_unmap_all(guest);
				worn++;
			}
			continue;
		}
		ck_assert(shared(at));
		last = UINT64_MAX;
	}
	ck_assert_uint_gt(lacked, 0);
	/* What stays of each chunk that was mapped must go, too. */
	ck_assert(worn > 0 || _i == 0);
	/* One more to look with. */
	ck_assert_uint_le(fake_xen_foreign_max(), limit / PAGE + 1);
	ck_assert_uint_gt(fake_xen_foreign_max(), limit / PAGE / 2);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

START_TEST(what_is_kept_or_was_used_stays_when_memory_is_given_back)
{
	uint8_t *kept, *used;
	unsigned i, chunk = 2, calls;

	reopen(8 * MIB);
	kept = guest_map(guest, LOW + 5 * PAGE, PAGE);
	ck_assert_ptr_nonnull(kept);
	*kept = 0x33;
	ck_assert_ptr_nonnull(guest_map(guest, LOW + SEAM, PAGE));
	for (i = 0; i < 2000; i++) {
		calls = fake_xen_calls(XC_MAP2);
		used = guest_map(guest, LOW + SEAM, PAGE);
		ck_assert_ptr_nonnull(used);
		ck_assert_uint_eq(fake_xen_calls(XC_MAP2), calls);
		if (guest_map(guest, LOW + chunk * SEAM + i % 512 * PAGE,
			PAGE) == NULL) {
			guest_pin(guest, kept, PAGE);
			guest_pin(guest, &i, sizeof(i)); /* not the guest's */
			guest_pin(guest, NULL, 8);
			ck_assert(guest_reclaim(guest));
			/* It is still there, without a call. */
			ck_assert_uint_eq(*kept, 0x33);
		}
		chunk = 2 + (chunk + 1) % 28;
	}
	i = fake_xen_calls(XC_MAP2);
	ck_assert_ptr_eq(guest_map(guest, LOW + 5 * PAGE, PAGE), kept);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), i);
	ck_assert(shared(LOW + 5 * PAGE));
}
END_TEST

START_TEST(if_all_is_kept_nothing_is_given_back)
{
	char *p;

	reopen(8 * MIB);
	p = guest_map(guest, LOW, 7 * MIB);
	ck_assert_ptr_nonnull(p);
	ck_assert_ptr_null(guest_map(guest, LOW + 8 * MIB, 2 * MIB));
	ck_assert_int_eq(errno, ENOBUFS);
	guest_pin(guest, p, 7 * MIB);
	/* Of the rest, there is what was mapped of the second. */
	guest_reclaim(guest);
	guest_pin(guest, p, 7 * MIB);
	ck_assert(!guest_reclaim(guest));
	for (unsigned i = 0; i < 7 * MIB; i += PAGE)
		p[i] = 1;
	ck_assert(guest_reclaim(guest));
	ck_assert_ptr_nonnull(guest_map(guest, LOW + 8 * MIB, 2 * MIB));
}
END_TEST

START_TEST(what_is_larger_than_the_limit_is_never_mapped)
{
	reopen(8 * MIB);
	ck_assert_ptr_null(guest_map(guest, LOW, 9 * MIB));
	ck_assert_int_eq(errno, ENOBUFS);
	guest_unmap_all(guest);
	ck_assert_ptr_null(guest_map(guest, LOW, 9 * MIB));
	ck_assert_int_eq(errno, ENOBUFS);
	guest_unmap_all(guest);
	ck_assert_uint_eq(fake_xen_foreign(), 0);
	ck_assert(shared(LOW));
	ck_assert_uint_le(fake_xen_foreign_max(), 8 * MIB / PAGE + 1);
}
END_TEST

START_TEST(where_the_host_refuses_it_gets_some_back_for_others)
{
	uint64_t before;

	reopen(32 * MIB);
	ck_assert_ptr_nonnull(guest_map(guest, LOW, 24 * MIB));
	before = fake_xen_foreign();
	fake_xen_set_room(before);
	ck_assert_ptr_null(guest_map(guest, HIGH, 1));
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert(guest_reclaim(guest));
	ck_assert_uint_le(fake_xen_foreign(), before - before / 4);
	ck_assert(shared(HIGH));
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

START_TEST(if_xen_has_no_memory_to_map_with_that_is_no_fault_of_the_guest)
{
	reopen(32 * MIB);
	ck_assert(shared(LOW));
	ck_assert_ptr_null(guest_map(guest, HIGH + BANK, PAGE));
	ck_assert_int_eq(errno, EFAULT);
	fake_xen_starve(_i < 2 ? ENOENT : ENOMEM);
	/* Another page of a chunk of which some are mapped, or not. */
	ck_assert_ptr_null(guest_map(
	    guest, _i % 2 == 0 ? LOW + SEAM : LOW + 100 * PAGE, PAGE));
	ck_assert_int_eq(errno, ENOMEM);
	fake_xen_starve(0);
	ck_assert(shared_soon(LOW + SEAM));
	ck_assert(shared(LOW + 100 * PAGE));
	ck_assert_uint_eq(logger.lines, 1);
}
END_TEST

/* Half of a number of more than 31 bits is negative. */
START_TEST(nor_if_a_page_has_a_large_number)
{
	const uint64_t at = UINT64_C(9) << 40;

	fake_xen_endless(at);
	fake_xen_starve(ENOMEM);
	ck_assert_ptr_null(guest_map(guest, at, PAGE));
	ck_assert_int_eq(errno, ENOMEM);
	fake_xen_starve(0);
	ck_assert(mapped_soon(at));
}
END_TEST

START_TEST(scattered_pages_of_one_request_fit_the_least_limit)
{
	unsigned i;

	/* 254 segments across page boundaries, each pair in its own chunk. */
	reopen(0);
	fake_xen_endless(UINT64_C(1) << 39);
	for (i = 0; i < 254; i++)
		if (guest_map(guest, (UINT64_C(1) << 39) + i * SEAM + 2048,
			PAGE) == NULL)
			break;
	if (i < 254) { /* as device.c does when nothing is in flight */
		ck_assert_int_eq(errno, ENOBUFS);
		guest_unmap_all(guest);
	}
	for (i = 0; i < 254; i++)
		ck_assert_ptr_nonnull(guest_map(
		    guest, (UINT64_C(1) << 39) + i * SEAM + 2048, PAGE));
}
END_TEST

START_TEST(they_fit_it_after_a_shortage_too)
{
	const uint64_t first = UINT64_C(1) << 39;
	uint64_t at;
	unsigned i;

	reopen(256 * MIB);
	fake_xen_endless(first);
	fake_xen_set_room(0);
	ck_assert_ptr_null(guest_map(guest, first, 1));
	fake_xen_set_room(UINT64_MAX);
	at = first;
	ck_assert(mapped_soon(at));
	while (guest_map(guest, at, 1) != NULL)
		at += SEAM;
	ck_assert_int_eq(errno, ENOMEM);
	/* As device.c does. */
	for (i = 0; i < 2 && guest_reclaim(guest); i++)
		while (guest_map(guest, at, 1) != NULL)
			at += SEAM;
	guest_unmap_all(guest);
	for (i = 0; i < 254; i++)
		ck_assert_ptr_nonnull(
		    guest_map(guest, first + i * SEAM + 2048, PAGE));
}
END_TEST

START_TEST(two_hundred_gigabytes_can_be_used)
{
	const uint64_t from = UINT64_C(64) << 30, len = UINT64_C(200) << 30;
	uint64_t at;

	reopen(len);
	fake_xen_endless(from);
	for (at = from; at < from + len; at += SEAM) {
		if (guest_map(guest, at + SEAM - PAGE, PAGE) != NULL)
			continue;
		ck_assert_int_eq(errno, ENOBUFS);
		ck_assert(guest_reclaim(guest));
		ck_assert_ptr_nonnull(guest_map(guest, at, PAGE));
	}
	ck_assert_uint_gt(guest_mapped(guest), UINT64_C(1) << 28);
	guest_unmap_all(guest);
	ck_assert_uint_eq(fake_xen_foreign(), 0);
	ck_assert_uint_eq(logger.lines, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("guest");
	TCase *tc = cases_add(s, "guest", setup, NULL);

	tcase_add_test(tc, opening_maps_nothing);
	tcase_add_test(tc, a_pointer_shows_the_guests_memory);
	tcase_add_test(tc, the_second_bank_is_memory_like_the_first);
	tcase_add_test(tc, what_is_contiguous_in_the_guest_is_contiguous_here);
	tcase_add_test(tc, parts_mapped_at_different_times_fit_together);
	tcase_add_test(tc, outside_memory_there_is_no_pointer);
	tcase_add_test(tc, an_overflowing_range_has_no_pointer);
	tcase_add_test(tc, beyond_the_window_there_is_no_pointer_and_no_call);
	tcase_add_test(tc, memory_may_be_anywhere_in_46_bits);
	tcase_add_test(tc, nothing_is_needed_for_no_bytes);
	tcase_add_test(tc, a_page_is_mapped_once);
	tcase_add_test(tc, a_hole_has_no_pointer_and_its_neighbours_have);
	tcase_add_test(tc, a_page_that_appears_later_is_found);
	tcase_add_test(tc, pages_that_come_and_go_take_none_with_them);
	tcase_add_test(
	    tc, a_page_that_fails_leaves_its_neighbours_where_they_are);
	tcase_add_test(tc, unmap_all_unmaps_everything);
	tcase_add_test(tc, after_unmap_all_the_new_page_is_used);
	tcase_add_test(tc, repeated_unmap_all_leaks_nothing);
	tcase_add_test(
	    tc, what_the_host_refuses_is_lacking_now_and_there_later);
	tcase_add_test(tc, a_failed_call_leaves_no_gap_in_the_window);
	tcase_add_test(tc, a_host_that_refuses_is_asked_seldom_and_seldomer);
	tcase_add_test(tc, a_host_that_commits_no_more_memory_has_it_later);
	tcase_add_loop_test(
	    tc, memory_that_cannot_be_unmapped_is_the_end, 0, 2);
	tcase_add_test(tc, a_dying_guest_has_no_memory);
	tcase_add_test(tc, what_was_written_is_reported_with_one_call);
	tcase_add_test(tc, any_number_of_pages_can_be_reported);
	tcase_add_test(
	    tc, a_page_that_cannot_be_reported_keeps_no_other_from_it);
	tcase_add_test(tc, of_a_guest_that_is_gone_nothing_is_reported_or_said);
	tcase_add_test(tc, without_xen_opening_fails_with_a_line);
	tcase_add_test(tc, memory_that_is_not_there_takes_no_room);
	tcase_add_loop_test(tc,
	    a_guest_with_holes_takes_no_more_room_than_it_has_pages, 0,
	    sizeof(sparse) / sizeof(sparse[0]));
	tcase_add_loop_test(tc, no_more_is_mapped_than_the_limit, 0, 2);
	tcase_add_test(
	    tc, what_is_kept_or_was_used_stays_when_memory_is_given_back);
	tcase_add_test(tc, if_all_is_kept_nothing_is_given_back);
	tcase_add_test(tc, what_is_larger_than_the_limit_is_never_mapped);
	tcase_add_test(tc, where_the_host_refuses_it_gets_some_back_for_others);
	tcase_add_loop_test(tc,
	    if_xen_has_no_memory_to_map_with_that_is_no_fault_of_the_guest, 0,
	    4);
	tcase_add_test(tc, scattered_pages_of_one_request_fit_the_least_limit);
	tcase_add_test(tc, they_fit_it_after_a_shortage_too);
	tcase_add_test(tc, nor_if_a_page_has_a_large_number);
	tcase_add_test(tc, two_hundred_gigabytes_can_be_used);
	return cases_run(s);
}
