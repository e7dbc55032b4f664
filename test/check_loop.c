/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How the event loop waits, on a clock that only its own calls move: to look at
 * it takes LOOK, and naps and sleeps take WAKEUP more than they are to.  The
 * guest makes one access after another, or gives up one page after another and
 * has requests in flight until then whenever the loop starts any.  Where it
 * shares the processor with the loop it runs while that does not, after a TURN
 * instead of it, and until its next access when the loop's vCPU yields.
 */
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <time.h>

#include "cases.h"
#include "device.h"
#include "guest.h"
#include "ioreq.h"
#include "log.h"
#include "loop.h"

#define US	  1000
#define LOOK	  100
#define WAKEUP	  (20 * US)
#define POLL	  (16 * WAKEUP)
#define TURN	  (200 * US)
#define STILL	  (60 * US)
#define WAITS_MAX 11000

int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_nanosleep(const struct timespec *t, struct timespec *rest);
int __wrap_sched_yield(void);
int __wrap_poll(struct pollfd *fd, nfds_t n, int timeout);

/*
 * What the guest does: so many accesses, each so long after the last answer.
 * UNSEEN: it has its turns in calls of sched_yield() only.
 */
static const struct phase {
	unsigned accesses;
	uint64_t gap;
	enum { APART, SHARED, UNSEEN } on; /* the loop's processor */
} * phase;
static unsigned left;	     /* accesses in this phase */
static uint64_t uneven;	     /* added to every second gap */
static uint64_t guest_needs; /* to run before the next of them */
static uint64_t guest_held;  /* it has not run for so long */
static enum device_event expected;
static uint64_t wakeup;	  /* that it takes now */
static uint64_t rounding; /* of naps: they take so much longer than asked for */
static bool disturbed;	  /* by others: most take longer */
static uint64_t tick;	  /* lost in a wait, to neither of us */
static uint64_t tick_at;  /* having spun for so long */
static unsigned ticks;	  /* in each so many waits one */
static bool on_yield;	  /* what the guest has done is seen after a yield */
static bool yielded;
static bool can_yield;	/* the vCPU */
static bool trapped;	/* ... and Xen knows of it */
static uint64_t others; /* run for so long when it yields */
static bool event;	/* came, and is not acknowledged */
static bool ballooning;
static bool mapped; /* by requests */

/* What the loop did in each wait. */
static struct wait {
	unsigned yields, vcpu_yields, naps, sleeps, acks;
	uint64_t nap[4]; /* as asked for */
	uint64_t spun;	 /* time on the processor */
} waits[WAITS_MAX], *wait;
static uint64_t t;

/* Between unmapping the guest and starting a request again. */
static uint64_t backoffs[20], unmapped_at;
static unsigned n_backoffs;

static void
guest_runs(uint64_t ns)
{
	guest_held = 0;
	guest_needs -= MIN(guest_needs, ns);
}

/* We run, or at least the guest does not if it shares the processor. */
static void
hold_processor(uint64_t ns, bool seen)
{
	guest_held += ns;
	if (phase->on == APART) {
		guest_runs(ns);
	} else if (guest_held >= TURN && seen == (phase->on == SHARED)) {
		t += guest_needs;
		guest_runs(guest_needs);
	}
}

int
__wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
	if (phase == NULL) /* libcheck's */
		return __real_clock_gettime(clock, out);
	t += LOOK;
	wait->spun += LOOK;
	if (ticks > 0 && (wait - waits) % ticks == 0 && wait->spun == tick_at) {
		t += tick;
		guest_runs(phase->on != APART ? 0 : tick);
	}
	hold_processor(LOOK, true);
	*out = (struct timespec){t / 1000000000, t % 1000000000};
	return 0;
}

int
__wrap_nanosleep(const struct timespec *ns, struct timespec *rest)
{
	(void)rest;
	wait->nap[MIN(wait->naps, 3)] = ns->tv_nsec;
	wait->naps++;
	t += disturbed && wait->naps != 7 ? 10 * wakeup : 0;
	t += ns->tv_nsec + wakeup + rounding;
	guest_runs(ns->tv_nsec + wakeup + rounding);
	yielded = guest_needs == 0;
	return 0;
}

