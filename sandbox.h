/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Least privilege: what the loop does not need is given up before anything of
 * the guest's is read.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>

struct passwd;
struct xentoollog_logger;

/* What is kept. */
struct sandbox {
	const struct passwd *user; /* become this user; NULL: stay who we are */
	int events;		   /* descriptor of the event channels */
	int uring;		   /* descriptor of the ring */
	int disk;		   /* descriptor of the disk */
	int sync;		   /* ... for fdatasync() */
	int signals;		   /* descriptor of the signals */
};

/*
 * Give up the file system, user and groups, capabilities, new files, cores, and
 * all system calls but those of the loop; to make any other ends the process.
 * What can be done to Xen by the system calls that stay is restricted where its
 * interfaces are opened (ioreq.h), what the kernel does for us through io_uring
 * likewise (engine.c).
 *
 * False if the host refuses a part of it, which has been logged to 'log'.
 * Either way there is no way back.
 */
bool sandbox_enter(
    struct xentoollog_logger *log, const struct sandbox *sandbox);

#endif
