/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory as one linear window: guest-physical address 'gpa' is at
 * window + gpa, so what is contiguous for the guest is contiguous here, and
 * finding a page is testing a bit.  Owns the window and the knowledge of which
 * pages are mapped in it.  Does not know what they are used for.
 *
 * Pages are mapped when they are first needed, a chunk at a time since the
 * calls cost more than the pages do, and stay until guest_forget().
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define __XEN_TOOLS__ 1 /* the names that Xen keeps for device models */
#include <xendevicemodel.h>
#include <xenforeignmemory.h>
#include <xentoollog.h>

#include <xen/hvm/dm_op.h>

#include "guest.h"

/* Xen's page size, which is the same everywhere. */
#define PAGE_BITS  12
#define PAGE_BYTES (UINT64_C(1) << PAGE_BITS)

/* Pages mapped with one call: 2 MiB, which fill one of our page tables. */
#define CHUNK UINT64_C(512)

/*
 * Guest-physical addresses reach 40 bits.  A host with a smaller address space
 * of its own (arm64 kernels with 39 bits) gets a smaller window, which still
 * covers any guest that such a host can run.
 */
#define WINDOW_BITS_MAX 40
#define WINDOW_BITS_MIN 34

/* Pages reported to Xen at a time: privcmd takes 4096 bytes of them at most. */
#define EXTENTS	     128

#define WINDOW_PROT  PROT_NONE
#define WINDOW_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

struct guest {
	xentoollog_logger *log;
	xenforeignmemory_handle *fmem;
	xendevicemodel_handle *dmod;
	domid_t domid;
	uint64_t size;	   /* of the window, in bytes */
	uint64_t mapped;   /* bytes of the window mapped since it was empty */
	char *window;	   /* PROT_NONE where nothing is mapped */
	uint64_t *present; /* a bit per page of the window: 1 is mapped */
	/* Pages that were written to, and not reported yet. */
	struct xen_dm_op_modified_memory_extent written[EXTENTS];
	unsigned nwritten;
	int report_errno; /* last failure to report, logged once */
};

static bool
is_present(const struct guest *guest, uint64_t page)
{
	return guest->present[page / 64] >> (page % 64) & 1;
}

/*
 * The window cannot be kept whole any more, or pages that the guest gave up
 * would stay within reach: we must not go on.
 */
static _Noreturn void
give_up(struct guest *guest)
{
	xtl_log(guest->log, XTL_CRITICAL, errno, "vdisk",
	    "cannot unmap guest memory");
	/* Not abort(), whose system calls the sandbox does not allow. */
	_exit(EXIT_FAILURE);
}

/*
 * Map the chunk that begins at page 'first', in place of what was mapped there.
 * A request in flight on other pages of the chunk may find them missing for a
 * moment, and is then done again: engine.c takes EFAULT for what it is.
 *
 * It must be all of the chunk: where dom0 is auto-translated, Linux's privcmd
 * keeps the pages of a mapping in one array and does not notice when a mapping
 * is split, so to map or unmap a part of one frees the wrong pages.
 */
static void
map(struct guest *guest, uint64_t first)
{
	xen_pfn_t gfn[CHUNK];
	int err[CHUNK];
	char *at = guest->window + (first << PAGE_BITS);

	for (uint64_t i = 0; i < CHUNK; i++)
		gfn[i] = first + i;
	guest->mapped += CHUNK << PAGE_BITS;
	memset(&guest->present[first / 64], 0, CHUNK / 8);
	if (xenforeignmemory_map2(guest->fmem, guest->domid, at,
		PROT_READ | PROT_WRITE, MAP_FIXED, CHUNK, gfn, err) == NULL) {
		/* It may have left a hole for other mappings to fall into. */
		if (mmap(at, CHUNK << PAGE_BITS, WINDOW_PROT,
			WINDOW_FLAGS | MAP_FIXED, -1, 0) == MAP_FAILED)
			give_up(guest);
		return;
	}
	for (uint64_t i = 0; i < CHUNK; i++)
		if (err[i] == 0)
			guest->present[(first + i) / 64] |=
			    UINT64_C(1) << ((first + i) % 64);
}