int
__wrap_sched_yield(void)
{
	wait->yields++;
	hold_processor(0, false);
	yielded = guest_needs == 0;
	return 0;
}

int
__wrap_poll(struct pollfd *fd, nfds_t n, int timeout)
{
	for (nfds_t i = 0; i < n; i++)
		fd[i].revents = 0;
	if (timeout > 0 && left > 0) {
		uint64_t slept = MIN(guest_needs, timeout * 1000ULL * US);

		ck_assert(!event); /* it would not sleep */
		wait->sleeps++;
		t += slept + wakeup;
		guest_runs(slept);
		event = yielded = guest_needs == 0;
	}
	fd[FD_EVENTS].revents = event ? POLLIN : 0;
	return event;
}

bool
ioreq_next(struct ioreq_server *io, struct access *a)
{
	(void)io;
	if (left == 0 || guest_needs > 0 || (on_yield && !yielded))
		return false;
	*a = (struct access){
	    .kind = ballooning ? ACCESS_INVALIDATE : ACCESS_READ};
	return true;
}

void
ioreq_complete(struct ioreq_server *io, const struct access *a)
{
	(void)io, (void)a;
	if (--left == 0 && phase[1].accesses > 0)
		left = (++phase)->accesses;
	guest_needs = phase->gap + (left % 2) * uneven;
	guest_held = 0;
	yielded = false;
	wait++;
	ck_assert(wait < waits + WAITS_MAX);
}

bool
ioreq_ack_event(struct ioreq_server *io)
{
	(void)io;
	event = false;
	wait->acks++;
	return true;
}

/*
 * If Xen knows of it, then it runs who waits for the processor: others, and the
 * guest until its next access.  If not, the processor stands still until the next
 * event of a timer, and three times of that are less than a TURN.
 */
bool
ioreq_yield(void)
{
	uint64_t passed = US + others + (phase->on != APART ? guest_needs : 0);

	wait->vcpu_yields++;
	if (trapped) {
		t += passed;
		guest_runs(passed);
	} else {
		t += STILL;
		hold_processor(STILL, true);
	}
	return can_yield;
}

/* At the end it is gone, and the loop returns. */
bool
ioreq_domain_exists(struct ioreq_server *io)
{
	(void)io;
	return left > 0;
}

bool
device_access(struct device *dev, struct access *a)
{
	(void)dev, (void)a;
	return true;
}

bool
device_process_queue(struct device *dev, bool paused)
{
	(void)dev;
	if (ballooning && !mapped && !paused) {
		mapped = true;
		ck_assert(n_backoffs < COUNT(backoffs));
		backoffs[n_backoffs++] = t - unmapped_at;
	}
	return false;
}

bool
device_starved(const struct device *dev)
{
	(void)dev;
	return false;
}

enum device_event
device_expected_event(const struct device *dev)
{
	(void)dev;
	return expected;
}

/* Only before a sleep. */
bool
device_enable_notify(struct device *dev)
{
	(void)dev;
	return false;
}

bool
device_idle(const struct device *dev)
{
	(void)dev;
	return !(ballooning && mapped && guest_needs > 0);
}

void
device_resize(struct device *dev)
{
	(void)dev;
}

void
device_log_stats(const struct device *dev)
{
	(void)dev;
}

void
guest_unmap_all(struct guest *guest)
{
	(void)guest;
	mapped = false;
	unmapped_at = t;
}

uint64_t
guest_mapped(const struct guest *guest)
{
	(void)guest;
	return mapped ? 4096 : 0;
}

void
xtl_log(xentoollog_logger *log, xentoollog_level level, int error,
    const char *context, const char *format, ...)
{
	(void)log, (void)level, (void)error, (void)context, (void)format;
}

static void
set_up(void)
{
	memset(waits, 0, sizeof(waits));
	wait = waits;
	expected = DEVICE_AVAIL;
	wakeup = WAKEUP;
	disturbed = event = on_yield = ballooning = can_yield = false;
	trapped = true;
	others = uneven = 0;
	mapped = true;
	n_backoffs = 0;
	rounding = tick = ticks = 0;
	tick_at = 10 * US;
}

