/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory as one linear window: guest-physical address 'gpa' is at window
 * + gpa, so what is contiguous for the guest is contiguous here, and finding a
 * page is testing a bit.  Owns the window, which pages are mapped in it, and
 * how many may be.  Does not know what they are used for.
 *
 * On an auto-translated dom0, Linux's privcmd takes a page of dom0's for every
 * page of a mapping, even if the guest has none there, until the mapping goes
 * as a whole; if it is split, the wrong pages are freed.  So no mapping is kept
 * in which a page is missing, what is mapped is bounded, and it is evicted by
 * chunks, which no mapping crosses: all mappings of one go with one call.
 *
 * The first page of a chunk is probed outside the window, where page tables of
 * an absent one would stay.  It is mapped with its neighbours, and at the next
 * fault the whole chunk is, since calls cost more than pages.  Near the limit
 * it is neighbours only, and in the end single pages.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#define __XEN_TOOLS__ 1 /* the names that Xen keeps for device models */
#include <xendevicemodel.h>
#include <xenforeignmemory.h>

#include <xen/hvm/dm_op.h>

#include "grant.h"
#include "guest.h"
#include "log.h"

/* Xen's page size, which is the same everywhere. */
#define PAGE_BITS   12
#define PAGE_BYTES  (UINT64_C(1) << PAGE_BITS)

#define CHUNK	    UINT64_C(512) /* pages, of one page table */
#define CLUSTER	    UINT64_C(16)  /* ... of neighbours */
#define ERRNO_LIMIT 4096U

#define CHUNK_BYTES (CHUNK << PAGE_BITS)

/*
 * Guests that are mapped one to one have the host's addresses.  What fits in a
 * smaller address space (arm64 with 39 bits) covers any guest of that host.
 */
#define WINDOW_BITS_MAX 46
#define WINDOW_BITS_MIN 34

/* Ranges reported to Xen at a time: privcmd takes 4096 bytes at most. */
#define EXTENTS	     128

#define WINDOW_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

/* Each mapping is a VMA, and so may be the gap after it (vm.max_map_count). */
#define AREAS_MAX UINT64_C(32000)

/* Descriptions of chunks that become writable, and accounted, together. */
#define LEAF UINT64_C(4096)

/* In pages: for a request of the usual size, scattered as it may be. */
#define LIMIT_MIN     UINT64_C(2048)
#define LIMIT_DIVISOR 16 /* of the host's memory, for one disk */

/*
 * After a shortage the limit is lower for so long, and nothing is mapped at
 * first, for twice as long each time, since Linux logs each refusal.
 */
#define SHORTAGE_MS 10000
#define RETRY_MS    20 /* ... six times, and for the last again */

/* Where a chunk was, page tables and a page of descriptions may stay. */
#define CHUNKS_MIN 2048

struct chunk {
	uint64_t present[CHUNK / 64]; /* a bit per page: 1 is mapped */
	TAILQ_ENTRY(chunk) link;      /* if there are any */
	uint32_t pinned_pass;	      /* reclaim_pass at its guest_pin() */
	uint16_t pages;		      /* mapped */
	uint16_t areas;		      /* ... by so many mappings */
	bool used;		      /* since guest_reclaim() came by */
	bool sparse;		      /* pages were missing */
} __attribute__((aligned(128)));

struct guest {
	char *window;  /* PROT_NONE where nothing is mapped */
	uint64_t size; /* ... in bytes, and after it a page to probe with */
	struct chunk *chunk; /* of the window; read-only where all are zero */
	TAILQ_HEAD(, chunk) mapped; /* the next to be given back comes first */
	uint64_t pages;		    /* ... in them */
	uint64_t areas;		    /* ... by so many mappings */
	uint64_t limit; /* of both, since page tables are pages, too: for now */
	uint64_t bound; /* ... ever */
	uint64_t pages_short;  /* that guest_map() could not map */
	int map_error;	       /* errno of guest_map() */
	bool no_fault_around;  /* map nothing that is not asked for */
	uint32_t reclaim_pass; /* of guest_reclaim() */
	unsigned chunks;       /* mapped since guest_unmap_all() */
	unsigned shortages;    /* since there was none for SHORTAGE_MS */
	int64_t shortage_end;  /* of the lower limit */
	int64_t retry;	       /* nothing is mapped before */
	xentoollog_logger *log;
	struct grants *grants; /* instead of the window, which is empty then */
	xenforeignmemory_handle *fmem;
	xendevicemodel_handle *dmod;
	domid_t domid;
	bool leaf[1 << (WINDOW_BITS_MAX - PAGE_BITS - 9 - 12)]; /* writable */
	/* What was written to, and not reported yet. */
	struct xen_dm_op_modified_memory_extent written[EXTENTS];
	unsigned nwritten;
	int report_errno; /* last failure to report, logged once */
};

