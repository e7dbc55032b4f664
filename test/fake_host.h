/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A host that fails or is slow, for the unmodified program: a preloaded library
 * that interposes io_uring_submit() and sched_yield(), controlled by the test
 * through shared memory.
 */
#ifndef FAKE_HOST_H
#define FAKE_HOST_H

#include <stdint.h>

/* The environment variable with the path of that memory. */
#define FAKE_HOST "FAKE_HOST"

struct fake_host {
	/* To be set: */
	uint32_t hold;	 /* fsyncs are held back from the kernel */
	uint32_t fail;	 /* operations that fail */
	uint32_t spare;	 /* ... but fsyncs do not */
	uint32_t error;	 /* ... with this errno */
	uint32_t limit;	 /* bytes one operation transfers; 0: no limit */
	uint32_t refuse; /* submissions that fail as a whole, with 'error' */

	/* Of all that were submitted: */
	uint32_t reads, writes, fsyncs, datasyncs;
	uint32_t held; /* submissions that kept back an fsync */

	uint32_t yields; /* how often sched_yield() was called */
};

#endif