/*
 * Serve a guest with these phases, which one without accesses ends.  waits[1] is
 * the wait after the first answer.
 */
static void
run(const struct phase *phases, uint64_t poll_ns)
{
	struct loop_config config = {
	    .wakeup_ns = WAKEUP, .poll_ns = poll_ns, .can_yield = can_yield};

	phase = phases;
	left = phase->accesses;
	guest_needs = guest_held = 0;
	ck_assert_int_eq(loop_run(&config), 0);
	phase = NULL;
}

/*
 * From 'begin' on and before 'end' all waits are alike: spun for at least
 * 'least' and at most 'most' microseconds, with so many naps, and then slept or
 * not.
 */
static void
assert_waits(unsigned begin, unsigned end, unsigned least, unsigned most,
    unsigned naps, bool slept)
{
	for (; begin < end; begin++) {
		ck_assert_msg(waits[begin].spun >= least * US &&
				  waits[begin].spun <= most * US &&
				  waits[begin].naps == naps &&
				  waits[begin].sleeps == slept,
		    "wait %u: spun %llu ns, %u naps, slept %u", begin,
		    (unsigned long long)waits[begin].spun, waits[begin].naps,
		    waits[begin].sleeps);
	}
}

/*
 * Or 50 us if that is longer, and 10 ms at most.
 */
START_TEST(the_polling_time_is_that_of_16_wakeups)
{
	static const unsigned wakeup_us[] = {2, 20, 900};
	static const unsigned least_us[] = {50, 320, 10000};
	struct loop_config config = {0};
	const struct phase none = {0};

	prctl(PR_SET_TIMERSLACK, 50 * US);
	wakeup = wakeup_us[_i] * US;
	can_yield = _i % 2 == 0;
	phase = &none;
	loop_calibrate(&config);
	phase = NULL;
	ck_assert_uint_ge(config.wakeup_ns, wakeup);
	ck_assert_uint_le(config.wakeup_ns, wakeup + 2 * LOOK);
	ck_assert_uint_ge(config.poll_ns, least_us[_i] * US);
	ck_assert_uint_le(config.poll_ns, least_us[_i] * US + 32 * LOOK);
	ck_assert_int_eq(config.can_yield, can_yield);
	ck_assert_int_eq(prctl(PR_GET_TIMERSLACK), 1);
}
END_TEST

START_TEST(the_fastest_wakeup_counts)
{
	struct loop_config config = {0};
	const struct phase none = {0};

	disturbed = true;
	phase = &none;
	loop_calibrate(&config);
	phase = NULL;
	ck_assert_uint_le(config.wakeup_ns, WAKEUP + 2 * LOOK);
}
END_TEST

START_TEST(where_the_guest_is_quick_it_only_spins)
{
	static const struct phase quick[] = {{10000, 30 * US, APART}, {0}};

	run(quick, POLL);
	assert_waits(1, 10000, 29, 31, 0, false);
	/* Each 3 us the processor is there for others. */
	for (unsigned i = 1; i < 10000; i++) {
		ck_assert_uint_ge(waits[i].yields, 9);
		ck_assert_uint_le(waits[i].yields, 11);
	}
}
END_TEST

/*
 * Until then its port is masked, so that others do not interrupt the kernel.
 */
START_TEST(an_event_is_acknowledged_before_the_next_sleep)
{
	static const struct phase phases[] = {{3, 5000 * US, APART},
	    {1000, 30 * US, APART}, {1, 5000 * US, APART}, {0}};

	run(phases, POLL);
	for (unsigned i = 3; i < 1003; i++)
		ck_assert_uint_eq(waits[i].acks, 0);
	assert_waits(3, 1003, 29, 31, 0, false);
	ck_assert_uint_eq(waits[1003].acks, 1);
	ck_assert_uint_eq(waits[1003].sleeps, 1);
}
END_TEST

/* Of what has failed from the first wait on: after 512, and twice as many. */
static bool
is_spin_probe(unsigned i)
{
	return i == 513 || i % 1024 == 1;
}

/*
 * Four times each: to spin, and to nap.  Then it naps after each 64 events, and
 * spins after 512, and then after each 1024.
 */
