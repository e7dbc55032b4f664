/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Traces recorded on real Xen, replayed: the shipped objects together, on the
 * fake host, are fed with what a real guest did and must answer what vdisk
 * answered then, with the same interrupts.
 *
 * The disk's timing is not the same, so the test decides when the device learns
 * of completions: in the batches and the order that the trace has them.  Then
 * nothing is left to chance, and all of the answers are compared.
 *
 * The recorder depends on how vdisk's loop makes its calls.  So a toy guest is
 * recorded here, too, beside the unmodified program, and replayed.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "blk.h"
#include "cases.h"
#include "child.h"
#include "device.h"
#include "disk.h"
#include "driver.h"
#include "fake_log.h"
#include "fake_xen.h"
#include "guest.h"
#include "ioreq.h"
#include "load.h"
#include "trace.h"
#include "virtio_mmio.h"

#define DOMID 1
#define JUNK  0xa5 /* what the device has not written */

/* The traces, and what is known of each. */
static const struct {
	const char *name;
	unsigned reads, writes, flushes, ids; /* at least */
	unsigned starts; /* how often a driver took the device */
	bool read_only, legacy;
} traces[] = {
    {"files", 50, 50, 1, 1, 1, false, false},
    {"unbind", 20, 20, 1, 0, 2, false, false},
    {"read-only", 10, 0, 0, 0, 1, true, false},
    {"legacy", 20, 20, 1, 0, 2, false, true},
    {"level", 20, 20, 1, 0, 1, false, false},
    {"edge", 20, 20, 1, 0, 1, false, false},
    {"linux-6.1", 20, 20, 1, 0, 1, false, false},
    {"linux-6.1-legacy", 20, 20, 1, 0, 1, false, true},
    {"linux-7.3", 20, 20, 1, 0, 1, false, false},
    {"linux-7.3-legacy", 20, 20, 1, 0, 1, false, true},
    {"linux-6.12-16k", 20, 20, 1, 0, 1, false, false},
    {"linux-6.12-16k-legacy", 20, 20, 1, 0, 1, false, true},
    {"uboot", 10, 3, 0, 0, 1, false, false},
};

/* Requests that the disk has finished and the device does not know of yet. */
static struct blk_req *held[BLK_REQS];
static unsigned nheld;
static unsigned nreleased; /* of r.returns, the device may learn of so many */
static unsigned raised;
static int patience = 20; /* seconds */

/* A replay. */
static struct {
	struct trace t;
	char *why;
	size_t why_size;
	struct fake_log log;
	struct blk *blk;
	struct guest *guest;
	struct ioreq_server *io;
	struct device *dev;

	/* The driver's side, from what it wrote. */
	uint64_t desc, driver, device;
	uint32_t page_size, align; /* of version 1 */
	uint32_t num, status, features, features_sel;
	bool ready;
	uint16_t avail, used;
	const struct trace_event *chain[TRACE_HEADS];
	const struct trace_event *returns[TRACE_HEADS];
	unsigned nreturns;
	unsigned expected; /* interrupts, until now */
	bool early;	   /* the next one of the trace has been raised */
	bool lowered;	   /* the interrupt line must be down */
	unsigned waiting;  /* accesses deferred */
} r;

/*
 * The seam below the device.
 */

struct blk_req *__real_blk_reap(struct blk *blk);
struct blk_req *__wrap_blk_reap(struct blk *blk);
uint64_t __real_blk_features(const struct blk *blk);
uint64_t __wrap_blk_features(const struct blk *blk);
unsigned __real_blk_inflight(const struct blk *blk);
unsigned __wrap_blk_inflight(const struct blk *blk);
bool __real_ioreq_interrupt(struct ioreq_server *io, unsigned level);
bool __wrap_ioreq_interrupt(struct ioreq_server *io, unsigned level);

static struct blk_req **
find_held(uint16_t head)
{
	unsigned i;

	for (i = 0; i < nheld; i++)
		if (held[i]->head == head)
			return &held[i];
	return NULL;
}

struct blk_req *
__wrap_blk_reap(struct blk *blk)
{
	struct blk_req *req, **at;
	unsigned i;

	while ((req = __real_blk_reap(blk)) != NULL)
		held[nheld++] = req;
	/* All of the batch, or none of it yet. */
	for (i = 0; i < nreleased; i++)
		if (find_held(r.returns[i]->head) == NULL)
			return NULL;
	if (nreleased == 0)
		return NULL;
	at = find_held(r.returns[0]->head);
	req = *at;
	*at = held[--nheld];
	nreleased--;
	memmove(r.returns, r.returns + 1, nreleased * sizeof(r.returns[0]));
	return req;
}

