/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loop: what is served when, and how the next event is waited for.  Knows
 * nothing of Xen's interfaces or of virtio.
 */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct xentoollog_logger;
struct blk;
struct device;
struct guest;
struct ioreq_server;

/* The most microseconds that polling may be set to. */
#define POLL_US_MAX 10000

/* What the loop works on, which stays the caller's, and its settings. */
struct loop_config {
	struct xentoollog_logger *log;
	struct guest *guest;
	struct ioreq_server *io;
	struct blk *blk;
	struct device *dev;
	int signals;	    /* signalfd */
	bool terminating;   /* a signal has asked for our end already */
	uint64_t poll_ns;   /* to look for the next event before sleeping */
};

/*
 * For how many nanoseconds polling is always worth it on this machine, which is
 * measured; to be called before sandbox_enter(), since it makes timers exact.
 */
uint64_t loop_calibrate_poll(void);

/*
 * Do what the signals that have come ask for: report (SIGUSR2), look at the
 * disk's size (SIGUSR1).  True: one of them, any other, asks for our end; those
 * after it are left.  Never waits.
 */
bool loop_signals(const struct loop_config *config);

/*
 * Serve the guest until it is gone or a signal asks for our end.  Returns the
 * exit status: 0, or 1 if Xen's event channels fail, which has been logged.
 */
int loop_run(const struct loop_config *config);

#endif
