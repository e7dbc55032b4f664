/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A toy guest driver for virtio-mmio and virtio-blk on the guest of fake_xen.
 * It does what Linux does, in that order, and asserts what Linux relies on; for
 * what no driver does, everything it has is open to the test.
 *
 * Waiting means waiting for the device: in the same process by calling 'step',
 * else for the other process.  After DRIVER_TIMEOUT_MS the test fails.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_ring.h>

#define DRIVER_NUM_MAX	  1024
#define DRIVER_TIMEOUT_MS 300000

#define DRIVER_LENT_MAX	  4096
#define DRIVER_RINGS	  (-1)
#define DRIVER_ALL	  (-2)

/* At d->requests, for each head: header, status byte, indirect table. */
#define DRIVER_REQUEST_BYTES 8192

struct driver {
	uint64_t base;	    /* of the register window */
	unsigned vcpu;	    /* which one makes the accesses */
	bool legacy;	    /* the device is of version 1 */
	bool grants;	    /* lend it memory, rather than tell where it is */
	void (*step)(void); /* runs the device; NULL: another process */
	uint64_t heap;	    /* guest memory not used yet */
	uint64_t heap_end;

	uint64_t offered;  /* feature bits of the device */
	uint64_t features; /* negotiated */
	bool indirect;	   /* use indirect descriptors, if negotiated */
	uint32_t piece;	   /* cut buffers into this many bytes; 0: do not */

	uint16_t num;  /* queue size */
	uint64_t desc; /* guest-physical addresses of the rings */
	uint64_t avail;
	uint64_t used;
	uint64_t requests; /* per head: block header, status and table */
	uint16_t avail_idx;
	uint16_t used_idx;
	uint16_t kicked; /* avail_idx at the last look whether to kick */
	unsigned inflight;
	unsigned kicks;	     /* QueueNotify written */
	unsigned interrupts; /* interrupts for which there was a reason */
	unsigned spurious;   /* ... and for which there was none */

	uint16_t owner[DRIVER_NUM_MAX]; /* head of a descriptor, + 1; 0: free */
	bool done[DRIVER_NUM_MAX];	/* by head: the device returned it */
	uint32_t written[DRIVER_NUM_MAX]; /* ... with this length */
	uint64_t status[DRIVER_NUM_MAX];  /* ... its status byte is here */

	/* What the device has been lent, for a head or for DRIVER_RINGS. */
	struct {
		int owner;
		uint32_t ref;
		unsigned n; /* 0: nothing */
	} lent[DRIVER_LENT_MAX];
};

/* A buffer of a chain. */
struct driver_buf {
	uint64_t gpa;
	uint32_t len;
	bool writable; /* by the device */
};

/*
 * A driver for the device at 'base' that has guest memory [heap, heap + len) to
 * itself.
 */
void driver_init(struct driver *d, uint64_t base, uint64_t heap, uint64_t len);

/*
 * 'len' bytes of guest memory at a multiple of 'align', zeroed if never used.
 */
uint64_t driver_alloc(struct driver *d, uint64_t len, uint64_t align);

/*
 * Once around while waiting; fails the test when called for too long since
 * driver_patience().
 */
void driver_patience(struct driver *d);
void driver_wait(struct driver *d);

/*
 * Register access.  The first two begin an access of vCPU 'vcpu' and end it, so
 * that several can be blocked at a time; the others do both, on d->vcpu.
 */
void driver_begin(struct driver *d, unsigned vcpu, bool write, uint32_t offset,
    uint32_t size, uint64_t data);
uint64_t driver_end(struct driver *d, unsigned vcpu);
uint64_t driver_get(struct driver *d, uint32_t offset, uint32_t size);
uint32_t driver_read(struct driver *d, uint32_t offset);
void driver_write(struct driver *d, uint32_t offset, uint32_t value);

/*
 * Begin an IOREQ_TYPE_INVALIDATE to every server, ended by driver_end().
 */
void driver_invalidate(struct driver *d, unsigned vcpu);

/*
 * From nothing to a disk that works, in the steps of Linux.  driver_negotiate()
 * takes of 'wanted' what is offered and tells whether FEATURES_OK stuck;
 * driver_start() is all of it with a queue of 'num' descriptors.
 */
void driver_probe(struct driver *d);
bool driver_negotiate(struct driver *d, uint64_t wanted);
void driver_queue(struct driver *d, uint16_t num);
void driver_ok(struct driver *d);
void driver_start(struct driver *d, uint64_t wanted, uint16_t num);
void driver_reset(struct driver *d);

/*
 * The rings.
 */
struct vring_desc *driver_desc(struct driver *d, uint16_t i);
struct vring_avail *driver_avail(struct driver *d);
struct vring_used *driver_used(struct driver *d);
uint16_t *driver_used_event(struct driver *d);
uint16_t *driver_avail_event(struct driver *d);

/*
 * Make a chain of 'n' buffers available, as d->indirect and d->piece say; its
 * head, or -1 if the queue is full.  driver_kick() then notifies if the device
 * wants that, and tells whether it did.
 */
int driver_add(struct driver *d, const struct driver_buf *buf, unsigned n);
bool driver_kick(struct driver *d);

/*
 * Make a descriptor available that is beyond the queue, and notify likewise.
 */
void driver_add_wrong(struct driver *d);

/*
 * Serve an interrupt, if there is one, and take from the used ring: the
 * InterruptStatus found.  A driver that looks at the used ring without being
 * interrupted calls driver_take(), which tells whether there was one.
 */
uint32_t driver_interrupt(struct driver *d);
bool driver_take(struct driver *d);

/*
 * What the device must be told of memory at 'gpa': with d->grants it is lent
 * some, until the chain of that head is back, or a reset; and it must not have
 * any more what is taken back, of one owner or of DRIVER_ALL.
 */
uint64_t driver_lend(
    struct driver *d, int owner, uint64_t gpa, uint64_t len, bool writable);
void driver_take_back(struct driver *d, int owner);

/*
 * Wait for interrupts until the chain is back, or all are.
 */
void driver_until(struct driver *d, int head);
void driver_drain(struct driver *d);

/*
 * Block requests: make one available, and its status (0xff: none yet); or all
 * of it, from kick to interrupt.
 */
int driver_request(struct driver *d, uint32_t type, uint64_t sector,
    uint64_t gpa, uint32_t len);
uint8_t driver_status(struct driver *d, int head);
uint8_t driver_io(struct driver *d, uint32_t type, uint64_t sector,
    uint64_t gpa, uint32_t len);

/*
 * 'len' bytes of guest memory that differ everywhere, by 'seed'; and whether
 * the open file 'fd', a disk, has at 'sector' what the guest has at 'gpa'.
 */
uint64_t driver_pattern(struct driver *d, uint32_t len, uint32_t seed);
bool driver_in_file(int fd, uint64_t sector, uint64_t gpa, uint32_t len);

#endif
