/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop: the order of accesses and requests, and waiting.  Knows
 * nothing of Xen's interfaces or of virtio.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fds.h"

/* Maximum of the polling time, in microseconds. */
#define POLL_US_MAX 10000

/* What the loop works on, which stays the caller's, and its settings. */
struct loop_config {
	struct xentoollog_logger *log;
	struct guest *guest;
	struct ioreq_server *io;
	struct blk *blk;
	struct device *dev;
	int fd[FD_COUNT];
	bool terminating;   /* a signal has asked for our end already */
	bool can_yield;	    /* ioreq_yield() is possible */
	uint64_t wakeup_ns; /* that a wake-up takes */
	uint64_t poll_ns;   /* busy polling before sleeping */
};

/*
 * Measure what a wake-up takes on this machine, choose the polling time by that,
 * and see whether the vCPU can yield.  To be called before sandbox_enter(), since
 * it reduces the timer slack.
 */
void loop_calibrate(struct loop_config *config);

/*
 * Do what the signals that have come ask for: report (SIGUSR2), look at the
 * disk's size (SIGUSR1).  True: one of them, any other, asks for our end; those
 * after it are left.  Never waits.
 */
bool loop_signals(const struct loop_config *config);

/*
 * Serve the guest until the domain is gone or a signal terminates us.  Returns
 * the exit status: 0, or 1 if Xen's event channels fail, which was logged.
 */
int loop_run(const struct loop_config *config);
