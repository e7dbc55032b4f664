/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The IOREQ server (Xen's public hvm/ioreq.h and hvm/dm_op.h): the guest's
 * accesses to the register window, and its interrupt.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct xentoollog_logger;

enum access_kind {
	ACCESS_READ,
	ACCESS_WRITE,
	ACCESS_INVALIDATE, /* IOREQ_TYPE_INVALIDATE: unmap guest memory */
};

/* One access by a vCPU, which is blocked until ioreq_complete(). */
struct access {
	enum access_kind kind;
	uint32_t vcpu;	 /* index of the slot in the IOREQ page */
	uint32_t offset; /* bytes from the start of the window */
	uint32_t size;	 /* bytes: 1, 2, 4 or 8 */
	uint64_t data;	 /* of which the low 'size' bytes count */
};

/*
 * Why 'irq' is not a valid interrupt number on this architecture: a phrase for
 * a message, or NULL if it is.  Arm: the INTID of an SPI; x86: an ISA IRQ.
 */
const char *ioreq_irq_invalid(unsigned long irq);

/* Which IOREQ server to open, and the state kept in its page. */
struct ioreq_config {
	uint16_t domid;
	unsigned irq;  /* the interrupt that ioreq_interrupt() sets */
	uint64_t base; /* guest-physical start of the register window */
	uint64_t size; /* ... and its size in bytes */
	/* Bytes that outlive this process, and the version of their layout. */
	uint32_t state_size;
	uint32_t state_version;
};

/*
 * Adopt the IOREQ server that a killed predecessor left for the same domain and
 * base, or create one, claim the window and enable it; then bind the event
 * channel of every vCPU.  When this returns the guest may run.  Before, every
 * handle of Xen's libraries in this process is restricted to that domain.
 *
 * NULL on failure, which has been logged to 'log'; a server that was created is
 * destroyed then.  There is no ioreq_close(): a vCPU blocked in a destroyed
 * server would hang for good, so it stays for a successor, or the domain's end.
 */
struct ioreq_server *ioreq_open(
    struct xentoollog_logger *log, const struct ioreq_config *config);

/*
 * The 'state_size' bytes that outlive this process, aligned for any type: as a
 * killed predecessor left them (*adopted), or zero.
 */
void *ioreq_state(struct ioreq_server *io, bool *adopted);

/*
 * A descriptor that is readable (POLLIN) when there is an event, of accesses
 * that ioreq_next() finds.  ioreq_ack_event() acknowledges one and unmasks its
 * port.  False: it failed, which has been logged.
 */
int ioreq_fd(const struct ioreq_server *io);
bool ioreq_ack_event(struct ioreq_server *io);

/*
 * The next pending access in *a.  False: the scan of the slots is complete.  An
 * access that is not completed with ioreq_complete() is returned again by the
 * next scan.  Those that no driver makes (string instructions, outside the
 * window) are completed here: reads give all ones, writes are ignored.
 */
bool ioreq_next(struct ioreq_server *io, struct access *a);

/* Whether an access is pending that ioreq_next() has not returned yet. */
bool ioreq_pending(const struct ioreq_server *io);

/* Complete 'a', the last that ioreq_next() returned: the vCPU resumes. */
void ioreq_complete(struct ioreq_server *io, const struct access *a);

/*
 * Set the level of the guest's interrupt.  Arm: 1 makes the SPI pending, and 0
 * is ignored.  x86: the level of an ISA line, which may be taken as an edge.
 * False: the host refuses, for now, which has been logged.
 */
bool ioreq_interrupt(struct ioreq_server *io, unsigned level);

/*
 * Let Xen run other vCPUs that wait for this processor, for as long as it likes.
 * Arm: by WFE, which Xen traps but for vwfi=native.  x86: false, no way is known.
 */
bool ioreq_yield(void);

/* One hypercall.  To be polled: Xen notifies nobody of a domain's end. */
bool ioreq_domain_exists(struct ioreq_server *io);