START_TEST(what_keeps_failing_is_only_probed)
{
	static const struct phase slow[] = {{4999, 5000 * US, APART}, {0}};

	run(slow, POLL);
	assert_waits(1, 4, 320, 321, 0, true);
	assert_waits(5, 9, 0, 1, 3, true);
	for (unsigned i = 5; i < 9; i++) {
		ck_assert_uint_eq(waits[i].nap[0], WAKEUP / 2);
		ck_assert_uint_eq(waits[i].nap[1], WAKEUP);
		ck_assert_uint_eq(waits[i].nap[2], 2 * WAKEUP);
	}
	assert_waits(9, 65, 0, 1, 0, true);
	for (unsigned i = 65; i < 4900; i += 64) {
		bool spins = is_spin_probe(i);

		/* What is left of it after a nap; and then naps again. */
		assert_waits(i, i + 1, spins ? 20 : 0, spins ? 21 : 1,
		    spins ? 1 : 3, true);
		assert_waits(i + 1, i + 5, 0, 1, spins ? 3 : 0, true);
		assert_waits(i + 5, i + 64, 0, 1, 0, true);
	}
}
END_TEST

/*
 * The guest has its turn while we spin, and is not slow: we were in its way.
 */
START_TEST(on_the_guests_processor_it_naps)
{
	static const struct phase shared[] = {{3000, 25 * US, SHARED}, {0}};

	run(shared, POLL);
	assert_waits(1, 5, 200, 201, 0, false);
	for (unsigned i = 5; i < 3000; i++) {
		bool spins = is_spin_probe(i);

		assert_waits(
		    i, i + 1, spins ? 200 : 0, spins ? 201 : 1, !spins, false);
		if (!spins)
			ck_assert_uint_eq(waits[i].nap[0], WAKEUP / 2);
	}
}
END_TEST

/*
 * Where its vCPU can yield that takes no timer, and none is tried for.
 */
START_TEST(on_the_guests_processor_it_yields)
{
	static const struct phase shared[] = {{3000, 25 * US, SHARED}, {0}};
	unsigned yields = 0;

	can_yield = true;
	run(shared, POLL);
	assert_waits(1, 5, 200, 201, 0, false);
	for (unsigned i = 5; i < 3000; i++) {
		bool spins = is_spin_probe(i);

		assert_waits(
		    i, i + 1, spins ? 200 : 0, spins ? 201 : 1, 0, false);
		ck_assert_uint_eq(waits[i].vcpu_yields, !spins);
		yields += spins ? 0 : waits[i].yields;
	}
	/* Each 320 us other processes of ours have a turn. */
	ck_assert_uint_ge(yields, 2995 * 25 / 340);
	ck_assert_uint_le(yields, 2995 * 30 / 320);
}
END_TEST

/*
 * To yield three times in vain is to fail; and to nap comes next: for a guest that
 * is slow, and where Xen does not know of it and runs the guest when its turn comes.
 */
START_TEST(what_yielding_does_not_help_is_napped_for)
{
	static const struct phase slow[] = {{3000, 60 * US, APART}, {0}};
	static const struct phase shared[] = {{3000, 25 * US, SHARED}, {0}};
	unsigned yields = 0;

	can_yield = true;
	trapped = _i == 0;
	if (_i == 0) /* and spinning fails for want of time */
		run(slow, 40 * US);
	else
		run(shared, POLL);
	assert_waits(5, 9, 0, 2, 0, true);
	for (unsigned i = 5; i < 9; i++)
		ck_assert_uint_eq(waits[i].vcpu_yields + waits[i].yields, 3);
	for (unsigned i = 9; i < 3000; i++)
		yields += waits[i].vcpu_yields;
	assert_waits(9, 513, 0, 1, _i == 0 ? 2 : 1, false);
	/* Again only after each time that it has spun. */
	ck_assert_uint_le(yields, 3 * 4 * 3);
}
END_TEST

/*
 * And so is what would be yielded to somebody else for as long as he likes: from a
 * nap, or a sleep, we wake up.
 */
