/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loop.  Owns the order in which things are served, busy polling, waiting,
 * and what signals ask for.
 */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <xentoollog.h>

#include "blk.h"
#include "device.h"
#include "guest.h"
#include "ioreq.h"
#include "loop.h"

/* After so long without an event the guest is asked whether it still exists. */
#define IDLE_TIMEOUT_MS 1000

/*
 * For so long no requests are taken after guest memory was unmapped.  A guest
 * that gives up memory while it uses its disk says so for nearly every page, and
 * if each time the rings were mapped again first, that would take for ever.
 * Meanwhile there is nothing to wait for or to unmap.  And after so long memory
 * that could not be mapped is tried again.
 */
#define INVALIDATE_BACKOFF_MS 5

/*
 * To poll for so long is always worth it.  On slow machines it is worth it for
 * longer, for as long as to fall asleep and be woken would take so many times;
 * each time it would have taken that, whoever waits for our processor gets it.
 */
#define POLL_US_DEFAULT	   50
#define POLL_WAKEUP_FACTOR 16

/*
 * How often in a row polling may fail before we do without, and how often until
 * we try again.
 */
#define POLL_FAIL_MAX	    4
#define POLL_PROBE_INTERVAL 256

/* For so long work may keep us from signals. */
#define EVENT_CHECK_MAX_MS 10

/* In nanoseconds, as all times that we keep are. */
#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)

struct loop {
	struct loop_config on;
	bool event; /* there is one to be taken off ioreq_fd() */
	enum device_next next;
	unsigned poll_failures[3]; /* in a row, by what was polled for */
	uint64_t now;
	uint64_t last_work;
	uint64_t last_yield;	   /* of the processor to others */
	uint64_t last_event_check; /* by the kernel, for all descriptors */
	uint64_t backoff_end;
};

static uint64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

/*
 * By the quickest of some samples, since others may be at work just now.
 */
uint64_t
loop_calibrate_poll(void)
{
	enum { SAMPLES = 4 };
	static const struct timespec moment = {.tv_nsec = 1};
	uint64_t quickest = POLL_US_MAX * MICROSECOND / SAMPLES, begin, time;

	prctl(PR_SET_TIMERSLACK, 1); /* or Linux adds 50 us */
	for (int sample = 0; sample < SAMPLES; sample++) {
		begin = now();
		for (int i = 0; i < POLL_WAKEUP_FACTOR / SAMPLES; i++)
			nanosleep(&moment, NULL);
		time = now() - begin;
		quickest = MIN(quickest, time);
	}
	return MAX(POLL_US_DEFAULT * MICROSECOND, SAMPLES * quickest);
}

/*
 * Carry out one access.  False: it must wait until nothing is in flight.
 */
static bool
handle_access(struct loop *l, struct access *a)
{
	if (a->kind != ACCESS_INVALIDATE)
		return device_access(l->on.dev, a);
	if (!device_idle(l->on.dev))
		return false;
	guest_forget(l->on.guest);
	/* The pause is not prolonged: requests get their turn, too. */
	if (l->now >= l->backoff_end)
		l->backoff_end = l->now + INVALIDATE_BACKOFF_MS * MILLISECOND;
	return true;
}

/*
 * Whether to look for more work instead of sleeping, there having been some
 * ('worked') or not.  To be woken costs us, and a vCPU that waits, more than to
 * look for a while; but not for what mostly takes longer to come.  Once we
 * sleep, it seems to take longer than it does, by as much as that costs: so we
 * cannot tell that it would pay again, and try now and then.
 */
static bool
busy_poll(struct loop *l, bool worked)
{
	unsigned *failures = &l->poll_failures[l->next];
	uint64_t gap;

	/* A disk at work may need our processor. */
	if (!worked && (*failures >= POLL_FAIL_MAX || l->next == DEVICE_DISK))
		return false;
	l->now = now();
	gap = l->now - l->last_work;
	if (worked) {
		*failures = gap < l->on.poll_ns
				? 0
				: (*failures + 1) % POLL_PROBE_INTERVAL;
		l->last_work = l->now;
		l->next = device_next(l->on.dev);
	} else if (gap >= l->on.poll_ns) {
		return false;
	} else if (l->now - l->last_yield >=
		   l->on.poll_ns / POLL_WAKEUP_FACTOR) {
		sched_yield();
		l->last_yield = l->now;
	}
	return true;
}

bool
loop_signals(const struct loop_config *config)
{
	struct pollfd fd = {.fd = config->signals, .events = POLLIN};
	struct signalfd_siginfo signal;

	while (poll(&fd, 1, 0) == 1) {
		if (read(fd.fd, &signal, sizeof(signal)) < 0)
			continue;
		if (signal.ssi_signo == SIGUSR1)
			device_resize(config->dev);
		else if (signal.ssi_signo == SIGUSR2)
			device_report(config->dev);
		else
			return true;
	}
	return false;
}

/*
 * Wait for an event, at most 'timeout' milliseconds.  The exit status if it is
 * that we are to end, or -1.
 */
static int
wait_events(struct loop *l, int timeout)
{
	struct pollfd fd[] = {
	    {.fd = ioreq_fd(l->on.io), .events = POLLIN},
	    {.fd = blk_fd(l->on.blk), .events = POLLIN},
	    {.fd = l->on.terminating ? -1 : l->on.signals, .events = POLLIN},
	};
	int n;

	/*
	 * A vCPU that caused the event was looked for before this.  As long as
	 * it is not taken off, no other one interrupts us.
	 */
	if (timeout > 0 && l->event && ioreq_wake(l->on.io) < 0)
		return 1;
	n = poll(fd, 3, timeout);
	l->event = n > 0 && fd[0].revents != 0;
	if (n == 0 && timeout > 0 && !ioreq_alive(l->on.io)) {
		xtl_log(
		    l->on.log, XTL_NOTICE, -1, "vdisk", "the guest is gone");
		return 0;
	}
	if (n > 0 && fd[2].revents != 0)
		l->on.terminating = loop_signals(&l->on);
	l->now = l->last_event_check = now();
	return -1;
}

/*
 * Accesses come first, since a vCPU is blocked meanwhile; while one of them waits
 * for the requests in flight, or we are to end, no further requests are taken.
 */
int
loop_run(const struct loop_config *config)
{
	struct loop l = {.on = *config};
	int status = -1;

	while (status < 0) {
		struct access a;
		bool worked = false, draining = false, backoff, paused, polling;

		while (ioreq_next(l.on.io, &a)) {
			if (handle_access(&l, &a)) {
				ioreq_done(l.on.io, &a);
				worked = true;
			} else {
				draining = true;
			}
		}
		backoff = l.now < l.backoff_end;
		paused = draining || backoff || l.on.terminating;
		worked |= device_run(l.on.dev, paused);
		if (l.on.terminating && device_idle(l.on.dev))
			return 0;
		if (draining && device_idle(l.on.dev))
			continue; /* what it waited for is over */

		polling = busy_poll(&l, worked) && !device_lacking(l.on.dev);
		if (polling && l.now - l.last_event_check <
				   EVENT_CHECK_MAX_MS * MILLISECOND)
			continue;
		if (!polling && !paused)
			polling = device_await(l.on.dev);
		backoff |= device_lacking(l.on.dev);
		status = wait_events(&l, polling   ? 0
					 : backoff ? INVALIDATE_BACKOFF_MS
						   : IDLE_TIMEOUT_MS);
	}
	return status;
}
