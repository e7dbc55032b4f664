/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device under a fuzzer: device.o and all that is below it as they are,
 * between a guest, a disk and a fate that the input decides.
 *
 * An input is a program of records, each an operation of the guest's driver, of
 * the disk, of Xen or of a murderer.  The driver in this file knows how to
 * negotiate and how to make requests, so that random programs get somewhere; as
 * long as the guest did nothing that a driver may not do ("clean"), everything
 * it is owed must come: each request once, with the right status, length and
 * place, and with the notification and interrupt that it takes.  What it has
 * written without a cache must be stable, and no cache is given up with
 * anything in it.  In any life, clean or not:
 *
 *   - only sectors of the disk are touched, and none written if read-only;
 *   - guest memory is written only in the used ring of a queue that is ready,
 *     and in buffers that descriptors showed to the device as writable;
 *   - no memory is touched that was not looked up since pages were given back;
 *   - nothing is in flight when a reset has been answered;
 *   - the loop comes to rest, and the log has a bound;
 *   - a device that was killed can be continued, whenever that was.
 *
 * The device is interrupted by the rest of the program at "ticks": each lookup
 * of guest memory and, where the compiler tells us of them (clang's trace-loads
 * and trace-stores), each load from guest memory and each store to it or to the
 * state.  There memory can change and the process can die.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include <liburing.h>
#include <linux/magic.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "asan.h"
#include "blk.h"
#include "device.h"
#include "disk.h"
#include "fake_ioreq.h"
#include "fake_log.h"
#include "fuzz.h"
#include "grant.h"
#include "guest.h"
#include "ioreq.h"
#include "sqe.h"
#include "virtio_mmio.h"
#include "virtqueue.h"

#if ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)	  ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define __asan_address_is_poisoned(p)	  ((void)(p), 0)
#endif

/* What the guest does to its memory is not for the sanitizer to judge. */
#define GUEST	__attribute__((no_sanitize("address", "undefined")))

#define BASE	(granted ? UINT64_C(1) << 63 : UINT64_C(0x40000000))
#define PAGE	4096
#define MEMORY	0x10000
#define SECTOR	512
#define SECTORS 64
#define TAIL	100 /* bytes of the file that are not a whole sector */
#define VCPUS	3
#define OPS_MAX 64
#define LATERS	4

/* Where the driver puts its rings and requests. */
#define RINGS	   0
#define AVAIL	   0x1000
#define USED	   0x1400
#define SLOTS	   28
#define SLOT_BASE  0x2000
#define SLOT_SIZE  0x800
#define SLOT_DATA  16
#define SLOT_TABLE 0x600
#define DATA_MAX   1024
#define PIECES	   28 /* buffers of a chain at most */

/* Bounce buffers of direct I/O, smaller than they really are. */
#define BLOCK (2 * SECTOR)

#define WCE   (VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce))

/*
 * Times that the loop goes round for one reason; and that it does until all is
 * done, of which a discard of many ranges takes one for each.
 */
#define ROUNDS	   32
#define MAX_ROUNDS 256

#define FEATURE(b) (UINT64_C(1) << (b))
#define HAS(f, b)  (((f) >> (b)) & 1)

/* A request that the driver waits for. */
struct owed {
	bool used;
	uint16_t head;
	uint16_t ndesc;
	uint16_t desc[PIECES];
	uint32_t type;
	uint64_t sector;
	uint32_t len;	    /* of the data */
	uint32_t room;	    /* of what is writable, less the status */
	uint64_t status;    /* where it comes */
	bool covered;	    /* an fdatasync() that began after it goes on */
	bool flushed;	    /* ... came to a good end */
	bool doubtful;	    /* ... or to a bad one */
	uint32_t clear;	    /* sectors that each range clears, if it does */
	uint32_t flags;	    /* ... in this way */
	bool refused;	    /* ... which the host cannot do */
	bool through;	    /* ... and is to be stable when it is done */
	bool hopeless;	    /* a flush had failed before it came */
	unsigned errors;    /* operations failed since the last kill */
	unsigned again;	    /* ... or were to be repeated */
	unsigned forgotten; /* ... both of these, before it */

	/* What the disk had there, if it is read. */
	uint8_t read[DATA_MAX];
};

/* Pages are granted by their numbers; a hole is one that is not, or not now. */
struct grants {
	int unused;
};

/* What is to be done at a tick. */
struct later {
	unsigned at; /* 0: nothing */
	const struct op *op;
	unsigned n;
};

struct guest {
	uint8_t *memory;
	bool hole[MEMORY / PAGE];
};

static struct guest guest;
static uint8_t shadow[MEMORY] __attribute__((aligned(8))); /* by the guest */
static uint8_t permit[MEMORY]; /* 1: in a buffer shown to be writable */
static uint8_t disk[SECTORS * SECTOR];
static int disk_file = -1;
static char disk_path[32];

static struct fake_log lg;
static struct ioreq_server io;
static struct blk *blk;
static struct device *dev;
static bool read_only;
static bool legacy;
static bool direct; /* with O_DIRECT */
static bool granted;
static struct grants grants;

static struct {
	struct io_uring_sqe sqes[BLK_REQS];
	struct io_uring_cqe cqes[2 * BLK_REQS];
	unsigned sq_head, sq_tail, cq_head, cq_tail;
	struct io_uring_sqe op[BLK_REQS]; /* being worked on */
	unsigned nops;
	struct io_uring *ring;
	int fd[2]; /* the disk: buffered, direct */
	uint8_t *buffers;
	void *pool;	 /* the same, registered or not */
	size_t room;	 /* bytes of them */
	bool left;	 /* something was not taken */
	unsigned errors; /* submissions that do not go as usual */
	int error;	 /* ... but fail, or if 0 */
	unsigned take;	 /* ... take so many operations only */
	bool dirty;	 /* something was written since fdatasync() */
} kernel;

/* The queue's registers, as far as they say where the used ring is. */
static struct {
	uint32_t sel, num;
	uint64_t used;
	bool ready;
} mirror;
static uint32_t page_size, alignment; /* legacy; a reset leaves them */

static struct {
	bool live, clean;
	bool cached; /* writes need not be stable when they complete */
	bool chosen; /* ... which some driver did not want */
	uint64_t features;
	uint16_t num, avail_idx, used_seen, kicked;
	bool polling; /* wants no interrupts */
	unsigned raised;
	bool busy[VIRTQUEUE_NUM_MAX]; /* descriptor in use */
	struct owed owed[SLOTS];
	unsigned last; /* slot of the last request */
} drv;

static struct access waiting[VCPUS];
static bool waits[VCPUS];
static bool event; /* an access has become pending */

static struct later later[LATERS];
static unsigned ticks, kill_at, kill_bits, opens, told, lookups;
static bool in_device, in_tick, killable;
static bool active; /* the device may have written since check_memory() */
static jmp_buf killed;
static time_t began;

static struct op prog[OPS_MAX];
static unsigned prog_len, prog_at;

static void run_op(const struct op *op, bool nested);

static _Noreturn void
die(const char *why)
{
	fprintf(stderr, "oracle: %s (operation %u, tick %u)\n", why, prog_at,
	    ticks);
	abort();
}

#define CHECK(c, why)                                                          \
	do {                                                                   \
		if (!(c))                                                      \
			die(why);                                              \
	} while (0)

/* Guest memory, as the guest sees it. */

GUEST static void
put(uint64_t at, const void *from, size_t len)
{
	volatile uint8_t *memory = guest.memory;
	const uint8_t *p = from;

	for (size_t i = 0; i < len && at + i < MEMORY; i++)
		memory[at + i] = shadow[at + i] = p[i];
}

GUEST static uint64_t
get(uint64_t at, size_t len)
{
	volatile uint8_t *memory = guest.memory;
	uint64_t v = 0;

	for (size_t i = 0; i < len && at + i < MEMORY; i++)
		v |= (uint64_t)memory[at + i] << 8 * i;
	return v;
}

GUEST static bool
holds(uint64_t at, const uint8_t *data, size_t len)
{
	volatile uint8_t *memory = guest.memory;

	while (len > 0 && memory[at + len - 1] == data[len - 1])
		len--;
	return len == 0;
}

static void
put16(uint64_t at, uint16_t v)
{
	put(at, &v, 2);
}

static bool
in_used_ring(uint64_t at, size_t len)
{
	uint64_t from = mirror.used - BASE;

	return mirror.ready && at >= from &&
	       at + len <= from + 6 + 8 * (uint64_t)mirror.num;
}