unsigned
__wrap_blk_inflight(const struct blk *blk)
{
	return __real_blk_inflight(blk) + nheld;
}

bool
__wrap_ioreq_interrupt(struct ioreq_server *io, unsigned level)
{
	raised += level;
	return __real_ioreq_interrupt(io, level);
}

/*
 * Of the disk's features, those that were offered when the trace was recorded:
 * what vdisk has learnt since then, that driver was not told of.
 */
static uint64_t
recorded_features(void)
{
	const struct trace_event *e;
	uint64_t features = 0;
	unsigned sel = 0;
	size_t i;

	for (i = 0; i < r.t.events; i++) {
		e = &r.t.event[i];
		if (e->kind == TRACE_WRITE &&
		    e->offset == VIRTIO_MMIO_DEVICE_FEATURES_SEL)
			sel = e->value;
		if (e->kind == TRACE_READ &&
		    e->offset == VIRTIO_MMIO_DEVICE_FEATURES && sel < 2)
			features |= e->value << 32 * sel;
	}
	return features;
}

uint64_t
__wrap_blk_features(const struct blk *blk)
{
	return __real_blk_features(blk) & recorded_features();
}

/*
 * The replay goes another way than the trace.
 */
static bool __attribute__((format(printf, 2, 3)))
differs(const struct trace_event *e, const char *format, ...)
{
	int n = snprintf(r.why, r.why_size, "line %u: ", e->line);
	va_list ap;

	va_start(ap, format);
	vsnprintf(r.why + n, r.why_size - n, format, ap);
	va_end(ap);
	return false;
}

/*
 * The disk, with the contents that it must have had.
 */
static int
make_disk(const struct trace *t)
{
	int fd = memfd_create("disk", 0);
	uint8_t sector[TRACE_SECTOR];
	uint64_t i;

	ck_assert_int_ne(fd, -1);
	ck_assert_int_eq(ftruncate(fd, t->sectors * TRACE_SECTOR), 0);
	for (i = 0; i < t->sectors; i++) {
		if (t->initial[i] == 0)
			continue;
		if (t->initial[i] == TRACE_UNKNOWN)
			memset(sector, JUNK, sizeof(sector));
		else
			trace_sector(t->initial[i], sector);
		ck_assert_int_eq(
		    pwrite(fd, sector, sizeof(sector), i * TRACE_SECTOR),
		    sizeof(sector));
	}
	return fd;
}

static void
open_device(void)
{
	const struct ioreq_config config = {
	    .domid = DOMID,
	    .irq = atoi(IRQ),
	    .base = BASE,
	    .size = VIRTIO_MMIO_SIZE,
	    .state_size = VIRTIO_MMIO_STATE_SIZE,
	    .state_version = VIRTIO_MMIO_STATE_VERSION,
	};
	char path[32];
	int fd = make_disk(&r.t);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fake_log_init(&r.log);
	/* Whole MiB, and not nothing. */
	fake_xen_start(
	    DOMID, r.t.vcpus, (r.t.memory + (1 << 20)) >> 20 << 20, 0);
	r.blk = blk_open(&r.log.logger, path,
	    r.t.read_only ? DISK_READ_ONLY : 0, r.t.serial, NULL);
	ck_assert_msg(r.blk != NULL, "%s", r.log.last);
	close(fd);
	r.guest = guest_open(&r.log.logger, DOMID, GUEST_LIMIT_DEFAULT, NULL);
	ck_assert_msg(r.guest != NULL, "%s", r.log.last);
	r.io = ioreq_open(&r.log.logger, &config);
	ck_assert_msg(r.io != NULL, "%s", r.log.last);
	r.dev = device_open(&r.log.logger, r.io, r.guest, r.blk, r.t.legacy);
	ck_assert_ptr_nonnull(r.dev);
}

/*
 * Once around the loop of vdisk.c, without sleeping.  True: again, at once.
 */
static bool
step(void)
{
	struct pollfd fd = {.fd = ioreq_fd(r.io), .events = POLLIN};
	struct access a;
	bool hold = false, done;

	while (poll(&fd, 1, 0) == 1)
		ck_assert(ioreq_ack_event(r.io));
	while (ioreq_next(r.io, &a)) {
		if (a.kind != ACCESS_INVALIDATE)
			done = device_access(r.dev, &a);
		else if ((done = device_idle(r.dev)))
			guest_unmap_all(r.guest);
		if (done)
			ioreq_complete(r.io, &a);
		else
			hold = true;
	}
	return device_process_queue(r.dev, hold) ||
	       (!hold && device_enable_notify(r.dev));
}

