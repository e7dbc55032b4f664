/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between a program and its io_uring: what is submitted can be watched, held
 * back, shortened or made to fail.  Otherwise the kernel does the work.  The
 * program is linked with -Wl,--wrap=io_uring_submit,--wrap=fstatfs, and to be
 * starved with --wrap=pread,--wrap=pwrite.
 */
#ifndef FAKE_URING_H
#define FAKE_URING_H

#include <stdbool.h>
#include <stdint.h>

struct fake_uring {
	/* To be set: */
	bool hold;	/* hold back everything submitted */
	bool wait;	/* let everything submitted be complete at once */
	uint32_t limit; /* bytes one operation transfers at most; 0: no limit */
	unsigned spare; /* operations that pass before some fail */
	unsigned fail;	/* operations that fail then */
	int error;	/* ... with this errno */
	bool no_foreign; /* memory of the guest is EFAULT: all but buffers,
			    which begin with a page */
	int refuse;	 /* modes of fallocate() that are not supported */
	bool show_tmpfs; /* do not hide tmpfs, for which io_uring is not used */
	unsigned starve; /* pread() and pwrite() that find no memory */
	int refusal;	 /* ... the errno of that, if not EOPNOTSUPP */
	uint32_t unit;	 /* direct I/O is only possible in multiples of this */

	/* Since fake_uring_init(): */
	unsigned submits; /* submissions of at least one operation */
	unsigned reads, writes, others;
	unsigned directs;   /* ... that were direct I/O */
	unsigned datasyncs; /* fdatasync() */
	unsigned
	    out_of_file; /* operations that touch bytes from 'file_end' on */
	uint64_t file_end;
	struct io_uring *ring; /* the last one submitted to */
};

extern struct fake_uring fake_uring;

void fake_uring_init(void);

#endif
