/* SPDX-License-Identifier: BSD-2-Clause */
/* Least privilege: dropped before any data of the guest's is read. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>

struct passwd;
struct xentoollog_logger;

/* What the sandbox leaves. */
struct sandbox {
	const struct passwd *user; /* setuid to it; NULL: do not */
	const int *fd;		   /* FD_COUNT descriptors */
};

/*
 * Drop the file system, user and groups, capabilities, new descriptors, core
 * dumps, and all system calls but those of the event loop; any other kills the
 * process.  Xen's interfaces are restricted where they are opened (ioreq.h),
 * and so are the operations of io_uring (engine.c).  False if a part fails,
 * which has been logged to 'log'.  It is irrevocable either way.
 */
bool sandbox_enter(
    struct xentoollog_logger *log, const struct sandbox *sandbox);

#endif