static void
settle(void)
{
	unsigned i;

	for (i = 0; i < 1000 && step(); i++)
		;
}

/*
 * The rings, as the driver has them; NULL if there is no such memory.
 */
static void *
ram(uint64_t gpa, uint64_t len)
{
	uint64_t size = (r.t.memory + (1 << 20)) >> 20 << 20;

	if (gpa < FAKE_XEN_LOW || gpa - FAKE_XEN_LOW > size ||
	    len > size - (gpa - FAKE_XEN_LOW))
		return NULL;
	return fake_xen_ram(gpa);
}

static bool
event_idx(void)
{
	return r.features & 1u << VIRTIO_RING_F_EVENT_IDX;
}

static bool
running(void)
{
	return r.ready && (r.status & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
}

static bool
rings(struct vring *ring)
{
	if (r.num == 0 || r.num > TRACE_HEADS)
		return false;
	if (r.desc % 16 != 0 || r.driver % 2 != 0 || r.device % 4 != 0)
		return false;
	ring->num = r.num;
	ring->desc = ram(r.desc, 16 * r.num);
	ring->avail = ram(r.driver, 6 + 2 * r.num);
	ring->used = ram(r.device, 6 + 8 * r.num);
	return ring->desc != NULL && ring->avail != NULL && ring->used != NULL;
}

/*
 * After a turn in which everything was done that there was to do: the device
 * has interrupted as often as it did then, and asks to be notified of the next
 * chain.  An interrupt that was not for returns is in the trace before the
 * access or after the turn that it belongs to, so if that is 'next' it may have
 * been raised already.
 */
static bool
check_rest(const struct trace_event *e, bool next)
{
	struct vring ring;

	if (next && raised == r.expected + 1) {
		r.early = true;
		r.expected++;
	}
	if (raised > r.expected)
		return differs(e, "an interrupt that was not there");
	if (raised < r.expected)
		return differs(e, "an interrupt is missing");
#if defined(__x86_64__)
	if (r.lowered && fake_xen_irq_up())
		return differs(e, "the interrupt line is still up");
#endif
	r.lowered = false;
	if (!running() || !rings(&ring) || r.waiting > 0)
		return true;
	if (event_idx() ? vring_avail_event(&ring) != r.avail
			: ring.used->flags & VRING_USED_F_NO_NOTIFY)
		return differs(e, "the device does not ask for notifications");
	if (ring.used->idx != r.used)
		return differs(e, "a return that was not there");
	return true;
}

static void
set_half(uint64_t *v, bool high, uint32_t half)
{
	uint32_t other = high ? *v : *v >> 32;

	*v = high ? (uint64_t)half << 32 | other : (uint64_t)other << 32 | half;
}

static void
start_queue(bool ready)
{
	r.ready = ready;
	r.avail = r.used = 0;
	memset(r.chain, 0, sizeof(r.chain));
}

/*
 * The rings of version 1 are one after the other (2.7.2, 4.2.4).
 */
static void
place_queue(uint64_t pfn)
{
	r.desc = pfn * r.page_size;
	r.driver = r.desc + 16 * r.num;
	r.device =
	    (r.driver + 6 + 2 * r.num + r.align - 1) & -(uint64_t)r.align;
}

/*
 * What the driver knows by having written it.
 */
static void
learn(uint32_t offset, uint32_t data)
{
	switch (offset) {
	case VIRTIO_MMIO_STATUS:
		r.status = data;
		if (data == 0)
			start_queue(false);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		r.features_sel = data;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		if (r.features_sel == 0)
			r.features = data;
		break;
	case VIRTIO_MMIO_QUEUE_NUM:
		r.num = data;
		break;
	case VIRTIO_MMIO_GUEST_PAGE_SIZE:
		r.page_size = data;
		break;
	case VIRTIO_MMIO_QUEUE_ALIGN:
		r.align = data;
		break;
	case VIRTIO_MMIO_QUEUE_PFN:
		place_queue(data);
		start_queue(data != 0);
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		start_queue(data & 1);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&r.desc, offset & 4, data);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&r.driver, offset & 4, data);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&r.device, offset & 4, data);
		break;
	}
}

/*
 * A driver begins with empty rings (virtio 1.2, 4.2.3.2).
 */
