/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log.  Owns how a message becomes a line on stderr.  Xen's own logger
 * would block while nobody reads it, and so would the guest's vCPUs.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define LINE PIPE_BUF /* bytes; writes to a pipe are atomic up to this */
#define TAIL 128      /* ... of which this many are kept for the error */

struct line {
	size_t len;
	char text[LINE];
};

/*
 * Append 'text', whose control characters could end the line, or do anything to
 * a terminal.  Those beyond ASCII are 0xc2 0x80 to 0xc2 0x9f in UTF-8.
 */
static void
append(struct line *line, const char *text, size_t size)
{
	char before = '\0';

	for (; *text != '\0' && line->len + sizeof("\\xff") < size; text++) {
		unsigned char c = *text;

		if (c < ' ' || c == 0x7f ||
		    ((c & 0xe0) == 0x80 && before == '\xc2'))
			line->len += sprintf(
			    &line->text[line->len], "\\x%02x", (unsigned)c);
		else
			line->text[line->len++] = c;
		before = c;
	}
}

static void __attribute__((format(printf, 5, 0)))
vmessage(xentoollog_logger *logger, xentoollog_level level, int error,
    const char *context, const char *format, va_list args)
{
	struct log *log = (struct log *)logger;
	struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
	struct line line = {.len = 0};
	char text[LINE];
	int kept = errno;

	if (level < log->least)
		return;
	if (log->dropped > 0)
		line.len = sprintf(line.text,
		    "vdisk: warning: messages dropped, since nobody read "
		    "them: %u\n",
		    log->dropped);
	snprintf(text, LINE, "%s: %s: ", context, xtl_level_to_string(level));
	append(&line, text, LINE);
	vsnprintf(text, LINE, format, args);
	append(&line, text, LINE - TAIL);
	if (error >= 0) {
		append(&line, ": ", LINE);
		append(&line, strerror(error), LINE);
	}
	/* All that Xen's libraries open is Xen's devices. */
	if (error == ENOENT && strcmp(context, "vdisk") != 0)
		append(&line, " (is this dom0?)", LINE);
	line.text[line.len++] = '\n';
	log->dropped++;
	if (poll(&fd, 1, 0) == 1 &&
	    write(fd.fd, line.text, line.len) == (ssize_t)line.len)
		log->dropped = 0;
	errno = kept;
}

void
log_init(struct log *log, xentoollog_level least)
{
	struct stat st;
	int fd = -1;

	*log = (struct log){.logger.vmessage = vmessage, .least = least};
	/*
	 * Between poll() and write() others may fill a pipe, and a terminal may
	 * take a part of a line only: open it again as non-blocking, since
	 * others share the description that we inherited.  A file's offset is
	 * in that, and a socket cannot be opened; but these take whole lines.
	 */
	if (fstat(STDERR_FILENO, &st) == 0 &&
	    (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
		fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0) {
		dup2(fd, STDERR_FILENO);
		close(fd);
	}
}
