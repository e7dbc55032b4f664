/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The toy guest driver.  Owns what the guest keeps of its rings and requests;
 * touches the device only by register accesses, guest memory and the interrupt
 * line of fake_xen.
 */
#include <check.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>

#include "driver.h"
#include "fake_xen.h"

#define PAGE   4096
#define SECTOR 512

/* In the memory of a request. */
#define REQUEST_STATUS 32
#define REQUEST_TABLE  64
#define BUFS_MAX       ((DRIVER_REQUEST_BYTES - REQUEST_TABLE) / 16)

static uint64_t deadline;

static uint64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

void
driver_init(struct driver *d, uint64_t base, uint64_t heap, uint64_t len)
{
	memset(d, 0, sizeof(*d));
	d->base = base;
	d->heap = heap;
	d->heap_end = heap + len;
}

uint64_t
driver_alloc(struct driver *d, uint64_t len, uint64_t align)
{
	uint64_t gpa = (d->heap + align - 1) / align * align;

	ck_assert_msg(
	    gpa + len <= d->heap_end, "the test's guest is too small");
	d->heap = gpa + len;
	return gpa;
}

void
driver_patience(struct driver *d __attribute__((unused)))
{
	deadline = now_ms() + DRIVER_TIMEOUT_MS;
}

void
driver_wait(struct driver *d)
{
	uint32_t seen = fake_xen_events();

	ck_assert_msg(now_ms() < deadline, "the device does not answer");
	if (d->step != NULL)
		d->step();
	else
		/* What happened just before 'seen' costs one turn. */
		fake_xen_sleep(seen, 1);
}

void
driver_begin(struct driver *d, unsigned vcpu, bool write, uint32_t offset,
    uint32_t size, uint64_t data)
{
	ioreq_t req = {
	    .addr = d->base + offset,
	    .data = data,
	    .count = 1,
	    .size = size,
	    .dir = write ? IOREQ_WRITE : IOREQ_READ,
	    .type = IOREQ_TYPE_COPY,
	};

	ck_assert_msg(fake_xen_issue(vcpu, &req) == 1,
	    "nobody claims the register window");
}

uint64_t
driver_end(struct driver *d, unsigned vcpu)
{
	uint64_t data = 0;

	driver_patience(d);
	while (!fake_xen_answered(vcpu, &data))
		driver_wait(d);
	return data;
}

uint64_t
driver_get(struct driver *d, uint32_t offset, uint32_t size)
{
	uint64_t data;

	driver_begin(d, d->vcpu, false, offset, size, 0);
	data = driver_end(d, d->vcpu);
	return size == 8 ? data : data & ((1ULL << size * 8) - 1);
}

uint32_t
driver_read(struct driver *d, uint32_t offset)
{
	return driver_get(d, offset, 4);
}

void
driver_write(struct driver *d, uint32_t offset, uint32_t value)
{
	driver_begin(d, d->vcpu, true, offset, 4, value);
	driver_end(d, d->vcpu);
}

void
driver_invalidate(struct driver *d __attribute__((unused)), unsigned vcpu)
{
	ioreq_t req = {
	    .data = UINT64_MAX,
	    .size = 4,
	    .dir = IOREQ_WRITE,
	    .type = IOREQ_TYPE_INVALIDATE,
	};

	ck_assert_uint_gt(fake_xen_issue(vcpu, &req), 0);
}