static void
clear_rings(void)
{
	struct vring ring;

	if (!rings(&ring))
		return;
	memset(ring.desc, 0, 16 * r.num);
	memset(ring.avail, 0, 6 + 2 * r.num);
	memset(ring.used, 0, 6 + 8 * r.num);
}

/*
 * A vCPU makes an access, or the one that it waits in is answered.
 */
static bool
replay_access(const struct trace_event *e)
{
	ioreq_t req = {
	    .addr = BASE + e->offset,
	    .data = e->kind == TRACE_WRITE ? e->value : 0,
	    .count = 1,
	    .size = e->size,
	    .dir = e->kind == TRACE_READ ? IOREQ_READ : IOREQ_WRITE,
	    .type = IOREQ_TYPE_COPY,
	};
	uint64_t data;

	if (e->kind == TRACE_INVALIDATE) {
		req.type = IOREQ_TYPE_INVALIDATE;
		req.addr = 0;
		req.data = UINT64_MAX;
	}
	if (e->kind == TRACE_WRITE && e->offset == VIRTIO_MMIO_QUEUE_PFN)
		learn(e->offset, e->value);
	if (e->kind == TRACE_WRITE && e->value != 0 &&
	    (e->offset == VIRTIO_MMIO_QUEUE_READY ||
		e->offset == VIRTIO_MMIO_QUEUE_PFN))
		clear_rings();
	if (!e->waited)
		fake_xen_issue(e->vcpu, &req);
	else
		r.waiting--;
	/* What needs nothing to happen before is answered at once. */
	if (step() || e->deferred)
		settle();
	if (e->deferred) {
		r.waiting++;
		return !fake_xen_answered(e->vcpu, &data) ||
		       differs(e, "answered before it was time");
	}
	if (!fake_xen_answered(e->vcpu, &data))
		return differs(e, "the access is not answered");
	if (e->size < 8)
		data &= (UINT64_C(1) << e->size * 8) - 1;
	if (e->kind == TRACE_READ && data != e->value)
		return differs(e, "register %x reads %llx, then it was %llx",
		    e->offset, (unsigned long long)data,
		    (unsigned long long)e->value);
	if (e->kind == TRACE_WRITE && e->size == 4)
		learn(e->offset, e->value);
	return true;
}

/*
 * Write the chain's descriptors, data, and junk where the device is to write.
 */
static bool
lay_out(const struct trace_event *e, struct vring *ring, const uint8_t *from)
{
	struct vring_desc *table = ring->desc, *v;
	uint32_t num = ring->num;
	unsigned i;

	for (i = 0; i < e->ndesc; i++) {
		const struct trace_desc *d = &e->desc[i];
		uint8_t *to = fake_xen_ram(d->addr);

		if (d->index >= num)
			return differs(e, "descriptor beyond the queue");
		v = &table[d->index];
		v->addr = d->addr;
		v->len = d->len;
		v->flags = d->writable ? VRING_DESC_F_WRITE : 0;
		if (d->indirect) {
			v->flags |= VRING_DESC_F_INDIRECT;
			table = (void *)to;
			num = d->len / sizeof(*v);
			continue;
		}
		if (i + 1 < e->ndesc) {
			v->flags |= VRING_DESC_F_NEXT;
			v->next = e->desc[i + 1].index;
		}
		if (d->writable) {
			memset(to, JUNK, d->len);
		} else {
			memcpy(to, from, d->len);
			from += d->len;
		}
	}
	return true;
}

static bool
replay_chain(const struct trace_event *e)
{
	uint8_t *readable;
	struct vring ring;
	bool done;

	/* What was never taken was too late, and would not be here. */
	if (!e->returned)
		return true;
	if (!running() || !rings(&ring))
		return differs(e, "there is no queue");
	if (e->head >= r.num || (uint16_t)(r.avail - r.used) >= r.num)
		return differs(e, "the queue is smaller");
	readable = malloc(e->readable + 1);
	ck_assert_ptr_nonnull(readable);
	trace_put(&e->header, readable);
	trace_put(&e->data, readable + e->header.len);
	done = lay_out(e, &ring, readable);
	free(readable);
	ring.avail->ring[r.avail++ % r.num] = e->head;
	__atomic_store_n(&ring.avail->idx, r.avail, __ATOMIC_RELEASE);
	r.chain[e->head] = e;
	return done;
}

/*
 * The writable bytes of a chain are as they were then, and where nothing was
 * written nothing is.
 */
