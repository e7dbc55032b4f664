/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop.  Owns the order of accesses and requests, busy polling,
 * waiting, and the handling of signals.
 */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "guest.h"
#include "ioreq.h"
#include "log.h"
#include "loop.h"

/* An idle loop asks ioreq_domain_exists() so often, which says why. */
#define IDLE_TIMEOUT_MS 1000

/*
 * No requests are started for so long after an IOREQ_TYPE_INVALIDATE.  A
 * ballooning guest sends one for nearly every page; were the rings mapped again
 * in between, each would have to drain requests and unmap again.  Where fewer
 * than so many have come meanwhile, since each waits for the slowest of the
 * guest's disks, the next time is twice as long, up to the maximum; it is the
 * shortest again when there was none for a second.  And after that memory that
 * could not be mapped is tried again.
 */
#define INVALIDATE_BACKOFF_MS	  5
#define INVALIDATE_BACKOFF_MAX_MS 160
#define INVALIDATE_BATCH	  16

/*
 * How to wait for the guest.  To spin answers soonest, unless the guest needs
 * this processor; to yield lets it run, where Xen can be asked to; to nap lets
 * it run, too, at the price of a timer; and to sleep, at that of a doorbell.
 * What fails so often in a row makes way for the next, and is probed again
 * after so many events; to spin after twice as many each time, so often at most.
 */
enum mode { SPIN, YIELD_VCPU, NAP, SLEEP };
#define FAIL_MAX   4
#define NAP_PROBE  64
#define SPIN_PROBE 256
#define BACKOFF	   2
#define TRIES	   3 /* naps are of half a wake-up, one, and two */

/*
 * We spin for so long, or for so many wake-ups if those are slow, and yield
 * after so long.  What mostly takes more than so many is a nap but for two.
 */
#define POLL_US_DEFAULT	   50
#define POLL_WAKEUP_FACTOR 16
#define YIELD_US	   3
#define NAP_FIRST_FACTOR   4

/* Even if we shall not poll, while the driver is adding requests. */
#define HOLD_FACTOR 2

/* Signals are checked at least this often while there is work. */
#define EVENT_CHECK_MAX (10 * MILLISECOND)

/* In nanoseconds, as all times that we keep. */
#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)

/* For one kind of event. */
struct wait {
	enum mode mode;
	unsigned failures; /* in a row */
	unsigned events;
	unsigned backoff; /* of probing to spin */
	uint64_t gap;	  /* that mostly passes until it comes */
};

struct loop {
	struct loop_config on;
	bool event; /* an event on ioreq_fd() is not acknowledged yet */
	enum device_event next;
	struct wait wait[4]; /* by expected event */
	unsigned tries;	     /* to wait, since the last work */
	bool napped;	     /* just now, instead of spinning */
	bool failed;	     /* we slept, or lost the processor until now */
	uint64_t now;
	uint64_t last_work;
	uint64_t last_yield;	   /* of sched_yield() */
	uint64_t last_event_check; /* of poll() */
	uint64_t backoff; /* after an IOREQ_TYPE_INVALIDATE, and its end */
	uint64_t backoff_end;
	unsigned invalidates; /* since that */
};

