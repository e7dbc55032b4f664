/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program as it is shipped, as a child process on the fake host: $VDISK
 * (./vdisk), with the libraries that stand before Xen's in $FAKE_XEN_LIBS
 * (build/test/lib).
 */
#ifndef CHILD_H
#define CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Where its device is. */
#define BASE	 0x2000000ULL
#define BASE_ARG "0x2000000"
#if defined(__aarch64__)
#define IRQ "33"
#else
#define IRQ "5"
#endif

#define CHILD_ARGS 12 /* that it may be given */

/*
 * The one that the test is about: its process, which a signal handler may ask
 * for; a pipe from its stdout; a file with what was written to its stderr.
 */
extern volatile pid_t child;
extern int child_out, child_err;

/*
 * A file of 'size' bytes without a name in 'directory', or with NULL in memory:
 * its descriptor and, in 'path', where any process finds it while that is open.
 */
int nameless_file(const char *directory, off_t size, char path[64]);

/*
 * fork(), for a process that is to become vdisk; or, with streams made for it,
 * the child, and then true in the new process.
 */
pid_t child_fork(void);
bool child_start(void);

/*
 * Become vdisk with 'args', which a NULL ends and which do not begin with a
 * name, and with 'preload' of $FAKE_XEN_LIBS, or NULL.
 */
_Noreturn void child_exec(const char *const *args, const char *preload);

/*
 * Fixture: kill the child, if there is one.
 */
void child_kill(void);

/*
 * The child's exit status, which is waited for; -1 if a signal killed it.
 */
int finish(void);

/*
 * Nanoseconds of processor time that it takes in so many milliseconds.
 */
uint64_t child_busy(unsigned ms);

/*
 * Everything on its stdout up to its end; the end of what is on its stderr now.
 */
const char *output(void);
const char *errors(void);

/*
 * A loop device on the file 'path' with blocks of 'block' bytes, or NULL, and a
 * line that says so.  It goes with its last user, of which this process is one,
 * whatever happens to the test.
 */
const char *loop_device(const char *path, unsigned block);

void assert_one_line(const char *text);
void assert_mentions(const char *text, const char *what);

#endif
