/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All of vdisk but its loop in this process: the shipped objects on the fake
 * Xen, an unlinked file as the disk, and a driver that waits by stack_step().
 */
#ifndef STACK_H
#define STACK_H

#include <stdbool.h>
#include <stdint.h>

#include "blk.h"
#include "device.h"
#include "driver.h"
#include "fake_log.h"
#include "grant.h"
#include "guest.h"
#include "ioreq.h"

#define DOMID 7
#define BASE  0x2000000ULL /* of the register window */

/* Of the one that is open. */
extern struct fake_log logger;
extern struct ioreq_server *io;
extern struct grants *grants; /* NULL: the guest's memory is mapped */
extern struct guest *guest;
extern struct blk *blk;
extern struct device *dev;
extern struct driver drv;
extern int file; /* the disk */

struct stack_config {
	unsigned vcpus;
	uint64_t low, high; /* bytes of RAM at FAKE_XEN_LOW, at FAKE_XEN_HIGH */
	uint64_t disk;	    /* bytes */
	unsigned flags;	    /* DISK_*, see disk.h */
	bool grants;	    /* the guest grants its memory */
};

/*
 * Open one, for the rest of the process; a failure is the test's.
 */
void stack_open(const struct stack_config *config);

/*
 * Once around the loop as in loop.c, but it sleeps for 1 ms at most, and if no
 * request is in flight not at all.
 */
void stack_step(void);

#endif