static bool
check_data(const struct trace_event *e, const struct trace_event *chain)
{
	uint8_t *got = malloc(chain->writable + 1);
	uint32_t len = 0, room = chain->writable - 1, i;
	bool same;

	ck_assert_ptr_nonnull(got);
	for (i = 0; i < chain->ndesc; i++) {
		const struct trace_desc *d = &chain->desc[i];

		if (!d->writable)
			continue;
		memcpy(got + len, fake_xen_ram(d->addr), d->len);
		len += d->len;
	}
	if (got[room] != e->status)
		same = differs(
		    e, "status %x, then it was %x", got[room], e->status);
	else if (!trace_same(&e->data, got))
		same = differs(e, "the data is not what it was");
	else
		same = true;
	/* What a failed request leaves there is nobody's business. */
	for (i = e->data.len; same && i < room && e->status == 0; i++)
		if (got[i] != JUNK)
			same = differs(e, "more was written than told");
	free(got);
	return same;
}

/*
 * The device learns of the completions of one batch, and returns them.
 */
static bool
replay_publish(const struct trace_event *e)
{
	const struct trace_event *batch[TRACE_HEADS];
	unsigned i, n = r.nreturns;
	time_t begin = time(NULL);
	struct pollfd fd = {.fd = engine_fd(r.blk->engine), .events = POLLIN};
	struct vring ring;

	if (!running() || !rings(&ring))
		return differs(e, "there is no queue");
	memcpy(batch, r.returns, n * sizeof(batch[0]));
	/* If it is not known what the driver wanted: what explains it. */
	if (event_idx())
		vring_used_event(&ring) = e->known ? e->event
					  : e->raised
					      ? (uint16_t)(r.used + n - 1)
					      : (uint16_t)(r.used + n);
	else
		ring.avail->flags = e->known ? e->event : !e->raised;
	settle(); /* what is available is taken, and nothing returned */
	nreleased = n;
	while (step(),
	    __atomic_load_n(&ring.used->idx, __ATOMIC_ACQUIRE) == r.used) {
		if (time(NULL) - begin > patience) {
			nreleased = 0;
			return differs(e, "the requests do not complete");
		}
		poll(&fd, 1, 1);
	}
	for (i = 0; i < n; i++, r.used++) {
		const struct vring_used_elem *u =
		    &ring.used->ring[r.used % r.num];

		if (u->id != batch[i]->head || u->len != batch[i]->len)
			return differs(batch[i],
			    "head %x returned with %x bytes, then it was %x "
			    "with %x",
			    u->id, u->len, batch[i]->head, batch[i]->len);
		if (r.chain[u->id] == NULL)
			return differs(
			    batch[i], "the chain is of a former queue");
		if (!check_data(batch[i], r.chain[u->id]))
			return false;
	}
	r.nreturns = 0;
	settle();
	return true;
}

static bool
replay_event(const struct trace_event *e)
{
	bool next_raises =
	    e + 1 < r.t.event + r.t.events && e[1].kind == TRACE_RAISE;

	switch (e->kind) {
	case TRACE_CHAIN:
		return replay_chain(e);
	case TRACE_USED:
		r.returns[r.nreturns++] = e;
		return true;
	case TRACE_RAISE:
		r.expected += !r.early;
		r.early = false;
		return true;
	case TRACE_LOWER:
		r.lowered = true;
		return true;
	case TRACE_PUBLISH:
		r.expected += e->raised;
		return replay_publish(e) && check_rest(e, next_raises);
	default:
		return replay_access(e) && check_rest(e, next_raises);
	}
}

/*
 * Replay the trace in r.t.  False: the device does something else now; 'why'
 * says what, in one line that begins with "line N:".
 */
static bool
replay(char *why, size_t why_size)
{
	size_t i;

	r.why = why;
	r.why_size = why_size;
	open_device();
	for (i = 0; i < r.t.events; i++)
		if (!replay_event(&r.t.event[i]))
			return false;
	return true;
}

/*
 * The text of a trace.
 */
static char *
load(const char *name, size_t *len)
{
	const char *dir = getenv("TRACES");
	char path[256], *text;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.trace",
	    dir != NULL ? dir : "test/traces", name);
	f = fopen(path, "r");
	ck_assert_msg(f != NULL, "cannot read %s", path);
	fseek(f, 0, SEEK_END);
	*len = ftell(f);
	rewind(f);
	text = calloc(1, *len + 64);
	ck_assert_uint_eq(fread(text, 1, *len, f), *len);
	fclose(f);
	return text;
}

static void
load_and_parse(const char *name, struct trace *t)
{
	char why[256];
	size_t len;
	char *text = load(name, &len);

	ck_assert_msg(trace_parse(t, text, len, why, sizeof(why)),
	    "%s.trace: %s", name, why);
	free(text);
}