static bool
is_present(const struct guest *guest, uint64_t page)
{
	const uint64_t *present = guest->chunk[page / CHUNK].present;

	return present[page % CHUNK / 64] >> (page % 64) & 1;
}

#define AT(guest, page) ((guest)->window + ((page) << PAGE_BITS))

/* Replace a mapping, or exit: pages that the guest gave up must not stay. */
static void
map_anonymous(struct guest *guest, void *p, uint64_t pages, int prot)
{
	const int flags = WINDOW_FLAGS | MAP_FIXED;
	size_t len = pages << PAGE_BITS;

	/* If no further VMA is allowed, one must go first. */
	if (mmap(p, len, prot, flags, -1, 0) != MAP_FAILED ||
	    (munmap(p, len) == 0 &&
		mmap(p, len, prot, flags, -1, 0) != MAP_FAILED))
		return;
	log_msg(guest->log, XTL_CRITICAL, errno, "cannot unmap guest memory");
	/* Not abort(), whose system calls the sandbox does not allow. */
	_exit(EXIT_FAILURE);
}

/* In milliseconds. */
static int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* The host has no room for another mapping: give some back to the others. */
static void
handle_shortage(struct guest *guest)
{
	uint64_t most = guest->pages + guest->areas;

	if (guest->shortages == 0)
		log_msg(guest->log, XTL_WARN, errno,
		    "the host has no room to map more of the guest's memory "
		    "than %llu MiB: see CAVEATS in vdisk(8)",
		    (unsigned long long)guest_mapped(guest) >> 20);
	guest->limit = MIN(MAX(most - most / 4, LIMIT_MIN), guest->bound);
	guest->retry = now() + (RETRY_MS << MIN(guest->shortages++, 6));
	guest->shortage_end = now() + SHORTAGE_MS;
	guest->no_fault_around = true;
	guest->map_error = ENOMEM;
}

/*
 * Map 'n' pages from 'first' on at 'p' as one mapping; err[i] is 0 for each
 * that the guest has.  False: the host refuses.
 */
static bool
map_range(struct guest *guest, char *p, uint64_t first, unsigned n, int *err)
{
	xen_pfn_t gfn[CHUNK];
	unsigned i = 0;

	for (gfn[0] = first; ++i < n;)
		gfn[i] = first + i;
	if (xenforeignmemory_map2(guest->fmem, guest->domid, p,
		PROT_READ | PROT_WRITE, MAP_FIXED, n, gfn, err) != NULL) {
		/* EINVAL is a page that the guest has not. */
		while (i > 0 && -(unsigned)err[i - 1] < ERRNO_LIMIT &&
		       err[i - 1] != -ENOMEM && err[i - 1] != -ENOENT)
			i--;
		if (i == 0)
			return true;
		/* Of Xen, for our p2m; on Arm ENOENT; of Linux, the gfns. */
		errno = ENOMEM;
	}
	handle_shortage(guest);
	/* It may have left a hole that other mappings could take. */
	map_anonymous(guest, p, n, PROT_NONE);
	return false;
}

/* Pages [from, to) of a chunk are mapped, by one mapping. */
static void
account(struct guest *guest, uint64_t from, uint64_t to)
{
	struct chunk *c = &guest->chunk[from / CHUNK];

	if (c->pages == 0) {
		TAILQ_INSERT_TAIL(&guest->mapped, c, link);
		guest->chunks++;
	}
	c->pages += to - from;
	c->areas++;
	guest->pages += to - from;
	guest->areas++;
	for (uint64_t bit = 1; from < to; from++)
		c->present[from % CHUNK / 64] |= bit << (from % 64);
}