START_TEST(what_yielding_makes_late_is_napped_for)
{
	static const struct phase slow[] = {{3000, 60 * US, APART}, {0}};

	can_yield = true;
	others = POLL - (2 - _i) * US;
	run(slow, 40 * US);
	for (unsigned i = 5; i < 9; i++)
		ck_assert_uint_eq(waits[i].vcpu_yields, 1);
	if (_i == 0)
		for (unsigned i = 9; i < 900; i++)
			ck_assert(waits[i].vcpu_yields > 0 || is_spin_probe(i));
	else
		assert_waits(9, 513, 0, 1, 2, false);
}
END_TEST

START_TEST(it_spins_again_when_that_pays_again)
{
	static const struct phase change[] = {{900, 25 * US, SHARED},
	    {3000, 25 * US, APART}, {600, 25 * US, SHARED}, {0}};

	run(change, POLL);
	assert_waits(900, 1025, 0, 1, 1, false);
	assert_waits(1025, 3900, 24, 26, 0, false);
	/* Now the guest seems slower, and runs in a nap for the sake of that. */
	assert_waits(3900, 3903, 200, 201, 0, false);
	assert_waits(3903, 3904, 0, 1, 1, false);
	assert_waits(3904, 3905, 200, 201, 0, false);
	assert_waits(3905, 4097, 0, 1, 1, false);
	assert_waits(4097, 4098, 200, 201, 0, false);
	assert_waits(4098, 4500, 0, 1, 1, false);
}
END_TEST

/*
 * That of the interrupt's second access comes sooner than that of its first, for which
 * it still is worth to spin.
 */
START_TEST(what_is_not_late_may_take_longer_than_mostly)
{
	static const struct phase change[] = {
	    {300, 25 * US, SHARED}, {1500, 4 * US, APART}, {0}};
	unsigned spun = 0;

	can_yield = true;
	others = US;
	uneven = 6 * US;
	run(change, POLL);
	for (unsigned i = 1100; i < 1800; i++)
		spun += waits[i].vcpu_yields == 0 && waits[i].sleeps == 0;
	ck_assert_uint_eq(spun, 700);
}
END_TEST

/*
 * Where the loop does not see that the guest had its turn, it has no reason to spin
 * again when that takes longer than to nap.
 */
START_TEST(a_probe_that_takes_longer_fails)
{
	static const struct phase shared[] = {
	    {300, 25 * US, SHARED}, {2700, 25 * US, UNSEEN}, {0}};

	run(shared, POLL);
	for (unsigned i = 300; i < 3000; i++)
		ck_assert(waits[i].naps == 1 || is_spin_probe(i));
}
END_TEST

START_TEST(the_processor_may_be_lost_now_and_then)
{
	static const struct phase change[] = {{100, 25 * US, APART},
	    {2, 25 * US, SHARED}, {1, 25 * US, APART}, {2, 25 * US, SHARED},
	    {1000, 25 * US, APART}, {0}};

	run(change, POLL);
	assert_waits(105, 1105, 24, 26, 0, false);
}
END_TEST

/*
 * What was lost in a row is soon forgotten.
 */
START_TEST(an_unlucky_streak_costs_little)
{
	static const struct phase change[] = {{100, 25 * US, APART},
	    {5, 25 * US, SHARED}, {1000, 25 * US, APART}, {0}};

	run(change, POLL);
	assert_waits(105, 513, 0, 1, 1, false);
	assert_waits(513, 1105, 24, 26, 0, false);
}
END_TEST

START_TEST(on_a_noisy_machine_it_spins)
{
	static const struct phase quick[] = {{5000, 25 * US, APART}, {0}};

	ticks = 10;
	tick = WAKEUP;
	run(quick, POLL);
	for (unsigned i = 1; i < 5000; i++)
		assert_waits(i, i + 1, i % 10 == 0 ? 10 : 24, 26, 0, false);
}
END_TEST

/*
 * The timer interrupts each wait, and the event comes later: nothing was lost.
 */
START_TEST(the_processor_may_be_lost_in_the_middle)
{
	static const struct phase quick[] = {{5000, 60 * US, APART}, {0}};

	ticks = 1;
	tick = WAKEUP;
	run(quick, POLL);
	assert_waits(1, 5000, 39, 41, 0, false);
}
END_TEST

/*
 * Nor if that was just before we let the guest run.
 */