START_TEST(a_real_guest_gets_the_answers_and_interrupts_that_it_got_on_real_xen)
{
	char why[256] = "";

	load_and_parse(traces[_i].name, &r.t);
	ck_assert_msg(
	    replay(why, sizeof(why)), "%s.trace: %s", traces[_i].name, why);
	trace_free(&r.t);
}
END_TEST

START_TEST(the_traces_contain_what_they_were_recorded_for)
{
	unsigned count[VIRTIO_BLK_T_GET_ID + 1] = {0}, starts = 0, resets = 0;
	const struct trace_event *e;
	struct trace t;
	size_t i;

	load_and_parse(traces[_i].name, &t);
	for (i = 0; i < t.events; i++) {
		e = &t.event[i];
		if (e->kind == TRACE_CHAIN && e->header.len == 16 &&
		    e->header.bytes[0] <= VIRTIO_BLK_T_GET_ID)
			count[e->header.bytes[0]]++;
		if (e->kind != TRACE_WRITE || e->offset != VIRTIO_MMIO_STATUS)
			continue;
		starts += (e->value & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
		resets += e->value == 0 && starts > 0;
	}
	ck_assert_uint_ge(count[VIRTIO_BLK_T_IN], traces[_i].reads);
	ck_assert_uint_ge(count[VIRTIO_BLK_T_OUT], traces[_i].writes);
	ck_assert_uint_ge(count[VIRTIO_BLK_T_FLUSH], traces[_i].flushes);
	ck_assert_uint_ge(count[VIRTIO_BLK_T_GET_ID], traces[_i].ids);
	ck_assert_uint_ge(starts, traces[_i].starts);
	ck_assert_uint_ge(resets + 1, traces[_i].starts);
	ck_assert_uint_eq(t.read_only, traces[_i].read_only);
	ck_assert_uint_eq(t.legacy, traces[_i].legacy);
	trace_free(&t);
}
END_TEST

/*
 * The recorder, and a toy guest.
 */

static _Noreturn void
become_recorded(const char *mode, int disk, int trace)
{
	char path[32];
	const char *const args[] = {
	    "--no-sandbox", mode, "1", BASE_ARG, IRQ, path, NULL};
	int null = open("/dev/null", O_RDWR);

	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getppid(), trace);
	setenv("VDISK_TRACE", path, 1);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getppid(), disk);
	child_exec(args, "record.so");
}

/*
 * Two lives of a driver, with all kinds of requests.
 */
static void
live(struct driver *d, struct load *load)
{
	unsigned life, i;

	for (life = 0; life < 2; life++) {
		driver_start(
		    d, UINT64_MAX & ~(1ULL << VIRTIO_F_ACCESS_PLATFORM), 64);
		for (i = 0; i < 100; i++) {
			load_any(load);
			if (i % 3 != 0 || i % 7 == 0)
				driver_kick(d);
			if (i % 7 == 0)
				load_some(load);
			if (i % 31 == 0)
				load_poll(load);
		}
		driver_kick(d);
		load_drain(load);
		driver_reset(d);
		load_reset(load);
	}
}

START_TEST(what_a_toy_guest_does_is_recorded_and_can_be_replayed)
{
	const char *mode = _i == 0 ? "--poll=0" : _i == 1 ? "--" : "--legacy";
	int disk = memfd_create("disk", 0), trace = memfd_create("trace", 0);
	char why[256] = "", *text;
	struct driver d;
	struct load load;
	int status, tries;
	size_t len;
	pid_t pid;

	fake_xen_start(DOMID, 2, 32 << 20, 0);
	driver_init(&d, BASE, FAKE_XEN_LOW, 32 << 20);
	d.legacy = _i == 2;
	d.indirect = true;
	load_init(&load, &d, disk, _i);
	pid = child_fork();
	if (pid == 0)
		become_recorded(mode, disk, trace);
	for (tries = 0; fake_xen_server_bound(0) < 2; tries++) {
		ck_assert_int_lt(tries, 20000);
		usleep(1000);
	}
	live(&d, &load);
	kill(pid, SIGTERM);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);

	len = lseek(trace, 0, SEEK_END);
	text = calloc(1, len + 64);
	ck_assert_int_eq(pread(trace, text, len, 0), len);
	ck_assert_msg(
	    trace_parse(&r.t, text, len, why, sizeof(why)), "%s", why);
	ck_assert(r.t.legacy == d.legacy);
	ck_assert_msg(replay(why, sizeof(why)), "%s", why);
	trace_free(&r.t);
	free(text);
}
END_TEST