static bool
permitted(uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (at + i >= MEMORY || !permit[at + i])
			return false;
	return true;
}

/*
 * What has changed without the guest's doing is what the device wrote.
 */
GUEST static void
check_memory(void)
{
	const uint64_t *m = (const uint64_t *)(const void *)guest.memory;
	const uint64_t *s = (const uint64_t *)(const void *)shadow;

	if (!active)
		return;
	active = false;
	for (size_t i = 0; i < MEMORY / 8; i++) {
		if (m[i] == s[i])
			continue;
		for (size_t at = 8 * i; at < 8 * i + 8; at++) {
			if (guest.memory[at] == shadow[at])
				continue;
			CHECK(permit[at] || in_used_ring(at, 1),
			    "memory written that was not the device's");
			shadow[at] = guest.memory[at];
		}
	}
}

/* Ticks. */

static void
tick(void)
{
	if (in_tick || !in_device)
		return;
	in_tick = true;
	ticks++;
	for (unsigned i = 0; i < LATERS; i++) {
		struct later now = later[i];

		if (now.at == 0 || now.at > ticks)
			continue;
		later[i].at = 0;
		for (unsigned k = 0; k < now.n; k++)
			run_op(&now.op[k], true);
	}
	in_tick = false;
	if (killable && kill_at != 0 && ticks >= kill_at) {
		kill_at = 0;
		in_device = false;
		longjmp(killed, 1);
	}
}

/*
 * The descriptor that the device loads: address, length, flags, in that order.
 */
static struct {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	unsigned next; /* size of the load that comes next */
} seen;
static bool traced;

/* Who has no word of the loads: lookups of what may be a descriptor table. */
static struct {
	uint64_t at, n;
} table[64];
static unsigned tables;

/*
 * Whether memory has such a descriptor now, in one of those tables.
 */
GUEST static bool
shown_in_tables(uint64_t gpa, uint64_t len)
{
	for (unsigned t = 0; t < MIN(tables, 64); t++) {
		const struct vring_desc *d =
		    (const void *)(guest.memory + table[t].at);

		for (unsigned i = 0; i < table[t].n; i++, d++)
			if (d->addr == gpa && d->len == len &&
			    (d->flags & VRING_DESC_F_WRITE))
				return true;
	}
	return false;
}

static void
remember_table(uint64_t at, uint64_t len)
{
	uint64_t n = len / sizeof(struct vring_desc);

	if (traced || n == 0 || len % sizeof(struct vring_desc) != 0 ||
	    n > VIRTQUEUE_NUM_MAX)
		return;
	for (unsigned t = 0; t < MIN(tables, 64); t++)
		if (table[t].at == at && table[t].n == n)
			return;
	table[tables % 64].at = at;
	table[tables++ % 64].n = n;
}

static void
show(uint64_t gpa, uint64_t len)
{
	bool writable = traced ? seen.addr == gpa && seen.len == len &&
				     (seen.flags & VRING_DESC_F_WRITE)
			       : shown_in_tables(gpa, len);

	if (writable)
		memset(permit + (gpa - BASE), 1, len);
	remember_table(gpa - BASE, len);
}

void *
guest_map(struct guest *g, uint64_t gpa, size_t len)
{
	uint64_t from = gpa - BASE, to;
	bool good = gpa >= BASE && !__builtin_add_overflow(from, len, &to) &&
		    to <= MEMORY;

	active = true;
	lookups++;
	errno = EFAULT;
	for (uint64_t page = from / PAGE; good && page * PAGE < to; page++)
		good = !g->hole[page];
	if (good) {
		show(gpa, len);
		ASAN_UNPOISON_MEMORY_REGION(g->memory + from, len);
	}
	tick();
	return good ? g->memory + from : NULL;
}

void *
grant_address(uint64_t addr, uint64_t len)
{
	active = true;
	lookups++;
	tick();
	if (addr < BASE || addr > BASE + (UINT64_C(1) << 44) ||
	    len > BASE + (UINT64_C(1) << 44) - addr)
		return NULL;
	if (addr - BASE <= MEMORY && len <= MEMORY - (addr - BASE))
		show(addr, len);
	return (void *)(uintptr_t)addr;
}

/* One byte after the other.  False: it is not granted. */
GUEST static bool
copy_byte(uint64_t at, uint8_t *p, bool to_guest)
{
	volatile uint8_t *memory = guest.memory;

	if (at >= MEMORY || guest.hole[at / PAGE])
		return false;
	CHECK(!to_guest || permitted(at, 1),
	    "a copy to memory that is not writable");
	if (to_guest)
		memory[at] = *p;
	else
		*p = memory[at];
	return true;
}

bool
guest_copy_all(struct grants *g, const struct iovec *iov, void *p, size_t len,
    bool to_guest, void *status)
{
	uint8_t *at = p, zero = 0;
	bool good = true;

	CHECK((g != NULL) == granted, "grants that are not the device's");
	active = true;
	for (; len > 0; iov++) {
		size_t some = MIN(len, iov->iov_len);
		uint64_t from = (uintptr_t)iov->iov_base - BASE;

		if (granted && (uintptr_t)iov->iov_base >= BASE)
			for (size_t i = 0; i < some; i++)
				good &= copy_byte(from + i, at + i, to_guest);
		else if (to_guest)
			memcpy(iov->iov_base, at, some);
		else
			memcpy(at, iov->iov_base, some);
		at += some;
		len -= some;
		if (granted)
			tick();
	}
	if (status != NULL && granted)
		good &= copy_byte((uintptr_t)status - BASE, &zero, true);
	else if (status != NULL)
		*(uint8_t *)status = 0;
	return good;
}

/* In the place of aligned_alloc() for the engine, to be freed with it. */
void *
fuzz_alloc(size_t align, size_t size)
{
	return posix_memalign(&kernel.pool, align, size) == 0 ? kernel.pool
							      : NULL;
}

void
guest_wrote(struct guest *g, uint64_t gpa, uint64_t len)
{
	(void)g;
	(void)gpa;
	(void)len;
}

void
guest_report(struct guest *g)
{
	(void)g;
}

bool
guest_reclaim(struct guest *g)
{
	(void)g;
	return false;
}

void
guest_pin(struct guest *g, const void *p, size_t len)
{
	(void)g;
	(void)p;
	(void)len;
}

uint64_t
guest_mapped(const struct guest *g)
{
	(void)g;
	return granted ? 0 : MEMORY;
}

void
guest_unmap_all(struct guest *g)
{
	ASAN_POISON_MEMORY_REGION(g->memory, MEMORY);
}

/*
 * The compiler's word of loads and stores, before they happen.
 */
GUEST static void
on_load(const void *p, unsigned size)
{
	uint64_t at = (const uint8_t *)p - guest.memory;

	if (at >= MEMORY || !in_device || in_tick)
		return;
	traced = true;
	tick();
	if (size == 8) {
		seen.addr = get(at, 8);
		seen.next = 4;
	} else if (size == 4 && seen.next == 4) {
		seen.len = get(at, 4);
		seen.next = 2;
	} else if (size == 2 && seen.next == 2) {
		seen.flags = get(at, 2);
		seen.next = 0;
	}
}

GUEST static void
on_store(const void *p, unsigned size)
{
	uint64_t at = (const uint8_t *)p - guest.memory;
	uint64_t in_state = (const uint8_t *)p - (const uint8_t *)io.state;

	if (!in_device || in_tick)
		return;
	if (at < MEMORY) {
		CHECK(in_used_ring(at, size) || permitted(at, size),
		    "a store outside the used ring and writable buffers");
		tick();
	} else if (in_state < sizeof(io.state)) {
		tick();
	}
}

#define TRACE(n)                                                               \
	void __sanitizer_cov_load##n(void *p);                                 \
	void __sanitizer_cov_store##n(void *p);                                \
	void __sanitizer_cov_load##n(void *p)                                  \
	{                                                                      \
		on_load(p, n);                                                 \
	}                                                                      \
	void __sanitizer_cov_store##n(void *p)                                 \
	{                                                                      \
		on_store(p, n);                                                \
	}                                                                      \
	_Static_assert(n <= 16, "a semicolon may follow")

TRACE(1);
TRACE(2);
TRACE(4);
TRACE(8);
TRACE(16);

/* The kernel: the calls of liburing that are not inline, which do all I/O. */

