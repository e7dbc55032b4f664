/* SPDX-License-Identifier: BSD-2-Clause */
/* The log: messages of this program and of Xen's libraries, on stderr. */
#pragma once

#include <stddef.h>

#include <xentoollog.h>

struct log {
	xentoollog_logger logger; /* for log_msg(), and for Xen's libraries */

	/* The rest is log.c's. */
	xentoollog_level least;
	unsigned dropped; /* messages since the last one that was written */
};

/*
 * Write messages of level 'least' and above to stderr, one a line, with control
 * characters escaped.  Never blocks: while stderr takes no more, messages are
 * dropped, and the next one that is written is preceded by their number.
 */
void log_init(struct log *log, xentoollog_level least);

/*
 * Log a message of 'level', followed by the text of errno 'error' unless that
 * is -1.  NULL or false, so that a function can fail with log_error().
 */
#define log_msg(log, level, error, ...)                                        \
	({                                                                     \
		xtl_log(log, level, error, "vdisk", __VA_ARGS__);              \
		(void *)NULL;                                                  \
	})
#define log_error(log, error, ...) log_msg(log, XTL_ERROR, error, __VA_ARGS__)
