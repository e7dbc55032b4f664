/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A log for unit programs: counts the lines and keeps the last one.
 */
#ifndef FAKE_LOG_H
#define FAKE_LOG_H

#include <xentoollog.h>

struct fake_log {
	xentoollog_logger logger; /* first: what the program sees */
	unsigned lines;
	char last[512]; /* with strerror() of the errno it was given */
};

void fake_log_init(struct fake_log *log);

#endif