int
fstatfs(int fd, struct statfs *fs)
{
	(void)fd;
	*fs = (struct statfs){.f_type = EXT4_SUPER_MAGIC};
	return 0;
}

int
io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	(void)flags;
	CHECK(entries == BLK_REQS, "another number of requests");
	kernel.sq_head = kernel.sq_tail = kernel.cq_head = kernel.cq_tail = 0;
	kernel.nops = kernel.errors = 0;
	kernel.left = false;
	kernel.ring = ring;
	kernel.buffers = NULL;
	*ring = (struct io_uring){.features = IORING_FEAT_EXT_ARG};
	ring->sq.khead = &kernel.sq_head;
	ring->sq.ktail = &kernel.sq_tail;
	ring->sq.sqes = kernel.sqes;
	ring->sq.ring_entries = BLK_REQS;
	ring->sq.ring_mask = BLK_REQS - 1;
	ring->cq.khead = &kernel.cq_head;
	ring->cq.ktail = &kernel.cq_tail;
	ring->cq.cqes = kernel.cqes;
	ring->cq.ring_entries = 2 * BLK_REQS;
	ring->cq.ring_mask = 2 * BLK_REQS - 1;
	return 0;
}

int
io_uring_register_files(struct io_uring *ring, const int *files, unsigned n)
{
	(void)ring;
	kernel.fd[0] = files[0];
	kernel.fd[1] = n > 1 ? files[1] : -1;
	return 0;
}

int
io_uring_register_files_update(
    struct io_uring *ring, unsigned at, const int *files, unsigned n)
{
	(void)ring;
	(void)at;
	(void)files;
	return n;
}

int
io_uring_unregister_files(struct io_uring *ring)
{
	(void)ring;
	return 0;
}

int
io_uring_register_buffers(
    struct io_uring *ring, const struct iovec *iov, unsigned n)
{
	(void)ring;
	(void)n;
	kernel.buffers = iov->iov_base;
	kernel.room = iov->iov_len;
	return 0;
}

int
io_uring_register(unsigned fd, unsigned opcode, const void *arg, unsigned n)
{
	(void)fd;
	(void)opcode;
	(void)arg;
	(void)n;
	return 0;
}

unsigned
io_uring_peek_batch_cqe(
    struct io_uring *ring, struct io_uring_cqe **cqes, unsigned n)
{
	CHECK(n == 1, "more completions than there is room for");
	cqes[0] = &kernel.cqes[*ring->cq.khead % (2 * BLK_REQS)];
	return kernel.cq_tail != *ring->cq.khead;
}

/*
 * Whether the device remembers that a flush has failed: by its state.
 */
static bool
flush_failed(void)
{
	return ((const uint16_t *)io.state)[35] != 0;
}

static struct owed *
owed_by_head(uint16_t head)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (drv.owed[i].used && drv.owed[i].head == head)
			return &drv.owed[i];
	return NULL;
}

static uint64_t
slot_of(const struct owed *o)
{
	return SLOT_BASE + (uint64_t)(o - drv.owed) * SLOT_SIZE;
}

static bool
is_clearing(const struct owed *o)
{
	return o->type == VIRTIO_BLK_T_DISCARD ||
	       o->type == VIRTIO_BLK_T_WRITE_ZEROES;
}

/*
 * The memory of an operation.
 */
static const struct iovec *
vector(const struct io_uring_sqe *sqe, struct iovec *one, unsigned *n)
{
	*n = sqe->len;
	if (is_vector(sqe))
		return (const struct iovec *)(uintptr_t)sqe->addr;
	*one = (struct iovec){
	    .iov_base = (void *)(uintptr_t)sqe->addr, .iov_len = sqe->len};
	*n = 1;
	return one;
}

/*
 * Whether the data go through a buffer of the device's.
 */
static bool
is_bounced(const struct io_uring_sqe *sqe)
{
	return is_direct(sqe) || granted;
}

/*
 * Whether the operation is a part of the request that the driver made: at its
 * place on the disk, for 'bytes' of it, and with the byte of memory that
 * belongs there.
 */
static void
check_belongs(
    const struct io_uring_sqe *sqe, const struct iovec *iov, uint64_t bytes)
{
	const struct blk_req *req =
	    (const struct blk_req *)(uintptr_t)sqe->user_data;
	struct owed *o = owed_by_head(req->head);
	uint64_t from;

	if (!drv.clean)
		return;
	CHECK(o != NULL, "an operation for no request");
	if (sqe->opcode == IORING_OP_FSYNC) {
		CHECK(o->type == VIRTIO_BLK_T_FLUSH ||
			  ((is_clearing(o) || o->type == VIRTIO_BLK_T_OUT) &&
			      !drv.cached),
		    "a flush unasked for");
		for (unsigned i = 0; i < SLOTS; i++)
			drv.owed[i].covered = true;
		return;
	}
	if (is_clearing(o)) {
		uint64_t done = sqe->off - o->sector * SECTOR;
		uint64_t len = o->clear * SECTOR;

		o->through = !drv.cached;
		CHECK(done < len && bytes <= len - done,
		    "clearing elsewhere than the request");
		CHECK(!is_write(sqe) || o->type == VIRTIO_BLK_T_WRITE_ZEROES,
		    "a write that ought to be a discard");
		return;
	}
	CHECK(o->type == (is_write(sqe) ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN),
	    "an operation of another kind than the request");
	from = o->sector * SECTOR;
	CHECK(sqe->off >= from && sqe->off < from + o->len,
	    "an operation elsewhere than the request");
	CHECK(is_bounced(sqe) ||
		  (uint8_t *)iov->iov_base ==
		      guest.memory + slot_of(o) + SLOT_DATA + (sqe->off - from),
	    "an operation with memory of another place");
	CHECK(!(is_bounced(sqe) && is_write(sqe)) ||
		  holds(slot_of(o) + SLOT_DATA + (sqe->off - from),
		      iov->iov_base, bytes),
	    "other data than the guest's");
	o->through = is_write(sqe) && !drv.cached;
}

/*
 * Direct I/O: whole sectors, in a bounce buffer of its own, and no buffered I/O
 * in flight.
 */
static void
check_direct(const struct io_uring_sqe *sqe)
{
	uint64_t at = sqe->addr - (uintptr_t)kernel.buffers;

	CHECK(
	    sqe->off % SECTOR == 0 && sqe->len % SECTOR == 0 && at % PAGE == 0,
	    "a part of a sector in direct I/O");
	CHECK(sqe->buf_index == 0 && at < kernel.room &&
		  sqe->len <= kernel.room - at,
	    "an operation with no buffer");
	for (unsigned i = 0; i < kernel.nops; i++) {
		const struct io_uring_sqe *other = &kernel.op[i];

		CHECK(!is_direct(other) ||
			  other->addr + other->len <= sqe->addr ||
			  sqe->addr + sqe->len <= other->addr,
		    "two operations with one buffer");
	}
}

static void
check_alone(const struct io_uring_sqe *sqe)
{
	for (unsigned i = 0; i < kernel.nops; i++) {
		const struct io_uring_sqe *other = &kernel.op[i];

		CHECK(!(is_read(other) || is_write(other)) ||
			  is_direct(other) == is_direct(sqe),
		    "the page cache and what goes past it, at a time");
	}
}

static void
check_buffer(const struct io_uring_sqe *sqe, const struct iovec *iov)
{
	uint8_t *p = iov->iov_base;
	uint64_t at = p - guest.memory;

	CHECK(at <= MEMORY && iov->iov_len <= MEMORY - at,
	    "an operation outside guest memory");
	if (iov->iov_len == 0)
		return;
	CHECK(!__asan_address_is_poisoned(p) &&
		  !__asan_address_is_poisoned(p + iov->iov_len - 1),
	    "an operation with memory given back");
	if (is_read(sqe))
		CHECK(permitted(at, iov->iov_len),
		    "a read into memory that is not writable");
}

/*
 * Whether it writes zeros of its own for a request that is to.
 */
static bool
writes_zeros(const struct io_uring_sqe *sqe)
{
	static const uint8_t zeros[PAGE];
	const struct blk_req *req =
	    (const struct blk_req *)(uintptr_t)sqe->user_data;
	const struct iovec *iov;
	struct iovec one;
	unsigned n;

	if (req->type != VIRTIO_BLK_T_WRITE_ZEROES || !is_write(sqe))
		return false;
	iov = vector(sqe, &one, &n);
	for (unsigned i = 0; i < n; i++)
		CHECK(iov[i].iov_len <= sizeof(zeros) &&
			  memcmp(iov[i].iov_base, zeros, iov[i].iov_len) == 0,
		    "zeros that are none");
	return true;
}