START_TEST(what_comes_in_a_yield_was_not_lost)
{
	static const struct phase quick[] = {{5000, 25 * US, APART}, {0}};

	on_yield = true;
	tick_at = 10 * US + _i * LOOK;
	ticks = 1;
	tick = WAKEUP;
	run(quick, POLL);
	assert_waits(2, 5000, 10, 14, 0, false);
}
END_TEST

/*
 * Where naps take so long a doorbell would have come sooner.
 */
START_TEST(what_takes_all_naps_is_slept_for)
{
	static const struct phase shared[] = {{500, 120 * US, SHARED}, {0}};
	unsigned slept = 0;

	rounding = WAKEUP;
	run(shared, POLL);
	assert_waits(1, 4, 200, 201, 0, false);
	assert_waits(5, 9, 0, 1, 3, false);
	assert_waits(9, 65, 0, 1, 0, true);
	assert_waits(65, 66, 0, 1, 3, false);
	for (unsigned i = 9; i < 500; i++)
		slept += waits[i].sleeps;
	ck_assert_uint_ge(slept, 450);
}
END_TEST

/*
 * Of what comes late it naps the greater part, and not beyond it.
 */
START_TEST(what_comes_late_is_napped_for_first)
{
	static const struct phase late[] = {
	    {100, 200 * US, APART}, {100, 120 * US, APART}, {0}};

	run(late, POLL);
	assert_waits(1, 2, 199, 201, 0, false);
	assert_waits(50, 100, 19, 25, 1, false);
	assert_waits(101, 102, 0, 1, 1, false);
	assert_waits(120, 199, 1, 45, 1, false);
	for (unsigned i = 120; i < 199; i++)
		ck_assert_uint_lt(waits[i].nap[0] + WAKEUP, 120 * US);
}
END_TEST

/*
 * Wake-ups take longer than they did at the start: the naps get shorter.
 */
START_TEST(it_does_not_nap_on_and_on)
{
	static const struct phase late[] = {{1000, 100 * US, APART}, {0}};
	unsigned spun = 0;

	wakeup = 3 * WAKEUP;
	run(late, POLL);
	for (unsigned i = 100; i < 1000; i++)
		spun += waits[i].spun > 10 * LOOK;
	ck_assert_uint_ge(spun, 450);
}
END_TEST

/*
 * A guest that runs in such naps does not prove that spinning pays.
 */
START_TEST(on_the_guests_processor_it_naps_for_what_is_late_too)
{
	static const struct phase late[] = {{2000, 150 * US, SHARED}, {0}};
	unsigned spun = 0;

	run(late, POLL);
	for (unsigned i = 1; i < 2000; i++)
		spun += waits[i].spun > 10 * US;
	ck_assert_uint_ge(spun, 4);
	ck_assert_uint_le(spun, 16);
}
END_TEST

START_TEST(it_polls_no_longer_than_it_was_told)
{
	static const struct phase slow[] = {{9, 5000 * US, APART}, {0}};

	run(slow, 70 * US);
	assert_waits(1, 5, 70, 71, 0, true);
}
END_TEST

/*
 * But while the driver adds more it is given the time of two wake-ups.
 */
START_TEST(it_does_not_poll_if_it_was_told_so)
{
	static const struct phase quick[] = {{1000, 30 * US, APART}, {0}};
	static const struct phase slow[] = {{1000, 50 * US, APART}, {0}};

	expected = _i == 0 ? DEVICE_AVAIL : DEVICE_MORE;
	run(_i == 2 ? slow : quick, 0);
	if (_i == 0)
		assert_waits(1, 1000, 0, 1, 0, true);
	else if (_i == 1)
		assert_waits(1, 1000, 29, 31, 0, false);
	else
		assert_waits(1, 1000, 40, 41, 0, true);
}
END_TEST

START_TEST(for_the_disk_it_sleeps_at_once)
{
	static const struct phase quick[] = {{1000, 30 * US, APART}, {0}};

	expected = DEVICE_COMPLETION;
	run(quick, POLL);
	assert_waits(2, 1000, 0, 1, 0, true);
}
END_TEST

/*
 * Each page that the guest gives up makes all its disks wait for the slowest of
 * them, unless they wait already.
 */
