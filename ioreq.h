/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The IOREQ server: how the guest's accesses to the register window reach
 * us, how they are answered, and how the guest is interrupted.  Follows Xen's
 * public headers hvm/ioreq.h and hvm/dm_op.h.
 */
#ifndef IOREQ_H
#define IOREQ_H

#include <stdbool.h>
#include <stdint.h>

struct xentoollog_logger;

enum access_kind {
	ACCESS_READ,
	ACCESS_WRITE,
	ACCESS_INVALIDATE, /* the guest gave pages back (IOREQ_TYPE_INVALIDATE) */
};

/*
 * One access by a vCPU, which stands still until ioreq_done().
 */
struct access {
	enum access_kind kind;
	uint32_t vcpu;	 /* who made it: index of the slot in the IOREQ page */
	uint32_t offset; /* bytes from the start of the window */
	uint32_t size;	 /* bytes: 1, 2, 4 or 8 */
	uint64_t data;	 /* write: the value, read: to be filled in; either
			    way only the low 'size' bytes count */
};

struct ioreq_server;

/*
 * What is wrong with 'irq' as the number of an interrupt on this architecture:
 * a phrase for a message, or NULL if nothing is.  Arm: the INTID of an SPI; x86:
 * an ISA IRQ.
 */
const char *ioreq_irq_invalid(unsigned long irq);

/* Which IOREQ server to open, and what it has to keep. */
struct ioreq_config {
	uint16_t domid;
	unsigned irq;  /* the interrupt that ioreq_interrupt() sets */
	uint64_t base; /* guest-physical start of the register window */
	uint64_t size; /* ... and its size in bytes */
	/* Bytes that outlive this process, and which layout they have. */
	uint32_t state_size;
	uint32_t state_version;
};

/*
 * Serve the register window: adopt the IOREQ server that a killed predecessor
 * left behind for the same domain and base, or else create one, claim the
 * window and enable it; then bind the event channel of every vCPU.  When this
 * returns the guest may run.
 *
 * Before all that, every handle of Xen's libraries in this process, guest.c's
 * too if it is open by then, is restricted to that domain for good.
 *
 * NULL on failure, which has been logged to 'log'; a server that was created
 * is gone again then.  There is no ioreq_close(): Xen would leave any vCPU that
 * waits in a destroyed server waiting for ever, so the server stays for a
 * successor, and goes with the domain.
 */
struct ioreq_server *ioreq_open(
    struct xentoollog_logger *log, const struct ioreq_config *config);

/*
 * The state that outlives this process: 'state_size' bytes, aligned for any
 * type.  *adopted tells whether they are a predecessor's, left as they were
 * when it was killed; otherwise they are zero.
 */
void *ioreq_state(struct ioreq_server *io, bool *adopted);

/*
 * A descriptor that is readable (POLLIN) when ioreq_wake() should be called.
 * ioreq_wake() takes one event off it; accesses are then found by ioreq_next().
 * 0, or -1 if event channels do not work any more, which has been logged.
 */
int ioreq_fd(const struct ioreq_server *io);
int ioreq_wake(struct ioreq_server *io);

/*
 * The next access that waits for an answer.
 *
 * True: *a is one.  False: this sweep is over.  An access that is not answered
 * with ioreq_done() is offered again by the next sweep, unchanged, so that an
 * answer can wait while other vCPUs are served.  Accesses that no driver makes
 * (string instructions, outside the window) are answered here: reads give all
 * ones, writes are ignored.
 */
bool ioreq_next(struct ioreq_server *io, struct access *a);

/*
 * Whether a vCPU waits for an access that was not offered yet.
 */
bool ioreq_pending(const struct ioreq_server *io);

/*
 * Answer 'a', the last access that ioreq_next() gave; the vCPU goes on.
 */
void ioreq_done(struct ioreq_server *io, const struct access *a);

/*
 * Set the level of the guest's interrupt.  Arm: 1 makes the SPI pending, its
 * level is not modelled and 0 does nothing.  x86: the ISA line stays at 1 until
 * it is set to 0; where it is an edge the guest is interrupted by the change
 * from 0 to 1 only.
 */
void ioreq_interrupt(struct ioreq_server *io, unsigned level);

/*
 * Whether the guest still exists.  Xen tells nobody when a domain dies, so this
 * must be asked from time to time; it costs one hypercall.
 */
bool ioreq_alive(struct ioreq_server *io);

#endif