/* The end of the run of pages from 'from' on, all there or all missing. */
static uint64_t
run(const int *err, uint64_t from, uint64_t to)
{
	uint64_t i = from;

	while (++i < to && (err[i] == 0) == (err[from] == 0))
		;
	return i;
}

/* Map pages [from, to) of a chunk if the guest has all.  False: refused. */
static bool
map_whole(struct guest *guest, uint64_t from, uint64_t to, int *err)
{
	uint64_t n = to - from;

	if (!map_range(guest, AT(guest, from), from, n, err))
		return false;
	if (err[0] == 0 && run(err, 0, n) == n)
		account(guest, from, to);
	else
		map_anonymous(guest, AT(guest, from), n, PROT_NONE);
	return true;
}

/* Of pages [from, to), map all or, with holes, 'page' and longer runs. */
static void
map_present(struct guest *guest, uint64_t page, uint64_t from, uint64_t to)
{
	uint64_t n = to - from, i, end;
	int err[CHUNK], again[CHUNK];

	if (!map_whole(guest, from, to, err) || is_present(guest, from))
		return;
	guest->chunk[page / CHUNK].sparse |= n > CLUSTER;
	for (i = 0; i < n; i = end) {
		end = run(err, i, n);
		if (err[i] == 0 &&
		    (end - i >= CLUSTER || page - from - i < end - i) &&
		    !map_whole(guest, from + i, from + end, again))
			return;
	}
	/* The guest may have given up others of its run meanwhile. */
	if (err[page - from] == 0 && !is_present(guest, page))
		map_whole(guest, page, page + 1, again);
}

/* What may be mapped now, in pages and chunks. */
static uint64_t
limit(struct guest *guest)
{
	if (guest->shortages > 0 && now() >= guest->shortage_end) {
		guest->limit = guest->bound;
		guest->no_fault_around = false;
		guest->shortages = 0;
	}
	return guest->limit;
}

/* Map the missing page 'page', as far as 'end', and what may be next. */
static __attribute__((noinline)) bool
fault_in(struct guest *guest, uint64_t page, uint64_t end)
{
	struct chunk *c = &guest->chunk[page / CHUNK];
	uint64_t first = page - page % CHUNK, most = limit(guest);
	/* From the most to the least that is worth a call. */
	const struct {
		uint64_t from, to, most;
	} choice[] = {
	    {first, first + CHUNK, most - most / 8},
	    {page - page % CLUSTER, roundup(end, CLUSTER), most},
	    {page, end, most},
	};
	int i = guest->no_fault_around || c->sparse ? 2 : c->pages == 0;
	bool *leaf = &guest->leaf[page / CHUNK / LEAF];
	struct chunk *table = &guest->chunk[page / CHUNK / LEAF * LEAF];
	size_t size = LEAF * sizeof(*table);
	char *spare = guest->window + guest->size;
	uint64_t from, to;
	int err = 0;

	guest->map_error = ENOMEM;
	if (now() < guest->retry)
		return false;
	guest->map_error = EFAULT;
	if (c->pages == 0) {
		if (!map_range(guest, spare, page, 1, &err))
			return false;
		map_anonymous(guest, spare, 1, PROT_NONE);
	}
	if (err != 0)
		return false;
	if (!*leaf) {
		/* The host may have no memory to commit to it. */
		if (mmap(table, size, PROT_READ | PROT_WRITE,
			WINDOW_FLAGS | MAP_FIXED, -1, 0) == MAP_FAILED) {
			handle_shortage(guest);
			map_anonymous(
			    guest, table, size >> PAGE_BITS, PROT_READ);
			return false;
		}
		*leaf = true;
		guest->areas++;
	}
	for (; i < 3 && !is_present(guest, page); i++) {
		from = page, to = page + 1;
		while (from > MAX(choice[i].from, first) &&
		       !is_present(guest, from - 1))
			from--;
		while (to < MIN(choice[i].to, first + CHUNK) &&
		       !is_present(guest, to))
			to++;
		guest->pages_short = to - from + 1;
		guest->map_error =
		    guest->limit < guest->bound ? ENOMEM : ENOBUFS;
		if (guest->pages + guest->areas + guest->pages_short >
			choice[i].most ||
		    guest->areas >= AREAS_MAX ||
		    (c->pages == 0 &&
			guest->chunks > CHUNKS_MIN + 2 * guest->bound / CHUNK))
			continue;
		guest->map_error = EFAULT;
		map_present(guest, page, from, to);
		if (guest->map_error == EFAULT)
			break;
	}
	guest->no_fault_around |= guest->map_error != EFAULT;
	if (is_present(guest, page))
		guest->retry = 0; /* there was room for less */
	return is_present(guest, page);
}

