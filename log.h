/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log: what this program and Xen's libraries have to say, on stderr.
 */
#ifndef LOG_H
#define LOG_H

#include <xentoollog.h>

struct log {
	xentoollog_logger logger; /* for xtl_log(), and for Xen's libraries */

	/* The rest is log.c's. */
	xentoollog_level least;
	unsigned dropped; /* messages since the last one that was written */
};

/*
 * Write messages of level 'least' and above to stderr from now on, each a line
 * of its own in which control characters are escaped.  Nobody waits for whoever
 * reads it: while stderr takes no more, messages are dropped, and the next one
 * that is written is preceded by their number.
 */
void log_init(struct log *log, xentoollog_level least);

#endif
