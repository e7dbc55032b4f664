/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop.  Owns the order of accesses and requests, busy polling,
 * waiting, and the handling of signals.
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
#include "fds.h"
#include "guest.h"
#include "ioreq.h"
#include "log.h"
#include "loop.h"

/*
 * An idle loop checks this often whether the domain still exists: Xen does not
 * notify anybody when it is destroyed.
 */
#define IDLE_TIMEOUT_MS 1000

/*
 * No requests are started for so long after an IOREQ_TYPE_INVALIDATE.  A
 * ballooning guest sends one for nearly every page; were the rings mapped again
 * in between, each would have to drain requests and unmap again.  During the
 * backoff there is nothing to drain or unmap.  And after so long memory that
 * could not be mapped is tried again.
 */
#define INVALIDATE_BACKOFF_MS 5

/*
 * Busy polling before we sleep: the default.  Where wake-ups are slow it is
 * longer, this many of them; and after the time of each we yield the processor.
 */
#define POLL_US_DEFAULT	   50
#define POLL_WAKEUP_FACTOR 16

/*
 * After this many polls in a row that found nothing we stop polling, and after
 * this many requests probe again, as KVM's halt polling does.
 */
#define POLL_FAIL_MAX	    4
#define POLL_PROBE_INTERVAL 256

/* Signals are checked at least this often while there is work. */
#define EVENT_CHECK_MAX_MS 10

/* In nanoseconds, as all times that we keep. */
#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)

struct loop {
	struct loop_config on;
	bool event; /* an event on ioreq_fd() is not acknowledged yet */
	enum device_event next;
	unsigned poll_failures[3]; /* in a row, by expected event */
	uint64_t now;
	uint64_t last_work;
	uint64_t last_yield;	   /* of sched_yield() */
	uint64_t last_event_check; /* of poll() */
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
 * The fastest of some samples, since other processes may disturb some.
 */
uint64_t
loop_calibrate_poll(void)
{
	enum { SAMPLES = 4 };
	static const struct timespec moment = {.tv_nsec = 1};
	uint64_t fastest = POLL_US_MAX * MICROSECOND / SAMPLES, begin, time;

	prctl(PR_SET_TIMERSLACK, 1); /* or Linux adds 50 us */
	for (int sample = 0; sample < SAMPLES; sample++) {
		begin = now();
		for (int i = 0; i < POLL_WAKEUP_FACTOR / SAMPLES; i++)
			nanosleep(&moment, NULL);
		time = now() - begin;
		fastest = MIN(fastest, time);
	}
	return MAX(POLL_US_DEFAULT * MICROSECOND, SAMPLES * fastest);
}

/*
 * Handle one access.  False: retry it when nothing is in flight.
 */
static bool
handle_access(struct loop *l, struct access *a)
{
	if (a->kind != ACCESS_INVALIDATE)
		return device_access(l->on.dev, a);
	if (!device_idle(l->on.dev))
		return false;
	guest_unmap_all(l->on.guest);
	/* The backoff is not extended, so that requests are not starved. */
	if (l->now >= l->backoff_end)
		l->backoff_end = l->now + INVALIDATE_BACKOFF_MS * MILLISECOND;
	return true;
}

/*
 * Whether to poll instead of sleeping, after a round with 'progress' or
 * without.  A wake-up costs us, and the vCPU that is blocked, more than a short
 * poll, unless the event mostly comes later.  While we sleep, events seem to
 * come later than they do, by the cost of a wake-up: so we cannot tell that
 * polling would pay again, and probe from time to time.
 */
static bool
busy_poll(struct loop *l, bool progress)
{
	unsigned *failures = &l->poll_failures[l->next];
	uint64_t gap;

	/* The disk may need our processor. */
	if (!progress &&
	    (*failures >= POLL_FAIL_MAX || l->next == DEVICE_COMPLETION))
		return false;
	l->now = now();
	gap = l->now - l->last_work;
	if (progress) {
		*failures = gap < l->on.poll_ns
				? 0
				: (*failures + 1) % POLL_PROBE_INTERVAL;
		l->last_work = l->now;
		l->next = device_expected_event(l->on.dev);
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
	int n;

	/*
	 * The slots were scanned since the event came.  Until it is
	 * acknowledged its port stays masked and causes no further wake-ups.
	 */
	if (timeout > 0 && l->event && ioreq_ack_event(l->on.io) < 0)
		return 1;
	for (int i = 0; i < FD_POLLED; i++)
		fd[i] = (struct pollfd){.fd = l->on.fd[i], .events = POLLIN};
	if (l->on.terminating)
		fd[FD_SIGNALS].fd = -1;
	n = poll(fd, FD_POLLED, timeout);
	l->event = n > 0 && fd[FD_EVENTS].revents != 0;
	if (n == 0 && timeout > 0 && !ioreq_domain_exists(l->on.io)) {
		log_msg(l->on.log, XTL_NOTICE, -1, "the guest is gone");
		return 0;
	}
	if (n > 0 && fd[FD_SIGNALS].revents != 0)
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
		bool progress = false, draining = false, backoff, paused,
		     polling;

		while (ioreq_next(l.on.io, &a)) {
			if (handle_access(&l, &a)) {
				ioreq_complete(l.on.io, &a);
				progress = true;
			} else {
				draining = true;
			}
		}
		backoff = l.now < l.backoff_end;
		paused = draining || backoff || l.on.terminating;
		progress |= device_process_queue(l.on.dev, paused);
		if (l.on.terminating && device_idle(l.on.dev))
			return 0;
		if (draining && device_idle(l.on.dev))
			continue; /* drained: retry the access */

		polling = busy_poll(&l, progress) && !device_starved(l.on.dev);
		if (polling && l.now - l.last_event_check <
				   EVENT_CHECK_MAX_MS * MILLISECOND)
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