struct guest *
guest_open(struct xentoollog_logger *log, uint16_t domid)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	_Static_assert(sizeof(void *) == 8, "the window needs 64 bits");
	if (guest == NULL) {
		xtl_log(log, XTL_ERROR, errno, "vdisk", "no memory");
		return NULL;
	}
	guest->log = log;
	guest->domid = domid;
	guest->report_errno = ESRCH; /* a guest that is gone has no copy */
	/* A chunk with holes is mapped page by page, which must be ours too. */
	if (sysconf(_SC_PAGESIZE) != (long)PAGE_BYTES) {
		xtl_log(log, XTL_ERROR, -1, "vdisk",
		    "this kernel's pages are not of %d bytes, as Xen's are",
		    (int)PAGE_BYTES);
		return NULL;
	}
	if ((guest->fmem = xenforeignmemory_open(log, 0)) == NULL ||
	    (guest->dmod = xendevicemodel_open(log, 0)) == NULL)
		return NULL; /* logged by the library */
	for (int bits = WINDOW_BITS_MAX; bits >= WINDOW_BITS_MIN; bits--) {
		guest->size = UINT64_C(1) << bits;
		guest->window =
		    mmap(NULL, guest->size, WINDOW_PROT, WINDOW_FLAGS, -1, 0);
		if (guest->window != MAP_FAILED)
			break;
	}
	guest->present = mmap(NULL, guest->size / PAGE_BYTES / 8,
	    PROT_READ | PROT_WRITE, WINDOW_FLAGS, -1, 0);
	if (guest->window == MAP_FAILED || guest->present == MAP_FAILED) {
		xtl_log(log, XTL_ERROR, errno, "vdisk",
		    "cannot reserve address space for guest memory");
		return NULL;
	}
	return guest;
}

void *
guest_ptr(struct guest *guest, uint64_t gpa, size_t len)
{
	uint64_t page, end;

	if (__builtin_add_overflow(gpa, len, &end) || end > guest->size)
		return NULL;
	for (page = gpa >> PAGE_BITS; page << PAGE_BITS < end; page++) {
		if (!is_present(guest, page))
			map(guest, page / CHUNK * CHUNK);
		if (!is_present(guest, page)) /* the guest does not have it */
			return NULL;
	}
	return guest->window + gpa;
}

void
guest_wrote(struct guest *guest, const void *p, size_t len)
{
	uint64_t gpa = (const char *)p - guest->window, end = gpa + len;

	for (uint64_t pfn = gpa >> PAGE_BITS; pfn << PAGE_BITS < end; pfn++) {
		if (guest->nwritten == EXTENTS)
			guest_report(guest);
		guest->written[guest->nwritten++] =
		    (struct xen_dm_op_modified_memory_extent){
			.first_pfn = pfn, .nr = 1};
	}
}

/*
 * Xen looks at the pages only if the guest is being copied.  Then it refuses the
 * very last one of the guest, and all before that in the call (Xen 4.20).
 */
void
guest_report(struct guest *guest)
{
	unsigned n = guest->nwritten;

	guest->nwritten = 0;
	if (xendevicemodel_modified_memory_bulk(
		guest->dmod, guest->domid, guest->written, n) == 0)
		return;
	while (n-- > 0) {
		if (xendevicemodel_modified_memory_bulk(guest->dmod,
			guest->domid, &guest->written[n], 1) == 0 ||
		    errno == guest->report_errno)
			continue;
		guest->report_errno = errno;
		xtl_log(guest->log, XTL_ERROR, errno, "vdisk",
		    "cannot report a page that was written to: a copy of "
		    "the guest may lack that");
	}
}

uint64_t
guest_mapped(const struct guest *guest)
{
	return guest->mapped;
}

void
guest_forget(struct guest *guest)
{
	if (guest->mapped == 0)
		return;
	guest->mapped = 0;
	/* The kernel unmaps whatever stood there. */
	if (mmap(guest->window, guest->size, WINDOW_PROT,
		WINDOW_FLAGS | MAP_FIXED, -1, 0) == MAP_FAILED ||
	    mmap(guest->present, guest->size / PAGE_BYTES / 8,
		PROT_READ | PROT_WRITE, WINDOW_FLAGS | MAP_FIXED, -1,
		0) == MAP_FAILED)
		give_up(guest);
}