static void
check_op(const struct io_uring_sqe *sqe)
{
	const struct iovec *iov;
	struct iovec one;
	uint64_t sum = 0;
	unsigned n;

	CHECK((sqe->flags & IOSQE_FIXED_FILE) &&
		  sqe->fd ==
		      (sqe->opcode == IORING_OP_FSYNC ? 2 : is_direct(sqe)),
	    "an operation on another file");
	if (sqe->opcode == IORING_OP_FSYNC) {
		check_belongs(sqe, NULL, 0);
		return;
	}
	CHECK(is_read(sqe) || !read_only, "a read-only disk is written");
	iov = vector(sqe, &one, &n);
	if (sqe->opcode == IORING_OP_FALLOCATE) {
		CHECK(
		    sqe->len == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) ||
			sqe->len ==
			    (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE),
		    "clearing that may make the file grow");
		sum = sqe->addr; /* where its length is */
		n = 0;
	} else
		CHECK(is_read(sqe) || is_write(sqe), "an operation not known");
	if (is_direct(sqe))
		check_direct(sqe);
	if (is_read(sqe) || is_write(sqe))
		check_alone(sqe);
	for (unsigned i = 0; i < n; i++) {
		CHECK((uintptr_t)iov[i].iov_base >> 63 == 0,
		    "a grant that is taken for a pointer");
		if (!is_bounced(sqe) && !writes_zeros(sqe))
			check_buffer(sqe, &iov[i]);
		sum += iov[i].iov_len;
	}
	CHECK(sum > 0, "an operation of nothing");
	CHECK(sqe->off <= sizeof(disk) && sum <= sizeof(disk) - sqe->off,
	    "an operation beyond the disk");
	check_belongs(sqe, iov, sum);
}

int
io_uring_submit(struct io_uring *ring)
{
	unsigned n = ring->sq.sqe_tail - ring->sq.sqe_head;

	kernel.left = false;
	if (kernel.errors > 0) {
		kernel.errors--;
		kernel.left = kernel.error != 0 || n > kernel.take;
		if (kernel.error != 0)
			return -kernel.error;
		n = MIN(n, kernel.take);
	}
	for (unsigned i = 0; i < n; i++) {
		struct io_uring_sqe *sqe =
		    &ring->sq.sqes[ring->sq.sqe_head++ & ring->sq.ring_mask];

		check_op(sqe);
		CHECK(kernel.nops < BLK_REQS, "too many operations");
		kernel.op[kernel.nops++] = *sqe;
	}
	kernel.sq_head = kernel.sq_tail = ring->sq.sqe_head;
	return n;
}

/*
 * What was written is stable; the device has this done only when it gives up
 * the cache.
 */
int
fdatasync(int fd)
{
	CHECK(
	    fd == kernel.fd[0] && kernel.nops == 0, "a sync beside operations");
	kernel.dirty = false;
	return 0;
}

/*
 * Carry out at most 'limit' bytes of the operation; how many it were.
 */
GUEST static int
transfer(const struct io_uring_sqe *sqe, uint64_t limit)
{
	const struct iovec *iov;
	struct iovec one;
	uint64_t done = 0;
	unsigned n;

	if (sqe->opcode == IORING_OP_FSYNC)
		return 0;
	kernel.dirty |= !is_read(sqe);
	if (sqe->opcode == IORING_OP_FALLOCATE) {
		memset(disk + sqe->off, 0, sqe->addr);
		return 0;
	}
	iov = vector(sqe, &one, &n);
	for (unsigned i = 0; i < n; i++) {
		volatile uint8_t *p = iov[i].iov_base;

		for (size_t k = 0; k < iov[i].iov_len && done < limit; k++) {
			if (is_read(sqe))
				p[k] = disk[sqe->off + done++];
			else
				disk[sqe->off + done++] = p[k];
		}
	}
	return done;
}

/*
 * Operation 'i' that the kernel has comes to its end: whole, short or failed.
 */
static void
complete(unsigned i, unsigned how, uint32_t limit)
{
	static const int errors[] = {EINTR, EAGAIN, EIO, ENOSPC};
	struct io_uring_sqe *sqe = &kernel.op[i];
	struct blk_req *req = (struct blk_req *)(uintptr_t)sqe->user_data;
	struct owed *o = drv.clean ? owed_by_head(req->head) : NULL;
	bool flush = sqe->opcode == IORING_OP_FSYNC;
	bool clear = sqe->opcode == IORING_OP_FALLOCATE;
	int res;

	if (is_direct(sqe) && (sqe->off | sqe->len) % BLOCK != 0)
		res = -EINVAL;
	else if (how < 4 || (clear && how < 7))
		res = transfer(sqe, UINT64_MAX);
	else if (how < 6)
		res = transfer(sqe, is_direct(sqe) ? SECTOR * (1 + limit % 8)
						   : 1 + limit % DATA_MAX);
	else if (how == 6)
		res = 0; /* the end of the file, if it is a transfer */
	else
		res = -errors[limit % 4];
	/* Soon it would not be done by io_uring any more, and elsewhere. */
	if ((res == -EINTR || res == -EAGAIN) && o != NULL && o->again >= 15)
		res = -EIO;
	if (clear && res == -ENOSPC)
		res = -EOPNOTSUPP;
	if (o != NULL) {
		if (is_read(sqe) && res > 0)
			memcpy(o->read + (sqe->off - o->sector * SECTOR),
			    disk + sqe->off, res);
		o->again += res == -EINTR || res == -EAGAIN || res == -EINVAL;
		o->errors +=
		    res == -EIO || res == -ENOSPC || (!flush && !clear && !res);
		o->refused |=
		    res == -EOPNOTSUPP && o->type == VIRTIO_BLK_T_DISCARD;
		/* What went on meanwhile does not cover it. */
		if (!flush)
			o->covered = o->flushed = false;
	}
	for (o = drv.owed; flush && drv.clean && o < &drv.owed[SLOTS]; o++) {
		o->flushed |= o->covered && res == 0;
		o->doubtful |= o->covered && res != 0;
	}
	active = true;
	CHECK(kernel.cq_tail - kernel.cq_head < 2 * BLK_REQS, "too many done");
	kernel.cqes[kernel.cq_tail++ % (2 * BLK_REQS)] =
	    (struct io_uring_cqe){.user_data = sqe->user_data, .res = res};
	kernel.op[i] = kernel.op[--kernel.nops];
}

/* Life and death. */

static void
forget_owed(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		drv.owed[i].used = false;
	memset(drv.busy, 0, sizeof(drv.busy));
	memset(permit, 0, sizeof(permit));
	drv.live = false;
}

static struct blk *
open_disk(void)
{
	return blk_open(&lg.logger, disk_path,
	    DISK_NO_LOCK | (read_only ? DISK_READ_ONLY : 0) |
		(direct ? DISK_DIRECT : 0),
	    "fuzz", granted ? &grants : NULL);
}

static void
open_device(void)
{
	if (blk == NULL)
		blk = open_disk();
	CHECK(blk != NULL, "no disk");
	opens++;
	in_device = true;
	dev = device_open(&lg.logger, &io, &guest, blk, legacy);
	in_device = false;
	CHECK(dev != NULL, "a device that cannot be continued");
}

static void
close_disk(void)
{
	free(blk);
	free(
	    kernel.ring); /* with all of the engine, of which it is the first */
	free(kernel.pool != NULL ? kernel.pool : kernel.buffers);
	kernel.pool = NULL;
	close(kernel.fd[0]);
	close(kernel.fd[1]);
	blk = NULL;
}

/*
 * The process is gone; what the kernel had of it is done or not.
 */
static void
bury(void)
{
	for (unsigned i = 0; i < kernel.nops; i++)
		if (kill_bits >> (i % 32) & 1)
			transfer(&kernel.op[i], UINT64_MAX);
	active = true;
	check_memory();
	free(dev);
	close_disk();
	guest_unmap_all(&guest);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct owed *o = &drv.owed[i];

		o->forgotten += o->errors + o->again;
		o->errors = o->again = 0;
	}
	io.adopted = true;
}

static void
nothing_left(void)
{
	CHECK(kernel.nops == 0 && device_idle(dev),
	    "in flight when it may not be");
	forget_owed();
}

