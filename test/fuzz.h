/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device under a fuzzer, see fuzz.c: what an input is, and the functions
 * that libFuzzer wants, whose names it chose.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

/*
 * An input is these, one after the other.  What a to d mean depends on 'code';
 * the first one tells how the device is opened, whatever its code.
 */
struct op {
	uint8_t code, a, b, c;
	uint32_t d;
};

enum code {
	SETUP,	    /* reset and negotiate: an empty queue that works */
	ACCESS,	    /* any register access */
	REQUEST,    /* make a request available, and perhaps notify */
	NOTIFY,	    /* for no reason */
	COMPLETE,   /* the disk has done something */
	TAKE,	    /* serve an interrupt, or look without one */
	WRITE,	    /* anything to memory */
	INVALIDATE, /* pages were given back */
	HOLE,	    /* pages come and go */
	RESET,	    /* or disable the queue, or switch the cache */
	KILL,	    /* and continue */
	DRAIN,	    /* everything owed must come */
	LATER,	    /* do what follows at a tick */
	BREAK,	    /* spoil the chain made last */
	SUBMIT,	    /* the kernel takes no requests for a while */
	CODES
};

/*
 * Carry out the program.  Aborts if the device does what it may not.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * What engine.c, compiled for the fuzzer, calls in place of aligned_alloc().
 */
void *fuzz_alloc(size_t align, size_t size);

/*
 * Change the program of 'size' bytes, which has room for 'max_size'; its size
 * then.  The first one changes operations, and is for libFuzzer to call; the
 * other one changes bytes, and is libFuzzer's.
 */
size_t LLVMFuzzerCustomMutator(
    uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#endif
