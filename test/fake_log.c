/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A libxentoollog logger that records instead of printing.
 */
#include <stdio.h>
#include <string.h>

#include "fake_log.h"

static void __attribute__((format(printf, 5, 0)))
vmessage(xentoollog_logger *logger, xentoollog_level level, int errnoval,
    const char *context, const char *format, va_list al)
{
	struct fake_log *log = (struct fake_log *)logger;
	size_t len;

	(void)context;
	if (level < XTL_INFO)
		return;
	log->lines++;
	vsnprintf(log->last, sizeof(log->last), format, al);
	len = strlen(log->last);
	if (errnoval >= 0)
		snprintf(log->last + len, sizeof(log->last) - len, ": %s",
		    strerror(errnoval));
}

void
fake_log_init(struct fake_log *log)
{
	*log = (struct fake_log){.logger.vmessage = vmessage};
}
