/* SPDX-License-Identifier: BSD-2-Clause */
/* The log: messages of this program and of Xen's libraries, on stderr. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>

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
 * is -1.  log_error() is for failures: its level is XTL_ERROR, and it returns
 * false.
 */
void log_msg(xentoollog_logger *log, xentoollog_level level, int error,
    const char *format, ...) __attribute__((format(printf, 4, 5)));
bool log_error(xentoollog_logger *log, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
