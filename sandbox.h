/* SPDX-License-Identifier: BSD-2-Clause */
/* Least privilege: dropped before any data of the guest's is read. */
#pragma once

#include <stdbool.h>

struct passwd;
struct xentoollog_logger;

/*
 * Drop the file system, capabilities, new descriptors, core dumps, unless
 * 'user' is NULL user and groups, and all system calls but those of the event
 * loop on fd[FD_COUNT]; any other kills the process.  Xen's interfaces are
 * restricted in ioreq.c, and the operations of io_uring in engine.c.  False if
 * a part fails, which has been logged to 'log'.  It is irrevocable either way.
 */
bool sandbox_enter(
    struct xentoollog_logger *log, const struct passwd *user, const int *fd);
