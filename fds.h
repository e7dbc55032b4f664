/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors: those that loop.c polls, and all that the sandbox allows. */
#pragma once

enum {
	FD_EVENTS,  /* event channels, ioreq_fd() */
	FD_URING,   /* io_uring, engine_fd() */
	FD_SIGNALS, /* signalfd */
	FD_POLLED,  /* number of those that are polled; the others: */
	FD_DISK = FD_POLLED,
	FD_SYNC,   /* the disk, for fdatasync() */
	FD_GRANTS, /* gntdev; -1: without --grants */
	FD_COUNT,
};