/*
 * The register that is not 0 while the queue is ready.
 */
static uint32_t
ready_register(void)
{
	return legacy ? VIRTIO_MMIO_QUEUE_PFN : VIRTIO_MMIO_QUEUE_READY;
}

/*
 * What the device says of its cache.
 */
static uint64_t
read_cache(void)
{
	struct access r = {.kind = ACCESS_READ, .offset = WCE, .size = 1};

	device_access(dev, &r);
	drv.cached = r.data;
	return r.data;
}

/*
 * What it means for writes that the driver has changed 'writeback'.
 */
static void
reflect_cache(const struct access *a)
{
	bool was = drv.cached;
	uint64_t says = read_cache();

	drv.chosen |= !drv.cached;
	if (!drv.live || !drv.clean)
		return;
	CHECK(says == (HAS(drv.features, VIRTIO_BLK_F_CONFIG_WCE)
			      ? (a->data & 0xff) != 0
			      : was),
	    "a cache that the driver did not choose");
	CHECK(drv.cached || !was || !kernel.dirty || read_only,
	    "a cache that is given up with writes in it");
}

/*
 * A driver that cannot flush has no cache, and one that cannot choose has one; of
 * others the last one's choice may be left.
 */
static void
look_at_cache(void)
{
	read_cache();
	CHECK(drv.cached == HAS(drv.features, VIRTIO_BLK_F_FLUSH) ||
		  (drv.chosen && !drv.cached &&
		      HAS(drv.features, VIRTIO_BLK_F_CONFIG_WCE)),
	    "a cache that no driver chose");
}

/*
 * What a register write that was answered means for the used ring.
 */
static void
reflect(const struct access *a)
{
	struct access r = {
	    .kind = ACCESS_READ, .offset = ready_register(), .size = 4};
	uint32_t v = a->data;

	if (a->kind == ACCESS_WRITE && a->offset == WCE)
		reflect_cache(a);
	if (a->kind != ACCESS_WRITE || a->size != 4)
		return;
	check_memory(); /* by the rules so far */
	if (a->offset == VIRTIO_MMIO_STATUS && v == 0) {
		nothing_left();
		memset(&mirror, 0, sizeof(mirror));
	} else if (a->offset == VIRTIO_MMIO_QUEUE_SEL) {
		mirror.sel = v;
	} else if (a->offset == VIRTIO_MMIO_GUEST_PAGE_SIZE) {
		page_size = v;
	} else if (mirror.sel != 0) {
		return;
	} else if (a->offset == VIRTIO_MMIO_QUEUE_ALIGN) {
		alignment = v;
	} else if (a->offset == ready_register()) {
		if (legacy && !mirror.ready)
			mirror.used = ((uint64_t)v * page_size +
					  18 * mirror.num + 6 + alignment - 1) &
				      -(uint64_t)alignment;
		device_access(dev, &r);
		mirror.ready = r.data;
		if (!mirror.ready)
			nothing_left();
	} else if (mirror.ready) {
		return;
	} else if (a->offset == VIRTIO_MMIO_QUEUE_NUM) {
		mirror.num = v;
	} else if (legacy) {
		return;
	} else if (a->offset == VIRTIO_MMIO_QUEUE_USED_LOW) {
		mirror.used = (mirror.used & ~UINT64_C(0xffffffff)) | v;
	} else if (a->offset == VIRTIO_MMIO_QUEUE_USED_HIGH) {
		mirror.used = (uint32_t)mirror.used | (uint64_t)v << 32;
	}
}

/*
 * As in vdisk.c.
 */
static bool
serve(struct access *a)
{
	bool done;

	if (a->kind == ACCESS_INVALIDATE) {
		if (guest_mapped(&guest) == 0)
			return true;
		if (!device_idle(dev))
			return false;
		CHECK(kernel.nops == 0, "memory goes under an operation");
		guest_unmap_all(&guest);
		return true;
	}
	done = device_access(dev, a);
	if (done) {
		in_device = false;
		reflect(a);
		in_device = true;
	}
	return done;
}

static bool
once_around(void)
{
	bool hold = false, again;
	unsigned most;

	in_device = true;
	event = io.pending = false;
	for (unsigned i = 0; i < VCPUS; i++) {
		if (waits[i] && serve(&waiting[i]))
			waits[i] = false;
		hold |= waits[i];
	}
	lookups = 0;
	again = device_process_queue(dev, hold) ||
		(!hold && device_enable_notify(dev));
	device_expected_event(dev);
	if (hold && device_idle(dev))
		again = true;
	in_device = false;
	/* Per chain: rings, an indirect table, each of two tables' buffers. */
	most = (prog_len + VIRTQUEUE_NUM_MAX) * 8;
	if (mirror.ready)
		most += (prog_len + mirror.num) * (mirror.num + 256);
	CHECK(lookups <= most, "more lookups than a queue warrants");
	return again;
}

/*
 * The loop of vdisk.c, until it would sleep.
 */
static void
come_to_rest(void)
{
	unsigned rounds = 0;

	while (once_around() || event)
		CHECK(rounds++ < ROUNDS + prog_len,
		    "the loop does not come to rest");
}

static void
loop(void)
{
	if (setjmp(killed) != 0) {
		killable = false;
		bury();
		open_device();
	}
	killable = true;
	come_to_rest();
	killable = false;
	check_memory();
}

/* The driver. */

static bool
begin(unsigned vcpu, enum access_kind kind, uint32_t offset, uint32_t size,
    uint64_t data)
{
	if (waits[vcpu])
		return false;
	waiting[vcpu] = (struct access){.kind = kind,
	    .vcpu = vcpu,
	    .offset = offset,
	    .size = size,
	    .data = size == 8 ? data : data & ((UINT64_C(1) << 8 * size) - 1)};
	waits[vcpu] = event = io.pending = true;
	return true;
}

static bool
anybody_waits(void)
{
	bool any = false;

	for (unsigned i = 0; i < VCPUS; i++)
		any |= waits[i];
	return any;
}

/*
 * Whether the loop has to go around, if only because of what the kernel did not
 * take and is offered again after a second.
 */
static bool
anything_to_do(void)
{
	return kernel.nops > 0 || kernel.cq_head != kernel.cq_tail ||
	       kernel.left || anybody_waits();
}

/*
 * Everything that the kernel has comes to a good end.
 */
static void
complete_all(void)
{
	kernel.errors = 0;
	for (unsigned n = 0; anything_to_do(); n++) {
		CHECK(n < MAX_ROUNDS, "accesses that are not answered");
		while (kernel.nops > 0)
			complete(0, 0, 0);
		loop();
	}
}

static uint32_t
rd(uint32_t offset)
{
	if (waits[0])
		complete_all();
	begin(0, ACCESS_READ, offset, 4, 0);
	loop();
	CHECK(!waits[0], "a read that waits");
	return waiting[0].data;
}

static void
wr(uint32_t offset, uint32_t data)
{
	if (waits[0])
		complete_all();
	begin(0, ACCESS_WRITE, offset, 4, data);
	loop();
	if (waits[0])
		complete_all();
}

static void
wr_address(uint32_t low, uint64_t gpa)
{
	wr(low, gpa);
	wr(low + 4, gpa >> 32);
}

static uint64_t
wanted(unsigned a)
{
	return FEATURE(VIRTIO_F_VERSION_1) |
	       (uint64_t)granted << VIRTIO_F_ACCESS_PLATFORM |
	       (uint64_t)(a & !granted) << VIRTIO_RING_F_INDIRECT_DESC |
	       (uint64_t)(a >> 1 & 1) << VIRTIO_RING_F_EVENT_IDX |
	       (uint64_t)(a >> 2 & 1) << VIRTIO_BLK_F_FLUSH |
	       (uint64_t)(a >> 4 & 1) << VIRTIO_BLK_F_CONFIG_WCE;
}

/*
 * From whatever there is to an empty queue that works, as 3.1.1 has it.
 */