START_TEST(few_pages_in_a_backoff_make_it_longer)
{
	static const struct phase change[] = {
	    {100, 100 * US, APART}, {40, 25000 * US, APART}, {0}};
	static const unsigned ms[] = {10, 20, 40, 80, 160, 160};
	const uint64_t *next = backoffs;

	ballooning = true;
	run(change, POLL);
	while (*next <= 5400 * US)
		next++;
	ck_assert_ptr_ne(next, backoffs);
	ck_assert(next + COUNT(ms) <= backoffs + n_backoffs);
	for (unsigned i = 0; i < COUNT(ms); i++, next++) {
		ck_assert_uint_ge(*next, ms[i] * 1000 * US);
		ck_assert_uint_le(*next, (ms[i] + 5) * 1000 * US);
	}
}
END_TEST

START_TEST(a_guest_that_balloons_has_its_requests_served_every_5_ms)
{
	static const struct phase quick[] = {{900, 100 * US, APART}, {0}};

	ballooning = true;
	run(quick, POLL);
	ck_assert_uint_ge(n_backoffs, 15);
	for (unsigned i = 0; i < n_backoffs; i++)
		ck_assert_uint_le(backoffs[i], 5200 * US);
}
END_TEST

START_TEST(a_page_now_and_then_costs_requests_5_ms)
{
	static const struct phase change[] = {
	    {20, 25000 * US, APART}, {5, 1200000 * US, APART}, {0}};

	ballooning = true;
	run(change, POLL);
	ck_assert_uint_ge(n_backoffs, 9);
	for (unsigned i = n_backoffs - 4; i < n_backoffs; i++)
		ck_assert_uint_le(backoffs[i], 5200 * US);
}
END_TEST

static Suite *
loop_suite(void)
{
	Suite *s = suite_create("loop");
	TCase *tc = cases_add(s, "loop", set_up, NULL);

	tcase_add_loop_test(tc, the_polling_time_is_that_of_16_wakeups, 0, 3);
	tcase_add_test(tc, the_fastest_wakeup_counts);
	tcase_add_test(tc, where_the_guest_is_quick_it_only_spins);
	tcase_add_test(tc, an_event_is_acknowledged_before_the_next_sleep);
	tcase_add_test(tc, what_keeps_failing_is_only_probed);
	tcase_add_test(tc, on_the_guests_processor_it_naps);
	tcase_add_test(tc, on_the_guests_processor_it_yields);
	tcase_add_loop_test(
	    tc, what_yielding_does_not_help_is_napped_for, 0, 2);
	tcase_add_loop_test(tc, what_yielding_makes_late_is_napped_for, 0, 3);
	tcase_add_test(tc, it_spins_again_when_that_pays_again);
	tcase_add_test(tc, a_probe_that_takes_longer_fails);
	tcase_add_test(tc, what_is_not_late_may_take_longer_than_mostly);
	tcase_add_test(tc, the_processor_may_be_lost_now_and_then);
	tcase_add_test(tc, an_unlucky_streak_costs_little);
	tcase_add_test(tc, on_a_noisy_machine_it_spins);
	tcase_add_test(tc, the_processor_may_be_lost_in_the_middle);
	tcase_add_loop_test(tc, what_comes_in_a_yield_was_not_lost, 0, 10);
	tcase_add_test(tc, what_takes_all_naps_is_slept_for);
	tcase_add_test(tc, what_comes_late_is_napped_for_first);
	tcase_add_test(tc, it_does_not_nap_on_and_on);
	tcase_add_test(
	    tc, on_the_guests_processor_it_naps_for_what_is_late_too);
	tcase_add_test(tc, it_polls_no_longer_than_it_was_told);
	tcase_add_loop_test(tc, it_does_not_poll_if_it_was_told_so, 0, 3);
	tcase_add_test(tc, for_the_disk_it_sleeps_at_once);
	tcase_add_test(tc, few_pages_in_a_backoff_make_it_longer);
	tcase_add_test(
	    tc, a_guest_that_balloons_has_its_requests_served_every_5_ms);
	tcase_add_test(tc, a_page_now_and_then_costs_requests_5_ms);
	return s;
}

int
main(void)
{
	return cases_run(loop_suite());
}
