/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that the guest has granted.  Owns the handle of Xen's grants, which of
 * them are mapped, and the batch of copies.  Does not know what they hold.
 *
 * An address is 1 << 63 | reference << 12 | offset, and the pages of a buffer
 * have consecutive references.  Only rings are mapped, for as long as the queue
 * is ready; everything else is copied by Xen, which holds nothing afterwards:
 * the guest may take a grant back whenever it likes, and harms only itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <unistd.h>

#include <xengnttab.h>

#include <xen/grant_table.h>

#include "grant.h"
#include "log.h"

#define PAGE	    UINT64_C(4096) /* Xen's, everywhere */
#define GRANT_FIRST (UINT64_C(1) << 63)
#define GRANT_LIMIT (GRANT_FIRST + (PAGE << 32)) /* references have 32 bits */

#define RINGS	    3
#define RING_PAGES  2	/* of one, which need not begin with a page */
#define SEGMENTS    128 /* copied by one call */

/* For gntdev to have memory, or Xen what it has paged out: milliseconds. */
#define RETRIES 16

struct grants {
	xentoollog_logger *log;
	xengnttab_handle *xgt;
	uint16_t domid;
	struct ring {
		uint64_t addr;	/* of its first page */
		unsigned pages; /* 0: none */
		char *p;
	} ring[RINGS];
	bool failed; /* some of what guest_copy_all() copies */
	unsigned n;  /* segments to be copied */
	xengnttab_grant_copy_segment_t segment[SEGMENTS];
};

/* The library would log whatever a guest does wrong, without bound. */
static bool
open_handle(struct grants *grants)
{
	void *silent = xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);

	grants->xgt = silent == NULL ? NULL : xengnttab_open(silent, 0);
	return grants->xgt != NULL ||
	       log_error(grants->log, errno,
		   "cannot open Xen's grants (is xen-gntdev loaded?)");
}

struct grants *
grant_new(struct xentoollog_logger *log, uint16_t domid)
{
	struct grants *grants = calloc(1, sizeof(*grants));

	if (grants == NULL)
		return log_error(log, errno, "out of memory");
	grants->log = log;
	grants->domid = domid;
	return open_handle(grants) ? grants : NULL;
}

int
grant_open(struct grants *grants)
{
	xengnttab_close(grants->xgt);
	return open_handle(grants) ? xengnttab_fd(grants->xgt) : -1;
}

void *
grant_address(uint64_t addr, uint64_t len)
{
	errno = EFAULT;
	return addr >= GRANT_FIRST && addr <= GRANT_LIMIT &&
		       len <= GRANT_LIMIT - addr
		   ? (void *)(uintptr_t)addr
		   : NULL;
}

/* grant_map() for what is not mapped yet, with its errno. */
static __attribute__((noinline)) bool
map_ring(struct grants *grants, struct ring *r, uint64_t first, unsigned pages)
{
	uint32_t ref[RING_PAGES] = {first / PAGE, first / PAGE + 1};
	/* A byte of each page, around the end of the first. */
	const struct iovec edge = {(void *)(first + PAGE - 1), pages};
	char bytes[RING_PAGES];

	r->p = xengnttab_map_domain_grant_refs(
	    grants->xgt, pages, grants->domid, ref, PROT_READ | PROT_WRITE);
	/* As for what is not granted, if Xen has no room for more. */
	if (r->p == NULL && errno == EINVAL &&
	    guest_copy_all(grants, &edge, bytes, pages, false, NULL))
		errno = ENOMEM;
	r->addr = first;
	r->pages = r->p != NULL ? pages : 0;
	return r->p != NULL;
}

void *
grant_map(struct grants *grants, uint64_t addr, size_t len)
{
	uint64_t offset = addr % PAGE, first = addr - offset;
	unsigned pages = howmany(offset + len, PAGE);
	struct ring *r = grants->ring, *end = r + RINGS;

	while (
	    r < end && r->pages > 0 && (r->addr != first || r->pages != pages))
		r++;
	errno = EINVAL;
	if (r == end || pages > RING_PAGES || grant_address(addr, len) == NULL)
		return NULL;
	if (r->pages == 0 && !map_ring(grants, r, first, pages))
		return NULL;
	return r->p + offset;
}

void
grant_unmap_all(struct grants *grants)
{
	for (int i = 0; i < RINGS && grants->ring[i].pages > 0; i++)
		if (xengnttab_unmap(grants->xgt, grants->ring[i].p,
			grants->ring[i].pages) < 0)
			log_msg(grants->log, XTL_CRITICAL, errno,
			    "cannot unmap a ring: the guest may lose its disk");
	memset(grants->ring, 0, sizeof(grants->ring));
}

/* Copy all segments.  To repeat what was copied is harmless. */
static void
flush(struct grants *grants)
{
	bool bad, again;
	int tries = 0;

	do {
		bad = xengnttab_grant_copy(
			  grants->xgt, grants->n, grants->segment) < 0;
		again = bad && errno == ENOMEM;
		for (unsigned i = 0; i < grants->n; i++) {
			bad |= grants->segment[i].status != GNTST_okay;
			again |= grants->segment[i].status == GNTST_eagain;
		}
	} while (again && tries++ < RETRIES && usleep(1000) == 0);
	grants->failed |= bad;
	grants->n = 0;
}

/* Copy 'len' bytes that are contiguous, from grants or to them at flush(). */
static void
copy(struct grants *grants, void *theirs, char *ours, size_t len, bool to_guest)
{
	uint64_t addr = (uintptr_t)theirs;
	xengnttab_grant_copy_segment_t *s;
	union xengnttab_copy_ptr *grant;
	size_t some;

	if (addr < GRANT_FIRST) {
		memcpy(to_guest ? theirs : ours, to_guest ? ours : theirs, len);
		return;
	}
	for (; len > 0; addr += some, ours += some, len -= some) {
		if (grants->n == SEGMENTS)
			flush(grants);
		some = MIN(len, PAGE - addr % PAGE);
		s = &grants->segment[grants->n++];
		s->len = some;
		s->flags = to_guest ? GNTCOPY_dest_gref : GNTCOPY_source_gref;
		s->status = GNTST_okay;
		(to_guest ? &s->source : &s->dest)->virt = ours;
		grant = to_guest ? &s->dest : &s->source;
		grant->foreign.ref = addr / PAGE;
		grant->foreign.offset = addr % PAGE;
		grant->foreign.domid = grants->domid;
	}
}

bool
guest_copy_all(struct grants *grants, const struct iovec *iov, void *p,
    size_t len, bool to_guest, void *status)
{
	static char zero; /* not const: the library takes a plain pointer */
	size_t some;

	if (grants != NULL)
		grants->failed = false;
	for (char *at = p; len > 0; at += some, len -= some, iov++) {
		some = MIN(len, iov->iov_len);
		copy(grants, iov->iov_base, at, some, to_guest);
	}
	if (status != NULL)
		copy(grants, status, &zero, 1, true);
	if (grants == NULL || grants->n == 0)
		return true;
	flush(grants);
	return !grants->failed;
}