static uint64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static void
nap(uint64_t ns)
{
	nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* The fastest of some samples, since other processes may disturb some. */
void
loop_calibrate(struct loop_config *config)
{
	uint64_t fastest = MILLISECOND, begin, time;

	prctl(PR_SET_TIMERSLACK, 1); /* or Linux adds 50 us */
	for (int sample = 0; sample < 16; sample++) {
		begin = now();
		nap(1);
		time = now() - begin;
		fastest = MIN(fastest, time);
	}
	config->can_yield = ioreq_yield();
	config->wakeup_ns = fastest;
	config->poll_ns = MIN(POLL_US_MAX * MICROSECOND,
	    MAX(POLL_US_DEFAULT * MICROSECOND, POLL_WAKEUP_FACTOR * fastest));
}

/* Handle one access.  False: retry it when nothing is in flight. */
static bool
handle_access(struct loop *l, struct access *a)
{
	if (a->kind != ACCESS_INVALIDATE)
		return device_access(l->on.dev, a);
	if (guest_mapped(l->on.guest) == 0) { /* no request in flight has any */
		l->invalidates++;
		return true;
	}
	if (!device_idle(l->on.dev))
		return false;
	guest_unmap_all(l->on.guest);
	/* The backoff is not extended, so that requests are not starved. */
	if (l->now < l->backoff_end)
		return true;
	if (l->now - l->backoff_end > 1000 * MILLISECOND)
		l->backoff = 0;
	else if (l->invalidates < INVALIDATE_BATCH)
		l->backoff *= 2;
	l->backoff = MIN(INVALIDATE_BACKOFF_MAX_MS * MILLISECOND,
	    MAX(INVALIDATE_BACKOFF_MS * MILLISECOND, l->backoff));
	l->backoff_end = l->now + l->backoff;
	l->invalidates = 0;
	return true;
}

/* There was something to do: judge how we waited for it, and wait anew. */
static void
end_wait(struct loop *l)
{
	struct wait *w = &l->wait[l->next];
	uint64_t gap;
	enum mode probe;

	l->now = now();
	gap = MIN(l->now - l->last_work, l->on.poll_ns);
	/* A probe, or last chance, must not be late where it mostly is not. */
	l->failed |= w->failures == FAIL_MAX - 1 &&
		     gap > MAX(2 * w->gap, NAP_FIRST_FACTOR * l->on.wakeup_ns);
	if (l->napped) /* it may have come early in the nap */
		gap = MIN(gap, w->gap - l->on.wakeup_ns);
	w->gap = gap < w->gap ? gap : w->gap + (gap - w->gap) / 8;
	l->failed |= w->mode == NAP && l->tries == TRIES;
	if (!l->failed && !l->napped) {
		w->failures = 0;
		w->backoff -= w->mode == SPIN && w->backoff > 0;
	} else if (l->failed && l->on.poll_ns > 0 && w->mode < SLEEP &&
		   ++w->failures == FAIL_MAX) {
		w->failures = 0;
		w->backoff += w->mode == SPIN && w->backoff < BACKOFF;
		w->mode += w->mode == SPIN && !l->on.can_yield ? 2 : 1;
	}
	probe = ++w->events % (SPIN_PROBE << w->backoff) == 0 ? SPIN
		: w->events % NAP_PROBE == 0		      ? NAP
							      : SLEEP;
	if (probe < w->mode) {
		w->mode = probe;
		w->failures = FAIL_MAX - 1;
	}
	l->last_work = l->now;
	l->failed = l->napped = false;
	l->tries = 0;
	l->next = device_expected_event(l->on.dev);
}

/* There is nothing to do: wait for a moment.  False: not without sleeping. */
static bool
busy_poll(struct loop *l)
{
	const struct wait *w = &l->wait[l->next];
	uint64_t last = l->now, wakeup = l->on.wakeup_ns, limit;
	uint64_t long_time = POLL_WAKEUP_FACTOR * wakeup;

	limit = MAX(
	    l->on.poll_ns, l->next == DEVICE_MORE ? HOLD_FACTOR * wakeup : 0);
	l->now = now();
	if (l->next == DEVICE_COMPLETION) {
		/* The disk may need our processor. */
	} else if (w->mode == SPIN && l->now - l->last_work < limit) {
		/* If it has come now, the guest ran for want of ours. */
		l->failed = l->now - last > wakeup / 2;
		if (l->failed)
			return true;
		l->napped =
		    l->tries++ == 0 && w->gap > NAP_FIRST_FACTOR * wakeup;
		if (l->napped) {
			nap(w->gap - 2 * wakeup);
			l->now = now();
		} else if (l->now - l->last_yield >= YIELD_US * MICROSECOND) {
			l->last_yield = l->now;
			sched_yield();
			l->now = now();
		}
		return true;
	} else if (w->mode == YIELD_VCPU && l->tries++ < TRIES) {
		last = l->now;
		if (last - l->last_yield > long_time) {
			l->last_yield = last;
			sched_yield(); /* to other processes here */
			return true;
		}
		ioreq_yield();
		l->now = now();
		/* Nobody wakes us meanwhile, as a timer does from a nap. */
		l->failed |= l->now - last > long_time;
		return true;
	} else if (w->mode == NAP && l->tries < TRIES) {
		nap(wakeup / 2 << l->tries++);
		return true;
	}
	l->failed = true;
	return false;
}

bool
loop_signals(const struct loop_config *config)
{
	struct pollfd fd = {.fd = config->fd[FD_SIGNALS], .events = POLLIN};
	struct signalfd_siginfo signal;

	while (poll(&fd, 1, 0) == 1) {
		if (read(fd.fd, &signal, sizeof(signal)) < 0)
			continue;
		if (signal.ssi_signo == SIGUSR1)
			device_resize(config->dev);
		else if (signal.ssi_signo == SIGUSR2)
			device_log_stats(config->dev);
		else
			return true;
	}
	return false;
}

/*
 * Wait for events for at most 'timeout' milliseconds and handle those that are
 * not accesses or completions.  Returns the exit status, or -1 to continue.
 */
static int
wait_events(struct loop *l, int timeout)
{
	struct pollfd fd[FD_POLLED];

	/*
	 * The slots were scanned since the event came.  Until it is
	 * acknowledged its port stays masked and causes no further wake-ups.
	 */
	if (timeout > 0 && l->event && !ioreq_ack_event(l->on.io))
		return 1;
	for (int i = 0; i < FD_POLLED; i++)
		fd[i] = (struct pollfd){.fd = l->on.fd[i], .events = POLLIN};
	if (l->on.terminating)
		fd[FD_SIGNALS].fd = -1;
	/* An idle guest's rings are left alone: it may be booting anew. */
	while (poll(fd, FD_POLLED, timeout) == 0 && timeout > 0) {
		if (!ioreq_domain_exists(l->on.io)) {
			log_msg(l->on.log, XTL_NOTICE, -1, "the guest is gone");
			return 0;
		}
		if (timeout != IDLE_TIMEOUT_MS)
			break;
		/* The host has use for its room, and its end is sooner. */
		if (device_idle(l->on.dev))
			guest_unmap_all(l->on.guest);
	}
	l->event = fd[FD_EVENTS].revents != 0;
	if (fd[FD_SIGNALS].revents != 0)
		l->on.terminating = loop_signals(&l->on);
	l->now = l->last_event_check = now();
	return -1;
}

/*
 * Accesses come first, since each blocks a vCPU; while one of them waits for
 * requests in flight, or we are terminating, no new requests are started.
 */
int
loop_run(const struct loop_config *config)
{
	struct loop l = {.on = *config};
	int status = -1;

	while (status < 0) {
		struct access a;
		bool progress = false, drain = false, backoff, paused, polling;

		while (ioreq_next(l.on.io, &a)) {
			if (handle_access(&l, &a)) {
				ioreq_complete(l.on.io, &a);
				progress = true;
			} else {
				drain = true;
			}
		}
		backoff = l.now < l.backoff_end;
		paused = drain || backoff || l.on.terminating;
		progress |= device_process_queue(l.on.dev, paused);
		if (l.on.terminating && device_idle(l.on.dev))
			return 0;
		if (drain && device_idle(l.on.dev))
			continue; /* drained: retry the access */

		if (progress)
			end_wait(&l);
		polling =
		    (progress || busy_poll(&l)) && !device_starved(l.on.dev);
		if (polling && l.now - l.last_event_check < EVENT_CHECK_MAX)
			continue;
		if (!polling && !paused)
			polling = device_enable_notify(l.on.dev);
		backoff |= device_starved(l.on.dev);
		status = wait_events(&l, polling   ? 0
					 : backoff ? INVALIDATE_BACKOFF_MS
						   : IDLE_TIMEOUT_MS);
	}
	return status;
}