static void
setup(unsigned a, unsigned b)
{
	static const uint8_t zeros[SLOT_BASE];
	uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	wr(VIRTIO_MMIO_STATUS, 0);
	CHECK(rd(VIRTIO_MMIO_STATUS) == 0, "a status after a reset");
	drv.clean = true;
	memset(guest.hole, 0, sizeof(guest.hole));
	put(RINGS, zeros, sizeof(zeros));
	drv.features = wanted(a);
	drv.cached = HAS(drv.features, VIRTIO_BLK_F_FLUSH);
	/* So that legacy rings are where others are. */
	drv.num = legacy ? VIRTQUEUE_NUM_MAX : 2 << b % 8;
	drv.avail_idx = drv.used_seen = drv.kicked = 0;
	drv.polling = a & 8;
	wr(VIRTIO_MMIO_STATUS, status);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, drv.features);
	wr(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	wr(VIRTIO_MMIO_DRIVER_FEATURES, drv.features >> 32);
	status |= legacy ? 0 : VIRTIO_CONFIG_S_FEATURES_OK;
	wr(VIRTIO_MMIO_STATUS, status);
	wr(VIRTIO_MMIO_QUEUE_SEL, 0);
	wr(VIRTIO_MMIO_QUEUE_NUM, drv.num);
	if (legacy) {
		wr(VIRTIO_MMIO_GUEST_PAGE_SIZE, PAGE);
		wr(VIRTIO_MMIO_QUEUE_ALIGN, USED - AVAIL);
		wr(VIRTIO_MMIO_QUEUE_PFN, (BASE + RINGS) / PAGE);
	} else {
		wr_address(VIRTIO_MMIO_QUEUE_DESC_LOW, BASE + RINGS);
		wr_address(VIRTIO_MMIO_QUEUE_AVAIL_LOW, BASE + AVAIL);
		wr_address(VIRTIO_MMIO_QUEUE_USED_LOW, BASE + USED);
		wr(VIRTIO_MMIO_QUEUE_READY, 1);
	}
	status |= VIRTIO_CONFIG_S_DRIVER_OK;
	wr(VIRTIO_MMIO_STATUS, status);
	memset(later, 0, sizeof(later));
	if (!drv.clean) /* the guest has spoilt it in the meantime */
		return;
	CHECK(rd(VIRTIO_MMIO_STATUS) == status, "a driver that is refused");
	look_at_cache();
	put(RINGS, zeros, sizeof(zeros));
	if (HAS(drv.features, VIRTIO_RING_F_EVENT_IDX) && drv.polling)
		put16(AVAIL + 4 + 2 * drv.num, UINT16_MAX);
	drv.raised = io.raised;
	drv.live = true;
}

static uint64_t
used_event(void)
{
	return AVAIL + 4 + 2 * drv.num;
}

static uint64_t
avail_event(void)
{
	return USED + 4 + 8 * drv.num;
}

static void
kick(bool nested)
{
	bool needed = HAS(drv.features, VIRTIO_RING_F_EVENT_IDX)
			  ? vring_need_event(get(avail_event(), 2),
				drv.avail_idx, drv.kicked)
			  : !(get(USED, 2) & VRING_USED_F_NO_NOTIFY);

	if (!drv.live)
		return;
	if (needed) {
		unsigned i = 1; /* 0 may be in the middle of something */

		while (i < VCPUS &&
		       !begin(i, ACCESS_WRITE, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0))
			i++;
		if (i == VCPUS)
			return; /* no vCPU can; another time */
	}
	drv.kicked = drv.avail_idx;
	if (needed && !nested)
		loop();
}

static const uint32_t piece[] = {DATA_MAX + 64, SECTOR, 16, 100, 1, 7};
static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
static const uint32_t lens[] = {
    SECTOR, 2 * SECTOR, SECTOR, 2 * SECTOR, 0, SECTOR - 1, 20, 1};

/*
 * Cut [gpa, gpa + len) into descriptors from d[n] on; how many there are then.
 */
static unsigned
cut(struct vring_desc *d, unsigned n, uint64_t gpa, uint32_t len, uint32_t size,
    uint16_t flags)
{
	while ((len + size - 1) / size > PIECES / 2 - 1)
		size *= 2;
	for (; len > 0; n++) {
		uint32_t some = MIN(size, len);

		d[n] = (struct vring_desc){
		    .addr = gpa, .len = some, .flags = flags};
		gpa += some;
		len -= some;
	}
	return n;
}

static bool
take_descriptors(struct owed *o, unsigned n)
{
	unsigned i, k = 0;

	for (i = 0; i < drv.num && k < n; i++)
		if (!drv.busy[i])
			o->desc[k++] = i;
	if (k < n)
		return false;
	for (i = 0; i < n; i++)
		drv.busy[o->desc[i]] = true;
	o->ndesc = n;
	o->head = o->desc[0];
	return true;
}

/*
 * Put the chain into memory and make it available.
 */
static void
offer(const struct owed *o, struct vring_desc *d, unsigned n, bool indirect)
{
	uint64_t at = slot_of(o) + SLOT_TABLE;
	struct vring_desc whole = {.addr = BASE + at,
	    .len = n * sizeof(*d),
	    .flags = VRING_DESC_F_INDIRECT};

	for (unsigned i = 0; i < n; i++) {
		if (i + 1 < n) {
			d[i].flags |= VRING_DESC_F_NEXT;
			d[i].next = indirect ? i + 1 : o->desc[i + 1];
		}
		put(indirect ? at + i * sizeof(*d)
			     : RINGS + o->desc[i] * sizeof(*d),
		    &d[i], sizeof(*d));
	}
	if (indirect)
		put(RINGS + o->head * sizeof(*d), &whole, sizeof(whole));
	put16(AVAIL + 4 + 2 * (drv.avail_idx % drv.num), o->head);
	put16(AVAIL + 2, ++drv.avail_idx);
}

/*
 * The ranges of a request, which are all the same, as many as fit.
 */
static void
put_ranges(const struct owed *o)
{
	struct virtio_blk_discard_write_zeroes range = {
	    .sector = o->sector, .num_sectors = o->clear, .flags = o->flags};

	for (uint32_t i = 0; i + sizeof(range) <= o->len; i += sizeof(range))
		put(slot_of(o) + SLOT_DATA + i, &range, sizeof(range));
}

static void
request(const struct op *op)
{
	uint32_t cut1 = piece[(op->b & 7) % 6], cut2 = piece[(op->b >> 3) % 6];
	bool indirect =
	    (op->b & 0x40) && HAS(drv.features, VIRTIO_RING_F_INDIRECT_DESC);
	struct vring_desc d[PIECES];
	struct virtio_blk_outhdr hdr;
	struct owed *o = drv.owed;
	uint64_t base;
	unsigned n;

	while (o < &drv.owed[SLOTS] && o->used)
		o++;
	if (!drv.live || o == &drv.owed[SLOTS])
		return;
	*o = (struct owed){.type = types[op->a & 7], .sector = op->d % 68};
	if (op->c & 0x80) /* beyond all bounds */
		o->sector = UINT64_MAX - op->d % 3;
	if (o->type != VIRTIO_BLK_T_FLUSH)
		o->len = lens[op->a >> 3 & 7];
	if (op->c & 0x40 && is_clearing(o))
		o->type = UINT32_MAX;
	if (is_clearing(o)) {
		o->clear = op->d % 5;
		o->flags = op->b & 0x80 ? op->c & 3 : 0;
	}
	o->status = slot_of(o) + SLOT_DATA + o->len;
	hdr = (struct virtio_blk_outhdr){.type = o->type, .sector = o->sector};
	base = BASE + slot_of(o);
	if (o->type == VIRTIO_BLK_T_OUT || is_clearing(o)) {
		n = cut(d, 0, base, SLOT_DATA + o->len, cut1, 0);
		n = cut(d, n, BASE + o->status, 1, 1, VRING_DESC_F_WRITE);
	} else {
		o->room = o->len;
		n = cut(d, 0, base, SLOT_DATA, cut1, 0);
		n = cut(d, n, base + SLOT_DATA, o->len + 1, cut2,
		    VRING_DESC_F_WRITE);
	}
	if (!take_descriptors(o, indirect ? 1 : n))
		return;
	put(slot_of(o), &hdr, sizeof(hdr));
	for (uint32_t i = 0; i < o->len; i += 4)
		put(slot_of(o) + SLOT_DATA + i, &op->d, MIN(4, o->len - i));
	if (is_clearing(o))
		put_ranges(o);
	put(o->status, "\xee", 1);
	offer(o, d, n, indirect);
	o->hopeless = flush_failed();
	o->used = true;
	drv.last = o - drv.owed;
}

/*
 * The status of a request that clears ranges, if nothing goes wrong.
 */