void *
guest_map(struct guest *guest, uint64_t gpa, size_t len)
{
	uint64_t page, end;

	if (__builtin_add_overflow(gpa, len, &end) || end > guest->size) {
		errno = EFAULT;
		return guest->grants ? grant_map(guest->grants, gpa, len)
				     : NULL;
	}
	for (page = gpa >> PAGE_BITS; page << PAGE_BITS < end; page++) {
		if (is_present(guest, page))
			guest->chunk[page / CHUNK].used = true;
		else if (!fault_in(guest, page, howmany(end, PAGE_BYTES))) {
			errno = guest->map_error;
			return NULL;
		}
	}
	return guest->window + gpa;
}

void
guest_pin(struct guest *guest, const void *p, size_t len)
{
	uint64_t first = (const char *)p - guest->window;
	struct chunk *c;

	/* It may be no guest memory, or NULL. */
	if (first >= guest->size || len == 0)
		return;
	c = &guest->chunk[first / CHUNK_BYTES];
	for (; c <= &guest->chunk[(first + len - 1) / CHUNK_BYTES]; c++)
		if (c->pages > 0)
			c->pinned_pass = guest->reclaim_pass;
}

/* The CLOCK algorithm: what was used since the last time is spared once. */
bool
guest_reclaim(struct guest *guest)
{
	uint64_t most = limit(guest), turns = 2 * guest->areas;
	bool done = false;
	struct chunk *c;

	most -= MIN(most, MAX(most / 16, guest->pages_short));
	while (turns-- > 0 && (c = TAILQ_FIRST(&guest->mapped)) != NULL &&
	       (guest->pages + guest->areas > most ||
		   guest->areas > AREAS_MAX - AREAS_MAX / 16)) {
		TAILQ_REMOVE(&guest->mapped, c, link);
		if (c->used || c->pinned_pass == guest->reclaim_pass) {
			c->used = false;
			TAILQ_INSERT_TAIL(&guest->mapped, c, link);
		} else {
			map_anonymous(guest,
			    AT(guest, (c - guest->chunk) * CHUNK), CHUNK,
			    PROT_NONE);
			guest->pages -= c->pages;
			guest->areas -= c->areas;
			*c = (struct chunk){.sparse = c->sparse};
			guest->no_fault_around = false;
			guest->retry = 0; /* there is room now */
			done = true;
		}
	}
	guest->reclaim_pass++;
	return done;
}

uint64_t
guest_mapped(const struct guest *guest)
{
	return guest->pages << PAGE_BITS;
}

void
guest_unmap_all(struct guest *guest)
{
	if (guest->grants != NULL)
		grant_unmap_all(guest->grants);
	if (guest->areas == 0)
		return;
	map_anonymous(
	    guest, guest->window, guest->size >> PAGE_BITS, PROT_NONE);
	map_anonymous(guest, guest->chunk,
	    guest->size / CHUNK_BYTES * sizeof(struct chunk) >> PAGE_BITS,
	    PROT_READ);
	memset(guest->leaf, false, sizeof(guest->leaf));
	TAILQ_INIT(&guest->mapped);
	guest->pages = guest->areas = guest->chunks = 0;
}

void
guest_wrote(struct guest *guest, uint64_t gpa, uint64_t len)
{
	struct xen_dm_op_modified_memory_extent *e;
	uint64_t first = gpa >> PAGE_BITS, end;

	if (len == 0 || __builtin_add_overflow(gpa, len - 1, &end) ||
	    end >= guest->size)
		return;
	end = (end >> PAGE_BITS) + 1;
	e = &guest->written[guest->nwritten];
	if (guest->nwritten > 0 && first >= e[-1].first_pfn &&
	    first <= e[-1].first_pfn + e[-1].nr) {
		e[-1].nr = MAX(e[-1].nr, end - e[-1].first_pfn);
		return;
	}
	e->first_pfn = first;
	e->nr = end - first;
	if (++guest->nwritten == EXTENTS)
		guest_report(guest);
}