/*
 * Make a trace tell something else about what the device did, in one event.
 */
enum damage {
	DAMAGED_REGISTER,
	DAMAGED_CONFIG,
	DAMAGED_LENGTH,
	DAMAGED_STATUS,
	DAMAGED_DATA,
	DAMAGED_RAISED,
	DAMAGED_QUIET,
	DAMAGES
};

static bool
damage(struct trace_event *e, enum damage d)
{
	uint32_t *content = (uint32_t *)e->data.content;

	switch (d) {
	case DAMAGED_REGISTER:
		e->value ^= 1;
		return e->kind == TRACE_READ &&
		       e->offset == VIRTIO_MMIO_INTERRUPT_STATUS;
	case DAMAGED_CONFIG:
		e->value ^= 1;
		return e->kind == TRACE_READ && e->offset >= VIRTIO_MMIO_CONFIG;
	case DAMAGED_LENGTH:
		e->len++;
		return e->kind == TRACE_USED;
	case DAMAGED_STATUS:
		e->status ^= 1;
		return e->kind == TRACE_USED;
	case DAMAGED_DATA:
		if (e->kind != TRACE_USED || content == NULL)
			return false;
		content[e->data.len / TRACE_SECTOR - 1]++;
		return true;
	case DAMAGED_RAISED:
	case DAMAGED_QUIET:
		e->raised = d == DAMAGED_QUIET;
		return e->kind == TRACE_PUBLISH;
	default:
		return false;
	}
}

START_TEST(any_difference_from_a_trace_is_noticed_with_its_line)
{
	struct trace_event *e = NULL, was;
	char why[256] = "", line[32];
	size_t i;

	load_and_parse("unbind", &r.t);
	for (i = 0; i < r.t.events; i++) {
		e = &r.t.event[i];
		was = *e;
		if (damage(e, _i) &&
		    (e->kind != TRACE_PUBLISH || e->raised != was.raised))
			break;
		*e = was;
	}
	ck_assert_uint_lt(i, r.t.events);
	ck_assert(!replay(why, sizeof(why)));
	snprintf(line, sizeof(line), "line %u: ", e->line);
	ck_assert_msg(strncmp(why, line, strlen(line)) == 0,
	    "damaged was line %u; %s", e->line, why);
	trace_free(&r.t);
}
END_TEST

#define HEAD "vdisk trace 1\nsectors 10\n"
#define READ "C 0 40000000+10 40001000+200w 40002000+1w ="
#define HDR  " x00000000000000000000000000000000"

START_TEST(what_is_no_trace_is_refused_with_its_line)
{
	static const struct {
		const char *text, *why;
	} wrong[] = {
	    {"", "line 0: no 'end'"},
	    {"hello\n", "line 1: not a trace of version 1"},
	    {"vdisk trace 1\n", "line 1: no 'end'"},
	    {"vdisk trace 1\nsectors\n", "line 2: not the number of sectors"},
	    {"vdisk trace 1\nsectors 0\n",
		"line 2: no sectors: was it a regular file?"},
	    {HEAD "R 0 0 4 7", "line 3: cut off"},
	    {HEAD "R 0 0 4 7\n", "line 3: no 'end'"},
	    {HEAD "R 0 0 4\nend\n", "line 3: a number is missing at ''"},
	    {HEAD "R 0 0 4 7 8\nend\n", "line 3: extra ' 8'"},
	    {HEAD "R 0 0 3 7\nend\n", "line 3: access of odd size"},
	    {HEAD "R 80 0 4 7\nend\n", "line 3: number too large"},
	    {HEAD "Q 0\nend\n", "line 3: unknown line 'Q 0'"},
	    {HEAD "end\nend\n", "line 4: something after the end"},
	    {HEAD "lost: it\nend\n", "line 3: the recorder lost track: it"},
	    {HEAD "DW 0 70 4 0\nW 0 70 4 1\nend\n",
		"line 4: vCPU 0 waits for another access"},
	    {HEAD READ "\nend\n", "line 3: bytes are missing at ''"},
	    {HEAD READ " x00\nend\n", "line 3: not 16 bytes of data"},
	    {HEAD READ HDR " 1\nend\n", "line 3: extra ' 1'"},
	    {HEAD "C 0 90000000+1w = x\nend\n",
		"line 3: address outside guest memory"},
	    {HEAD "C 0 40000000+10 =" HDR "\nend\n",
		"line 3: chain without a status byte"},
	    {HEAD "C 0 40000000+20i 5/40001000+1w = x\nend\n",
		"line 3: descriptor beyond its table"},
	    {HEAD "U 0 1 0\nend\n", "line 3: head 0 is not in flight"},
	    {HEAD READ HDR "\n" READ HDR "\nend\n",
		"line 4: head 0 is in flight already"},
	    {HEAD READ HDR "\nU 0 201 0\nend\n",
		"line 4: data is missing at ''"},
	    {HEAD READ HDR "\nU 0 201 0 1-2\nend\n",
		"line 4: not 1 sectors of data"},
	    {HEAD READ HDR "\nU 0 202 0 1\nend\n",
		"line 4: more bytes than the chain has"},
	    {HEAD READ HDR "\nU 0 201 0 1\nend\n",
		"line 5: what was returned is not published"},
	    {HEAD "P 0 quiet\nend\n", "line 3: nothing was returned"},
	    {HEAD READ HDR "\nU 0 201 0 1\nP 0 loud\nend\n",
		"line 5: neither 'raised' nor 'quiet'"},
	    {HEAD READ HDR "\nC 1 40003000+1w = x\nU 1 1 0\nP 0 quiet\nend\n",
		"line 3: head 0 is never returned"},
	};
	struct trace t;
	char why[256];
	size_t i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		ck_assert_msg(!trace_parse(&t, wrong[i].text,
				  strlen(wrong[i].text), why, sizeof(why)),
		    "accepted instead of: %s", wrong[i].why);
		ck_assert_str_eq(why, wrong[i].why);
		trace_free(&t);
	}
}
END_TEST