static uint8_t
clear_status(const struct owed *o)
{
	bool discard = o->type == VIRTIO_BLK_T_DISCARD;

	if (read_only)
		return VIRTIO_BLK_S_UNSUPP;
	if (o->len % 16 != 0 || o->len > 16 * BLK_RANGES)
		return VIRTIO_BLK_S_IOERR;
	if (o->len > 0 && (o->flags > 1 || (discard && o->flags != 0)))
		return VIRTIO_BLK_S_UNSUPP;
	if (o->len > 0 &&
	    (o->sector > SECTORS || o->sector + o->clear > SECTORS))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/*
 * The device has returned the request, with 'len'.
 */
static void
returned(struct owed *o, uint32_t len)
{
	bool moves = o->type == VIRTIO_BLK_T_IN || o->type == VIRTIO_BLK_T_OUT;
	uint8_t status = get(o->status, 1), good = VIRTIO_BLK_S_OK;

	if (is_clearing(o))
		good = o->refused && status == VIRTIO_BLK_S_UNSUPP
			   ? status
			   : clear_status(o);
	else if (!moves && o->type != VIRTIO_BLK_T_FLUSH &&
		 o->type != VIRTIO_BLK_T_GET_ID)
		good = VIRTIO_BLK_S_UNSUPP;
	if (moves && (o->len % SECTOR != 0 || o->sector > SECTORS ||
			 o->sector + o->len / SECTOR > SECTORS ||
			 (o->type == VIRTIO_BLK_T_OUT && read_only)))
		good = VIRTIO_BLK_S_IOERR;
	/* Once one has failed, no flush is good. */
	if (good == VIRTIO_BLK_S_OK && flush_failed() && !read_only &&
	    (o->type == VIRTIO_BLK_T_FLUSH || o->through || is_clearing(o))) {
		o->doubtful = true;
		CHECK(!o->hopeless || (is_clearing(o) && !o->through) ||
			  status == VIRTIO_BLK_S_IOERR,
		    "a flush after one that failed");
	}
	if (o->errors > 0)
		CHECK(status == VIRTIO_BLK_S_IOERR, "an error called success");
	else if (o->forgotten == 0 && o->again < 16 && !o->doubtful)
		CHECK(status == good, "a wrong status");
	CHECK(status == good || status == VIRTIO_BLK_S_IOERR, "no status");
	if (status == VIRTIO_BLK_S_OK && o->type == VIRTIO_BLK_T_FLUSH)
		CHECK(o->flushed || read_only, "a flush that was none");
	if (status == VIRTIO_BLK_S_OK && o->type == VIRTIO_BLK_T_OUT &&
	    o->through)
		CHECK(o->flushed, "a write that is not stable");
	if (status == VIRTIO_BLK_S_OK && is_clearing(o) &&
	    (o->through ||
		!(drv.features & (FEATURE(VIRTIO_BLK_F_FLUSH) |
				     FEATURE(VIRTIO_BLK_F_CONFIG_WCE)))))
		CHECK(o->flushed, "a range cleared that is not stable");
	if (status == VIRTIO_BLK_S_OK && o->type == VIRTIO_BLK_T_IN) {
		CHECK(len == o->len + 1, "a wrong length read");
		CHECK(holds(slot_of(o) + SLOT_DATA, o->read, o->len),
		    "other data than the disk's");
	}
	CHECK(len <= o->room + 1, "more written than there is room");
	memset(permit + (o->status - o->room), 0, o->room + 1);
	for (unsigned i = 0; i < o->ndesc; i++)
		drv.busy[o->desc[i]] = false;
	o->used = false;
}

static void
take(void)
{
	uint16_t idx = get(USED + 2, 2);

	for (; drv.used_seen != idx; drv.used_seen++) {
		uint64_t at = USED + 4 + 8 * (drv.used_seen % drv.num);
		struct owed *o = owed_by_head(get(at, 4));

		CHECK(o != NULL, "a chain returned that was not made");
		returned(o, get(at + 4, 4));
	}
}

/*
 * Take what there is and say when to be interrupted next, until there is
 * nothing.
 */
static void
take_all(void)
{
	do {
		take();
		if (!HAS(drv.features, VIRTIO_RING_F_EVENT_IDX))
			put16(AVAIL,
			    drv.polling ? VRING_AVAIL_F_NO_INTERRUPT : 0);
		else if (!drv.polling)
			put16(used_event(), drv.used_seen);
	} while (get(USED + 2, 2) != drv.used_seen);
}

static void
interrupt(bool look)
{
	uint32_t cause = 0;

	if (io.raised != drv.raised) {
		drv.raised = io.raised;
		cause = rd(VIRTIO_MMIO_INTERRUPT_STATUS);
		wr(VIRTIO_MMIO_INTERRUPT_ACK, cause);
	}
	/* Linux says "not mine" without that, and looks no further. */
	if (!look && !(cause & VIRTIO_MMIO_INT_VRING))
		return;
	if (drv.live && drv.clean)
		take_all();
}

static bool
anything_owed(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (drv.owed[i].used)
			return true;
	return false;
}

/*
 * The disk does its work.  A driver that behaved, that notifies only when asked
 * to and looks only when interrupted, gets everything.
 */
static void
drain(void)
{
	bool more = true;

	kill_at = 0;
	memset(later, 0, sizeof(later));
	if (!drv.clean || !drv.live) {
		complete_all();
		return;
	}
	drv.polling = false;
	take_all();
	for (unsigned n = 0; more; n++) {
		CHECK(n < MAX_ROUNDS, "work without end");
		kick(false);
		complete_all();
		more = io.raised != drv.raised ||
		       (drv.live && drv.kicked != drv.avail_idx);
		interrupt(false);
	}
	CHECK(!anything_owed(), "a request that never came back");
	/* It may have been reset meanwhile. */
	CHECK(!(rd(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET),
	    "a fault of a driver that did nothing wrong");
}

/* Operations. */

/*
 * Somewhere in memory that matters.
 */
static uint64_t
place(const struct op *op)
{
	switch (op->a % 6) {
	case 0:
		return RINGS + op->b % 16 * 16 + op->c % 16;
	case 1:
		return AVAIL + op->b % 24;
	case 2:
		return USED + op->b % 64;
	case 3:
		return SLOT_BASE + drv.last * SLOT_SIZE + op->b;
	case 4:
		return SLOT_BASE + drv.last * SLOT_SIZE + SLOT_TABLE + op->b;
	default:
		return (op->b << 8 | op->c) % MEMORY;
	}
}

static const uint32_t offsets[] = {VIRTIO_MMIO_STATUS, VIRTIO_MMIO_QUEUE_READY,
    VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_DESC_LOW,
    VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW,
    VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_MMIO_INTERRUPT_ACK,
    VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_GUEST_PAGE_SIZE,
    VIRTIO_MMIO_QUEUE_ALIGN, VIRTIO_MMIO_QUEUE_PFN, WCE};

static void
any_access(const struct op *op)
{
	bool odd = op->a & 0x80, write = op->a & 0x40;
	unsigned n = sizeof(offsets) / sizeof(offsets[0]);
	uint32_t size = odd ? 1u << (op->c & 3) : 4;
	uint32_t offset =
	    op->b & 0x80 ? offsets[(op->b & 31) % n] : (op->b & 0x7f) << 2;
	uint64_t data = op->d;

	if (odd)
		offset += op->c >> 2 & 3;
	if (offset > VIRTIO_MMIO_SIZE - size)
		offset = VIRTIO_MMIO_SIZE - size;
	if (op->c & 0x80) /* an address */
		data = BASE + op->d % (MEMORY + 16);
	if (op->c & 0x40)
		data &= 0xff;
	if (write)
		drv.clean = false;
	begin(op->a % VCPUS, write ? ACCESS_WRITE : ACCESS_READ, offset, size,
	    data | (uint64_t)op->d << 32);
	loop();
}

static void
spoil(const struct op *op)
{
	static const uint8_t field[] = {0, 8, 12, 14, 4, 10, 13, 15};
	const struct owed *o = &drv.owed[drv.last];
	uint64_t at = RINGS + o->desc[op->a % MAX(o->ndesc, 1)] * 16;

	drv.clean = false;
	if (op->b & 0x80) /* of its indirect table, if it has one */
		at = slot_of(o) + SLOT_TABLE + op->a % PIECES * 16;
	put(at + field[op->b & 7], &op->d, 1 + op->c % 4);
}

/*
 * Mostly within what comes of one request, sometimes after many.
 */
static unsigned
soon(const struct op *op)
{
	return op->b & 1 ? op->a << (op->b >> 1 & 3) : op->a % 64;
}

static void
do_later(const struct op *op)
{
	for (unsigned i = 0; i < LATERS; i++) {
		if (later[i].at != 0)
			continue;
		later[i] = (struct later){.at = ticks + 1 + soon(op),
		    .op = op + 1,
		    .n = MIN(1 + op->c % 4u, prog_len - prog_at - 1)};
		prog_at += later[i].n;
		return;
	}
}

/*
 * It is started again on another disk, or on a state that was damaged: it may
 * refuse, and is right to.  Then everything is as after a reset.
 */
static void
start_unfit(const struct op *op)
{
	off_t size = sizeof(disk) + TAIL;

	bury();
	if (op->a % 4 == 0)
		read_only = !read_only;
	else if (op->a % 4 == 1)
		size -= 2 * SECTOR;
	else
		((uint8_t *)io.state)[op->d % sizeof(io.state)] ^= 1 + op->b;
	CHECK(ftruncate(disk_file, size) == 0, "no file");
	blk = open_disk();
	CHECK(blk != NULL, "no disk");
	opens++;
	/* A damaged state may have another used ring. */
	memcpy(&mirror.used, (const uint8_t *)io.state + 88, 8);
	memcpy(&mirror.num, (const uint8_t *)io.state + 96, 4);
	mirror.ready = ((const uint8_t *)io.state)[100];
	in_device = true;
	dev = device_open(&lg.logger, &io, &guest, blk, legacy);
	in_device = false;
	if (op->a % 4 < 2 && drv.live)
		CHECK(dev == NULL, "another disk is taken for the same");
	free(dev);
	close_disk();
	if (op->a % 4 == 0)
		read_only = !read_only;
	CHECK(ftruncate(disk_file, sizeof(disk) + TAIL) == 0, "no file");
	active = true;
	check_memory();
	memset(&io.state, 0, sizeof(io.state));
	memset(&mirror, 0, sizeof(mirror));
	memset(waits, 0, sizeof(waits));
	forget_owed();
	io.adopted = false;
	open_device();
}

static void
kill_it(const struct op *op)
{
	kill_bits = op->d;
	if ((op->c & 6) == 6) {
		start_unfit(op);
	} else if (op->c & 1) { /* now */
		kill_at = 0;
		bury();
		open_device();
		loop();
	} else {
		kill_at = ticks + 1 + soon(op);
	}
}

/*
 * What can happen at any moment, 'nested' in what the device does.
 */
static bool
run_anytime(const struct op *op, bool nested)
{
	switch ((enum code)(op->code % CODES)) {
	case REQUEST:
		request(op);
		if (op->c & 1)
			kick(nested);
		return true;
	case NOTIFY:
		begin(1 + op->a % (VCPUS - 1), ACCESS_WRITE,
		    VIRTIO_MMIO_QUEUE_NOTIFY, 4, op->d);
		if (!nested)
			loop();
		return true;
	case COMPLETE:
		if (kernel.nops > 0)
			complete(op->a % kernel.nops, op->b & 7, op->d);
		if (!nested && (op->c & 1))
			loop();
		return true;
	case WRITE:
		drv.clean = false;
		put(place(op), &op->d, 1 + op->c % 4);
		return true;
	case HOLE:
		drv.clean = false;
		guest.hole[op->a % (MEMORY / PAGE)] = op->b & 1;
		return true;
	case BREAK:
		spoil(op);
		return true;
	default:
		return false;
	}
}

/*
 * Somebody asks what was done, or has made the disk smaller and larger again.
 */
static void
tell(const struct op *op)
{
	off_t size = sizeof(disk) + TAIL;

	in_device = true;
	if (op->a & 1)
		device_log_stats(dev);
	for (unsigned i = 0; i < 2 && (op->a & 2); i++) {
		size += i == 0 ? -SECTOR : SECTOR;
		CHECK(ftruncate(disk_file, size) == 0, "no file");
		device_resize(dev);
	}
	in_device = false;
	told++;
}

static void
run_op(const struct op *op, bool nested)
{
	static const int submit_errors[] = {EINTR, EAGAIN, EBUSY, 0};

	if (run_anytime(op, nested) || nested)
		return;
	switch ((enum code)(op->code % CODES)) {
	case SETUP:
		setup(op->a, op->b);
		break;
	case ACCESS:
		any_access(op);
		break;
	case TAKE:
		if (drv.clean)
			drv.polling = op->a & 2;
		interrupt(op->a & 1);
		break;
	case INVALIDATE:
		begin(op->a % VCPUS, ACCESS_INVALIDATE, 0, 4, UINT64_MAX);
		loop();
		break;
	case RESET:
		if (op->b & 2)
			begin(op->a % VCPUS, ACCESS_WRITE, WCE, 1, op->b & 4);
		else
			begin(op->a % VCPUS, ACCESS_WRITE,
			    op->b & 1 ? ready_register() : VIRTIO_MMIO_STATUS,
			    4, 0);
		loop();
		break;
	case KILL:
		kill_it(op);
		break;
	case DRAIN:
		drain();
		tell(op);
		break;
	case LATER:
		do_later(op);
		break;
	default: /* SUBMIT */
		kernel.error = submit_errors[op->a & 3];
		kernel.errors = 1 + op->b % 4;
		kernel.take = op->c % 3;
	}
}

static void
open_world(void)
{
	guest.memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(guest.memory != MAP_FAILED, "out of memory");
	disk_file = memfd_create("fuzz", MFD_CLOEXEC);
	CHECK(ftruncate(disk_file, sizeof(disk) + TAIL) == 0, "no file");
	snprintf(disk_path, sizeof(disk_path), "/proc/self/fd/%d", disk_file);
}

/*
 * Files in memory have direct I/O since Linux 6.6.
 */
static bool
wants_direct(void)
{
	static int can = -1;
	int fd;

	if (can < 0) {
		fd = open(disk_path, O_RDONLY | O_DIRECT | O_CLOEXEC);
		can = fd >= 0;
		close(fd);
	}
	return can && (prog[0].c & 8);
}

static bool
wants_grants(void)
{
	return (prog[0].c & 16) && !(prog[0].c & 4);
}

static void
clear_world(void)
{
	static const struct op none;

	if (guest.memory == NULL)
		open_world();
	ASAN_UNPOISON_MEMORY_REGION(guest.memory, MEMORY);
	memset(guest.memory, 0, MEMORY);
	ASAN_POISON_MEMORY_REGION(guest.memory, MEMORY);
	memset(guest.hole, 0, sizeof(guest.hole));
	memset(shadow, 0, sizeof(shadow));
	memset(permit, 0, sizeof(permit));
	for (size_t i = 0; i < sizeof(disk); i++)
		disk[i] = i * 31 >> 5;
	memset(&drv, 0, sizeof(drv));
	memset(&mirror, 0, sizeof(mirror));
	memset(&io, 0, sizeof(io));
	memset(waits, 0, sizeof(waits));
	memset(later, 0, sizeof(later));
	memset(&seen, 0, sizeof(seen));
	tables = 0;
	ticks = kill_at = opens = told = 0;
	in_device = in_tick = killable = active = false;
	prog[0] = none;
	fake_log_init(&lg);
	began = time(NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	clear_world();
	prog_len = MIN(size / sizeof(struct op), OPS_MAX);
	memcpy(prog, data, prog_len * sizeof(struct op));
	prog_at = 0;
	/* To open a disk costs as much as to use it: keep it if possible. */
	if (blk != NULL &&
	    (read_only != (prog[0].c & 1) || direct != wants_direct() ||
		granted != wants_grants()))
		close_disk();
	read_only = prog[0].c & 1;
	direct = wants_direct();
	granted = wants_grants();
	legacy = prog[0].c & 4;
	page_size = alignment = 0;
	open_device();
	if (!(prog[0].c & 2))
		setup(prog[0].a, prog[0].b);
	for (prog_at = 1; prog_at < prog_len; prog_at++)
		run_op(&prog[prog_at], false);
	drain();
	/* Per opening: the odd size of the file, and that it was continued. */
	CHECK(lg.lines <= opens * (2 + 2 * (2 + time(NULL) - began)) + told * 5,
	    "a log without bound");
	CHECK(lseek(disk_file, 0, SEEK_END) == sizeof(disk) + TAIL,
	    "the file has another size");
	CHECK(device_idle(dev), "the device does not come to rest");
	free(dev);
	return 0;
}
