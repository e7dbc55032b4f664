/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A load on the toy driver's disk that verifies itself: every sector carries
 * its address, a generation and bytes that follow from both, so that whatever
 * comes back, from the disk or from the file behind it, is right or wrong.
 *
 * The requests in flight never overlap, so what a sector must hold is always
 * known: what was written last and acknowledged.  Only a reset leaves a choice.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stdint.h>

struct driver;

#define LOAD_SECTORS   1024 /* size of the disk */
#define LOAD_COUNT_MAX 8    /* sectors of one request at most */
#define LOAD_SLOTS     16   /* requests in flight at most */

struct load_slot {
	int head; /* -1: free */
	uint32_t type;
	uint32_t sector;
	uint32_t count;
	uint32_t generation; /* that is being written */
	uint64_t gpa;	     /* of its buffer, in pages of its own */
};

struct load {
	struct driver *d;
	unsigned seed;
	bool no_discard; /* single sectors cannot be given back */
	bool copied;	 /* the guest is, see fake_xen_copy() */
	bool may_fail;	 /* requests may: then they were done, or were not */
	unsigned failed; /* ... so many did */
	unsigned inflight;
	unsigned completed;
	uint32_t generation; /* the last one used */
	struct load_slot slot[LOAD_SLOTS];
	struct {
		bool busy;	 /* a request in flight concerns it */
		uint32_t holds;	 /* generation acknowledged */
		uint32_t unless; /* ... or this one, which a reset cut off */
	} sector[LOAD_SECTORS];
};

/*
 * A load of 'd', with every sector of the disk, which is the open file 'fd', at
 * generation 0.  What it does by chance it does by 'seed'.
 */
void load_init(struct load *l, struct driver *d, int fd, unsigned seed);

/*
 * A number below 'n'.
 */
unsigned load_random(struct load *l, unsigned n);

/*
 * Make one request available, by choice or by chance.  False: no room.
 */
bool load_request(
    struct load *l, uint32_t type, uint32_t sector, uint32_t count);
bool load_any(struct load *l);

/*
 * Verify every request that the driver has got back: the number of them.
 */
unsigned load_collect(struct load *l);

/*
 * Wait for an interrupt that completes something; or until nothing is in
 * flight, either by interrupts or by looking at the used ring all the time.
 */
void load_some(struct load *l);
void load_drain(struct load *l);
void load_poll(struct load *l);

/*
 * The device was reset: what was in flight has happened or has not, and will
 * not any more.
 */
void load_reset(struct load *l);

/*
 * Verify the file as it is, while nothing is in flight.
 */
void load_verify(struct load *l, int fd);

#endif
