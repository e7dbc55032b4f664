/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's side of the ring.  Owns guest memory and what the guest remembers
 * of its requests.
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_blk.h>

#include "ring.h"

/* Of each head, within RING_REQUEST bytes. */
#define STATUS 16
#define TABLE  64

_Static_assert(
    TABLE + (RING_PAGES_MAX + 2) * sizeof(struct vring_desc) <= RING_REQUEST,
    "no room for the indirect table");

static uint8_t *
request_at(const struct ring *r, unsigned head)
{
	return r->ram + RING_REQUESTS + head * RING_REQUEST;
}

static uint8_t *
page_at(const struct ring *r, uint32_t page)
{
	return r->ram + (uint64_t)page * RING_PAGE;
}

void
ring_init(struct ring *r, uint8_t *ram, uint64_t gpa, uint64_t size)
{
	uint32_t i, j, other;

	*r = (struct ring){.unverified = r->unverified};
	r->ram = ram;
	r->gpa = gpa;
	r->desc = (void *)(ram + RING_DESC);
	r->avail = (void *)(ram + RING_AVAIL);
	r->used = (void *)(ram + RING_USED);
	for (i = 0; i < RING_NUM; i++)
		r->free[r->nfree++] = RING_NUM - 1 - i;
	r->npages = (size - RING_DATA) / RING_PAGE;
	r->pages = calloc(r->npages, sizeof(*r->pages));
	if (r->pages == NULL)
		err(1, "pages");
	srandom(1);
	for (i = 0; i < r->npages; i++) {
		j = random() % (i + 1);
		other = r->pages[j];
		r->pages[j] = RING_DATA / RING_PAGE + i;
		r->pages[i] = i == j ? r->pages[i] : other;
	}
}

/*
 * Each page of the disk begins with its number, so that a page of another
 * place, or none at all, is noticed.
 */
static void
stamp(uint8_t *page, uint64_t block)
{
	memcpy(page, &block, sizeof(block));
}

static bool
stamped(const uint8_t *page, uint64_t block)
{
	return memcmp(page, &block, sizeof(block)) == 0;
}

static void
fill(struct vring_desc *d, uint64_t addr, uint32_t len, uint16_t flags,
    uint16_t next)
{
	*d = (struct vring_desc){
	    .addr = addr, .len = len, .flags = flags, .next = next};
}

void
ring_add(
    struct ring *r, uint32_t type, uint64_t block, unsigned pages, uint64_t now)
{
	unsigned head = r->free[--r->nfree], i;
	struct ring_request *req = &r->request[head];
	uint8_t *at = request_at(r, head);
	uint64_t gpa = r->gpa + (at - r->ram);
	struct vring_desc *table = (void *)(at + TABLE);
	uint16_t flags = VRING_DESC_F_NEXT |
			 (type == VIRTIO_BLK_T_OUT ? 0 : VRING_DESC_F_WRITE);
	struct virtio_blk_outhdr header = {
	    .type = type, .sector = block * (RING_PAGE / 512)};

	req->type = type;
	req->pages = pages;
	req->block = block;
	req->submitted = now;
	memcpy(at, &header, sizeof(header));
	at[STATUS] = 0xff;
	fill(&table[0], gpa, sizeof(header), VRING_DESC_F_NEXT, 1);
	if (r->few_pages)
		r->next_page = head * RING_PAGES_MAX;
	for (i = 0; i < pages; i++) {
		req->page[i] = r->pages[r->next_page];
		if (++r->next_page == r->npages)
			r->next_page = 0;
		if (type == VIRTIO_BLK_T_OUT)
			stamp(page_at(r, req->page[i]), block + i);
		fill(&table[i + 1], r->gpa + (uint64_t)req->page[i] * RING_PAGE,
		    RING_PAGE, flags, i + 2);
	}
	fill(&table[i + 1], gpa + STATUS, 1, VRING_DESC_F_WRITE, 0);
	fill(&r->desc[head], gpa + TABLE, (pages + 2) * sizeof(*table),
	    VRING_DESC_F_INDIRECT, 0);
	r->avail->ring[r->avail_idx++ % RING_NUM] = head;
	__atomic_store_n(&r->avail->idx, r->avail_idx, __ATOMIC_RELEASE);
}

bool
ring_kick(struct ring *r)
{
	uint16_t *avail_event = (uint16_t *)&r->used->ring[RING_NUM];
	uint16_t old = r->kicked;

	r->kicked = r->avail_idx;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vring_need_event(
	    __atomic_load_n(avail_event, __ATOMIC_RELAXED), r->avail_idx, old);
}

const struct ring_request *
ring_take(struct ring *r)
{
	uint16_t idx = __atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE);
	const struct ring_request *req;
	uint32_t head, i;

	if (idx == r->used_idx)
		return NULL;
	head = r->used->ring[r->used_idx++ % RING_NUM].id;
	if (head >= RING_NUM || r->nfree == RING_NUM)
		errx(1, "the device returned a chain it does not have");
	req = &r->request[head];
	if (request_at(r, head)[STATUS] != VIRTIO_BLK_S_OK)
		errx(1, "request failed with status %u",
		    request_at(r, head)[STATUS]);
	for (i = 0; req->type == VIRTIO_BLK_T_IN && i < req->pages; i++)
		if (!r->unverified &&
		    !stamped(page_at(r, req->page[i]), req->block + i))
			errx(1, "page %llu of the disk has wrong data",
			    (unsigned long long)(req->block + i));
	r->free[r->nfree++] = head;
	return req;
}

bool
ring_enable(struct ring *r)
{
	uint16_t *used_event = &r->avail->ring[RING_NUM];

	__atomic_store_n(used_event, r->used_idx, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(&r->used->idx, __ATOMIC_RELAXED) == r->used_idx;
}