/*
 * Change 'n' characters here and there.
 */
static void
scramble(char *text, size_t len, unsigned n, uint64_t *random)
{
	static const char letters[] = "0123456789abcdefz,-+/ =iwxRWVCUPDIL?\n";

	while (n-- > 0) {
		*random = *random * UINT64_C(6364136223846793005) + 1;
		text[(*random >> 32) % len] =
		    letters[(*random >> 16) % (sizeof(letters) - 1)];
	}
}

START_TEST(a_scrambled_trace_is_refused_or_parsed)
{
	uint64_t random = 1;
	size_t len;
	char *text = load("read-only", &len), *copy = malloc(len), why[256];
	struct trace t;
	unsigned i, refused = 0;

	for (i = 0; i < 1000; i++) {
		memcpy(copy, text, len);
		scramble(copy, len, 1 + i % 5, &random);
		if (!trace_parse(&t, copy, len, why, sizeof(why))) {
			ck_assert_msg(
			    strncmp(why, "line ", 5) == 0, "says: %s", why);
			refused++;
		}
		trace_free(&t);
	}
	ck_assert_uint_gt(refused, 500);
	free(copy);
	free(text);
}
END_TEST

START_TEST(a_scrambled_trace_that_parses_is_replayed_or_refused)
{
	uint64_t random = _i + 1;
	size_t len;
	char *text = load("read-only", &len), *copy = malloc(len), why[256];
	unsigned tries = 0;

	do {
		ck_assert_msg(tries++ < 1000, "none parses: %s", why);
		trace_free(&r.t);
		memcpy(copy, text, len);
		scramble(copy, len, 2, &random);
	} while (!trace_parse(&r.t, copy, len, why, sizeof(why)));
	patience = 1;
	if (!replay(why, sizeof(why)))
		ck_assert_msg(strncmp(why, "line ", 5) == 0, "says: %s", why);
	trace_free(&r.t);
	free(copy);
	free(text);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("trace");
	TCase *tc = cases_add(s, "trace", NULL, NULL);

	tcase_add_loop_test(tc,
	    a_real_guest_gets_the_answers_and_interrupts_that_it_got_on_real_xen,
	    0, COUNT(traces));
	tcase_add_loop_test(tc, the_traces_contain_what_they_were_recorded_for,
	    0, COUNT(traces));
	tcase_add_loop_test(
	    tc, what_a_toy_guest_does_is_recorded_and_can_be_replayed, 0, 3);
	tcase_add_loop_test(tc,
	    any_difference_from_a_trace_is_noticed_with_its_line, 0, DAMAGES);
	tcase_add_test(tc, what_is_no_trace_is_refused_with_its_line);
	tcase_add_test(tc, a_scrambled_trace_is_refused_or_parsed);
	tcase_add_loop_test(
	    tc, a_scrambled_trace_that_parses_is_replayed_or_refused, 0, 20);
	return cases_run(s);
}