static int
report(struct guest *guest, unsigned first, unsigned n)
{
	return xendevicemodel_modified_memory_bulk(
	    guest->dmod, guest->domid, &guest->written[first], n);
}

/*
 * Xen looks at the pages only if the guest is being copied.  Then it refuses
 * the very last one of the guest, and all before that in the call (Xen 4.20).
 */
void
guest_report(struct guest *guest)
{
	unsigned n = guest->nwritten;
	int error;

	guest->nwritten = 0;
	if (n == 0 || report(guest, 0, n) == 0)
		return;
	while (n-- > 0) {
		if (report(guest, n, 1) == 0)
			continue;
		error = errno;
		if (--guest->written[n].nr > 0)
			report(guest, n, 1);
		if (error != guest->report_errno)
			log_error(guest->log, error,
			    "cannot report a page that was written to: a copy "
			    "of the guest may lack that");
		guest->report_errno = error;
	}
}

/*
 * What this host can spare for one disk: a share of our domain's own memory or,
 * if less, on Arm of the address space that Xen leaves it for foreign pages
 * (all regions but the first, which is for grants).
 */
static uint64_t
default_limit(void)
{
	uint64_t memory = sysconf(_SC_PHYS_PAGES) * PAGE_BYTES, room = 0;
	uint64_t region[64][2]; /* address, size */
	int fd = open("/proc/device-tree/hypervisor/reg", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, region, sizeof(region));

	for (ssize_t i = 1; i < n / (ssize_t)sizeof(region[0]); i++)
		room += be64toh(region[i][1]);
	if (fd >= 0)
		close(fd);
	return (room > 0 ? MIN(room, memory) : memory) / LIMIT_DIVISOR;
}

/* Reserve the window and what describes it, as large as can be. */
static bool
reserve(struct guest *guest)
{
	uint64_t len;
	void *window;

	for (int bits = WINDOW_BITS_MAX; bits >= WINDOW_BITS_MIN; bits--) {
		guest->size = UINT64_C(1) << bits;
		len = guest->size / CHUNK_BYTES * sizeof(struct chunk);
		guest->chunk = mmap(NULL, len, PROT_READ, WINDOW_FLAGS, -1, 0);
		window = mmap(NULL, guest->size + 2 * CHUNK_BYTES, PROT_NONE,
		    WINDOW_FLAGS, -1, 0);
		/* So that the page tables of a chunk are its own. */
		guest->window = (char *)roundup((uintptr_t)window, CHUNK_BYTES);
		if (guest->chunk != MAP_FAILED && window != MAP_FAILED)
			return true;
		if (guest->chunk != MAP_FAILED)
			munmap(guest->chunk, len);
	}
	return false;
}

struct guest *
guest_open(struct xentoollog_logger *log, uint16_t domid, uint64_t limit,
    struct grants *grants)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	_Static_assert(sizeof(void *) == 8, "the window needs 64 bits");
	if (guest == NULL)
		return log_error(log, errno, "out of memory");
	guest->log = log;
	guest->domid = domid;
	guest->grants = grants;
	guest->report_errno = ESRCH; /* a guest that is gone has no copy */
	guest->reclaim_pass = 1;
	TAILQ_INIT(&guest->mapped);
	if (limit == GUEST_LIMIT_DEFAULT)
		limit = default_limit();
	guest->limit = guest->bound = MAX(limit / PAGE_BYTES, LIMIT_MIN);
	/* A chunk with holes is mapped page by page, which must be ours too. */
	if (sysconf(_SC_PAGESIZE) != (long)PAGE_BYTES)
		return log_error(log, -1,
		    "the kernel's page size is not 4096 bytes, which is Xen's");
	if (grants != NULL)
		return guest;
	if ((guest->fmem = xenforeignmemory_open(log, 0)) == NULL ||
	    (guest->dmod = xendevicemodel_open(log, 0)) == NULL)
		return NULL; /* logged by the library */
	if (!reserve(guest))
		return log_error(log, errno,
		    "cannot reserve address space for guest memory");
	return guest;
}