void
driver_probe(struct driver *d)
{
	ck_assert_uint_eq(driver_read(d, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	ck_assert_uint_eq(
	    driver_read(d, VIRTIO_MMIO_VERSION), d->legacy ? 1 : 2);
	ck_assert_uint_eq(
	    driver_read(d, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_BLOCK);
	driver_read(d, VIRTIO_MMIO_VENDOR_ID);
	if (d->legacy)
		driver_write(d, VIRTIO_MMIO_GUEST_PAGE_SIZE, PAGE);
}

/* Linux reads the status before it adds to it. */
static void
add_status(struct driver *d, uint32_t bit)
{
	driver_write(
	    d, VIRTIO_MMIO_STATUS, driver_read(d, VIRTIO_MMIO_STATUS) | bit);
}

bool
driver_negotiate(struct driver *d, uint64_t wanted)
{
	driver_write(d, VIRTIO_MMIO_STATUS, 0);
	add_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	add_status(d, VIRTIO_CONFIG_S_DRIVER);
	driver_write(d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	d->offered = (uint64_t)driver_read(d, VIRTIO_MMIO_DEVICE_FEATURES)
		     << 32;
	driver_write(d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	d->offered |= driver_read(d, VIRTIO_MMIO_DEVICE_FEATURES);
	if (d->grants)
		wanted |= 1ULL << VIRTIO_F_ACCESS_PLATFORM;
	d->features = d->offered & wanted;
	driver_write(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	driver_write(d, VIRTIO_MMIO_DRIVER_FEATURES, d->features >> 32);
	driver_write(d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	driver_write(d, VIRTIO_MMIO_DRIVER_FEATURES, d->features);
	if (d->legacy)
		return true;
	add_status(d, VIRTIO_CONFIG_S_FEATURES_OK);
	return driver_read(d, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static void
write_address(struct driver *d, uint32_t low, uint64_t gpa)
{
	driver_write(d, low, gpa);
	driver_write(d, low + 4, gpa >> 32);
}

/* As Linux does for each buffer, even if it lends the page already. */
uint64_t
driver_lend(
    struct driver *d, int owner, uint64_t gpa, uint64_t len, bool writable)
{
	unsigned i = 0, n = (gpa % PAGE + len + PAGE - 1) / PAGE;

	if (!d->grants)
		return gpa;
	n += n == 0;
	while (d->lent[i].n != 0)
		ck_assert_uint_lt(++i, DRIVER_LENT_MAX);
	d->lent[i].owner = owner;
	d->lent[i].ref = fake_xen_grant(gpa / PAGE * PAGE, n, !writable);
	d->lent[i].n = n;
	return 1ULL << 63 | (uint64_t)d->lent[i].ref * PAGE | gpa % PAGE;
}

void
driver_take_back(struct driver *d, int owner)
{
	for (unsigned i = 0; i < DRIVER_LENT_MAX; i++) {
		if (d->lent[i].n == 0 ||
		    (d->lent[i].owner != owner && owner != DRIVER_ALL))
			continue;
		ck_assert_msg(fake_xen_ungrant(d->lent[i].ref, d->lent[i].n),
		    "the device has a grant of the guest's still in use");
		d->lent[i].n = 0;
	}
}

/*
 * Tell the device where its rings are.
 */
static void
write_queue(struct driver *d)
{
	uint32_t ready =
	    d->legacy ? VIRTIO_MMIO_QUEUE_PFN : VIRTIO_MMIO_QUEUE_READY;

	driver_write(d, VIRTIO_MMIO_QUEUE_SEL, 0);
	ck_assert_uint_eq(driver_read(d, ready), 0);
	ck_assert_uint_ge(driver_read(d, VIRTIO_MMIO_QUEUE_NUM_MAX), d->num);
	driver_write(d, VIRTIO_MMIO_QUEUE_NUM, d->num);
	if (d->legacy) {
		driver_write(d, VIRTIO_MMIO_QUEUE_ALIGN, PAGE);
		driver_write(d, VIRTIO_MMIO_QUEUE_PFN, d->desc / PAGE);
		return;
	}
	write_address(d, VIRTIO_MMIO_QUEUE_DESC_LOW,
	    driver_lend(d, DRIVER_RINGS, d->desc, 16 * d->num, true));
	write_address(d, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
	    driver_lend(d, DRIVER_RINGS, d->avail, 6 + 2 * d->num, true));
	write_address(d, VIRTIO_MMIO_QUEUE_USED_LOW,
	    driver_lend(d, DRIVER_RINGS, d->used, 6 + 8 * d->num, true));
	driver_write(d, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* The rings are one after the other, as a legacy driver must have them. */
void
driver_queue(struct driver *d, uint16_t num)
{
	ck_assert_uint_le(num, DRIVER_NUM_MAX);
	d->num = num;
	d->desc = driver_alloc(d, 16 * num, PAGE);
	d->avail = driver_alloc(d, 6 + 2 * num, 2);
	d->used = driver_alloc(d, 6 + 8 * num, PAGE);
	d->requests =
	    driver_alloc(d, (uint64_t)num * DRIVER_REQUEST_BYTES, 4096);
	/* Memory may have been another ring before. */
	memset(driver_desc(d, 0), 0, 16 * num);
	memset(driver_avail(d), 0, 6 + 2 * num);
	memset(driver_used(d), 0, 6 + 8 * num);
	write_queue(d);
}

void
driver_ok(struct driver *d)
{
	add_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
}

void
driver_start(struct driver *d, uint64_t wanted, uint16_t num)
{
	driver_probe(d);
	ck_assert(driver_negotiate(d, wanted));
	driver_queue(d, num);
	driver_ok(d);
	ck_assert_uint_eq(
	    driver_read(d, VIRTIO_MMIO_STATUS), d->legacy ? 7 : 15);
}

void
driver_reset(struct driver *d)
{
	driver_write(d, VIRTIO_MMIO_STATUS, 0);
	d->avail_idx = d->used_idx = d->kicked = 0;
	d->inflight = 0;
	driver_take_back(d, DRIVER_ALL);
	memset(d->owner, 0, sizeof(d->owner));
}

struct vring_desc *
driver_desc(struct driver *d, uint16_t i)
{
	return (struct vring_desc *)fake_xen_ram(d->desc) + i;
}

struct vring_avail *
driver_avail(struct driver *d)
{
	return fake_xen_ram(d->avail);
}

struct vring_used *
driver_used(struct driver *d)
{
	return fake_xen_ram(d->used);
}

uint16_t *
driver_used_event(struct driver *d)
{
	return &driver_avail(d)->ring[d->num];
}

uint16_t *
driver_avail_event(struct driver *d)
{
	return (uint16_t *)&driver_used(d)->ring[d->num];
}

/*
 * Cut 'n' buffers into pieces: the number of them.
 */
static unsigned
cut(const struct driver *d, const struct driver_buf *buf, unsigned n,
    struct driver_buf *out)
{
	unsigned i, count = 0;
	uint32_t at, len;

	for (i = 0; i < n; i++) {
		at = 0;
		do {
			len = buf[i].len - at;
			if (d->piece != 0 && len > d->piece)
				len = d->piece;
			ck_assert_uint_lt(count, BUFS_MAX);
			out[count].gpa = buf[i].gpa + at;
			out[count].len = len;
			out[count++].writable = buf[i].writable;
			at += len;
		} while (at < buf[i].len);
	}
	return count;
}

static void
fill(struct vring_desc *desc, const struct driver_buf *buf, int next)
{
	desc->addr = buf->gpa;
	desc->len = buf->len;
	desc->flags = (buf->writable ? VRING_DESC_F_WRITE : 0) |
		      (next >= 0 ? VRING_DESC_F_NEXT : 0);
	desc->next = next >= 0 ? next : 0;
}

/* Free descriptors from 'i' on: the first, or d->num. */
static unsigned
free_from(const struct driver *d, unsigned i)
{
	while (i < d->num && d->owner[i] != 0)
		i++;
	return i;
}

static bool
has_room(const struct driver *d, unsigned n)
{
	unsigned i, room = 0;

	for (i = 0; i < d->num; i++)
		room += d->owner[i] == 0;
	return room >= n;
}

static void
put_direct(
    struct driver *d, unsigned head, const struct driver_buf *buf, unsigned n)
{
	unsigned i, at = head, next;

	for (i = 0; i < n; i++, at = next) {
		d->owner[at] = head + 1;
		next = free_from(d, at + 1);
		fill(driver_desc(d, at), &buf[i], i + 1 < n ? (int)next : -1);
	}
}

static void
put_indirect(
    struct driver *d, unsigned head, const struct driver_buf *buf, unsigned n)
{
	uint64_t gpa =
	    d->requests + head * DRIVER_REQUEST_BYTES + REQUEST_TABLE;
	struct vring_desc *table = fake_xen_ram(gpa);
	struct vring_desc *desc = driver_desc(d, head);
	unsigned i;

	for (i = 0; i < n; i++)
		fill(&table[i], &buf[i], i + 1 < n ? (int)i + 1 : -1);
	d->owner[head] = head + 1;
	desc->addr = gpa;
	desc->len = n * sizeof(*table);
	desc->flags = VRING_DESC_F_INDIRECT;
	desc->next = 0;
}

int
driver_add(struct driver *d, const struct driver_buf *buf, unsigned n)
{
	static struct driver_buf piece[BUFS_MAX];
	struct vring_avail *avail = driver_avail(d);
	bool indirect =
	    d->indirect && d->features & 1ULL << VIRTIO_RING_F_INDIRECT_DESC;
	unsigned head = free_from(d, 0);

	n = cut(d, buf, n, piece);
	if (!has_room(d, indirect ? 1 : n))
		return -1;
	for (unsigned i = 0; i < n; i++)
		piece[i].gpa = driver_lend(
		    d, head, piece[i].gpa, piece[i].len, piece[i].writable);
	(indirect ? put_indirect : put_direct)(d, head, piece, n);
	d->done[head] = false;
	d->inflight++;
	avail->ring[d->avail_idx++ % d->num] = head;
	__atomic_store_n(&avail->idx, d->avail_idx, __ATOMIC_RELEASE);
	return head;
}

bool
driver_kick(struct driver *d)
{
	uint16_t old = d->kicked;
	bool wanted;

	d->kicked = d->avail_idx;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (d->features & 1ULL << VIRTIO_RING_F_EVENT_IDX)
		wanted = vring_need_event(
		    __atomic_load_n(driver_avail_event(d), __ATOMIC_RELAXED),
		    d->avail_idx, old);
	else
		wanted = !(
		    __atomic_load_n(&driver_used(d)->flags, __ATOMIC_RELAXED) &
		    VRING_USED_F_NO_NOTIFY);
	if (wanted) {
		d->kicks++;
		driver_write(d, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	}
	return wanted;
}

void
driver_add_wrong(struct driver *d)
{
	struct vring_avail *avail = driver_avail(d);

	avail->ring[d->avail_idx % d->num] = d->num;
	d->avail_idx++;
	__atomic_store_n(&avail->idx, d->avail_idx, __ATOMIC_RELEASE);
	driver_kick(d);
}

bool
driver_take(struct driver *d)
{
	struct vring_used *used = driver_used(d);
	uint16_t idx = __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE);
	struct vring_used_elem elem;
	unsigned i;

	ck_assert_msg((uint16_t)(idx - d->used_idx) <= d->inflight,
	    "the device returned more than it was given");
	if (idx == d->used_idx)
		return false;
	elem = used->ring[d->used_idx++ % d->num];
	ck_assert_msg(elem.id < d->num && d->owner[elem.id] == elem.id + 1,
	    "the device returned chain %u, which it does not have", elem.id);
	for (i = 0; i < d->num; i++)
		if (d->owner[i] == elem.id + 1)
			d->owner[i] = 0;
	driver_take_back(d, elem.id);
	d->done[elem.id] = true;
	d->written[elem.id] = elem.len;
	d->inflight--;
	return true;
}

uint32_t
driver_interrupt(struct driver *d)
{
	uint32_t status;

	if (!fake_xen_irq_up())
		return 0;
	fake_xen_irq_take();
	status = driver_read(d, VIRTIO_MMIO_INTERRUPT_STATUS);
	if (status == 0) {
		d->spurious++;
		return 0;
	}
	driver_write(d, VIRTIO_MMIO_INTERRUPT_ACK, status);
	d->interrupts++;
	do {
		while (driver_take(d))
			;
		__atomic_store_n(
		    driver_used_event(d), d->used_idx, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	} while (__atomic_load_n(&driver_used(d)->idx, __ATOMIC_RELAXED) !=
		 d->used_idx);
	return status;
}

void
driver_until(struct driver *d, int head)
{
	uint64_t patience;

	driver_patience(d);
	patience = deadline;
	while (!d->done[head]) {
		/* Register accesses inside have a timeout of their own. */
		driver_interrupt(d);
		deadline = patience;
		if (!d->done[head])
			driver_wait(d);
	}
}

void
driver_drain(struct driver *d)
{
	uint64_t patience;

	driver_patience(d);
	patience = deadline;
	while (d->inflight != 0) {
		driver_interrupt(d);
		deadline = patience;
		if (d->inflight != 0)
			driver_wait(d);
	}
}

int
driver_request(struct driver *d, uint32_t type, uint64_t sector, uint64_t gpa,
    uint32_t len)
{
	uint64_t at = d->requests + free_from(d, 0) * DRIVER_REQUEST_BYTES;
	struct virtio_blk_outhdr header = {.type = type, .sector = sector};
	struct driver_buf buf[3] = {
	    {at, sizeof(header), false},
	    {gpa, len, type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID},
	    {at + REQUEST_STATUS, 1, true},
	};
	int head;

	if (free_from(d, 0) == d->num)
		return -1;
	memcpy(fake_xen_ram(at), &header, sizeof(header));
	*(uint8_t *)fake_xen_ram(at + REQUEST_STATUS) = 0xff;
	if (len == 0)
		buf[1] = buf[2];
	head = driver_add(d, buf, len == 0 ? 2 : 3);
	if (head >= 0)
		d->status[head] = at + REQUEST_STATUS;
	return head;
}

uint8_t
driver_status(struct driver *d, int head)
{
	return *(uint8_t *)fake_xen_ram(d->status[head]);
}

uint8_t
driver_io(struct driver *d, uint32_t type, uint64_t sector, uint64_t gpa,
    uint32_t len)
{
	int head = driver_request(d, type, sector, gpa, len);

	ck_assert_int_ge(head, 0);
	driver_kick(d);
	driver_until(d, head);
	return driver_status(d, head);
}

uint64_t
driver_pattern(struct driver *d, uint32_t len, uint32_t seed)
{
	uint64_t gpa = driver_alloc(d, len, 16);
	uint32_t *p = fake_xen_ram(gpa), i;

	for (i = 0; i < len / 4; i++)
		p[i] = (seed + 1) * 0x9e3779b1u + i * 2654435761u;
	return gpa;
}

bool
driver_in_file(int fd, uint64_t sector, uint64_t gpa, uint32_t len)
{
	char *buf = malloc(len);
	bool same = pread(fd, buf, len, sector * SECTOR) == (ssize_t)len &&
		    memcmp(buf, fake_xen_ram(gpa), len) == 0;

	free(buf);
	return same;
}
