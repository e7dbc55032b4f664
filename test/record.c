/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The recorder: preloaded beside an unmodified vdisk on a real Xen, it writes
 * what the guest did and what it was answered to the file named by VDISK_TRACE,
 * in the format described in traces/README.md.  Owns the moments at which it
 * looks; knows how vdisk's loop makes its calls, and nothing of its insides.
 *
 * The guest runs on meanwhile, so each thing is read while it cannot change:
 *
 *   an access     in its slot, when vdisk notifies: the answer is there, and
 *                 the vCPU waits for the notification.
 *   a chain       when vdisk has found no more completions: all it has taken
 *                 since is available, and none of that is returned.  A chain
 *                 seen here that came too late for vdisk is one of its next.
 *                 That it was not taken shows in unmapped buffers, if anywhere.
 *   its result    kept at each of these moments, since the next thing vdisk
 *                 does is to show the driver what it has found complete.
 *   completions   when vdisk raises the interrupt or, if it does not, at the
 *                 next of these moments or when it goes to sleep: the used ring
 *                 is vdisk's and does not change before it looks again.
 *   used_event    the one thing that is the guest's to change while vdisk looks
 *                 at it.  It is read before and after, and the one is recorded
 *                 that explains what vdisk did.
 *
 * If these moments turn out to be missed the trace is cut off there, with the
 * reason, and cannot be replayed.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <liburing.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#define __XEN_TOOLS__ 1 /* the names that Xen keeps for device models */
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>

#include <xen/hvm/ioreq.h>

#define PAGE_BYTES  4096
#define SLOTS	    (PAGE_BYTES / sizeof(ioreq_t))
#define SECTOR	    512
#define HEADER	    16 /* of a block request, recorded as it is */
#define WINDOW_BITS 40
#define DESCS	    1024 /* in one chain, at most */
#define HEADS	    32768

/* The function that would have been called without us. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

struct chain {
	bool inflight;
	unsigned n;
	struct vring_desc desc[DESCS]; /* of buffers: 'next' is the index */
	size_t written_bytes;	       /* in 'written' */
	uint8_t *written; /* the writable part when last looked at */
};

/* What the accesses have told about the queue. */
struct queue {
	uint32_t num;
	uint64_t desc, driver, device;
	bool ready;
	uint16_t avail, used; /* positions recorded */
	uint16_t event; /* used_event, or the flags, when last looked at */
};

static FILE *out;
static bool opened;
static uint64_t sectors;
static bool read_only;

static uint64_t mmio;
static ioreq_t *slot;
static int port[SLOTS];
static bool deferred[SLOTS]; /* recorded as waiting */
static bool kicked[SLOTS];   /* QueueNotify that is not recorded yet */
static uint64_t kick[SLOTS];

static char *window;	  /* vdisk's: guest memory by guest address */
static uint64_t *present; /* a bit per page of it: 1 is mapped */

static uint32_t status, features_sel, features, queue_sel;
static uint32_t page_size, align; /* of version 1 */
static struct queue queue;
static struct chain *chains[HEADS];

/* Contents of sectors, by hash; the place is what 'ids' says. */
#define CONTENTS (1u << 20)
static uint64_t hashes[CONTENTS];
static uint32_t ids[CONTENTS];
static uint32_t next_id = 1;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void lost(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Write to the trace, as long as it goes on.
 */
static void
say(const char *format, ...)
{
	va_list ap;

	if (out == NULL)
		return;
	va_start(ap, format);
	vfprintf(out, format, ap);
	va_end(ap);
}

/*
 * The trace cannot go on.
 */
static void
lost(const char *format, ...)
{
	va_list ap;

	if (out == NULL)
		return;
	va_start(ap, format);
	fprintf(out, "lost: ");
	vfprintf(out, format, ap);
	fprintf(out, "\n");
	va_end(ap);
	fclose(out);
	out = NULL;
}

/*
 * Start the trace: at the first access, when all that is in its head is known.
 */
static bool
open_trace(void)
{
	const char *path = getenv("VDISK_TRACE");

	if (opened)
		return out != NULL;
	opened = true;
	if (path == NULL || (out = fopen(path, "we")) == NULL)
		return false;
	say("vdisk trace 1\nsectors %" PRIx64 "\n", sectors);
	if (read_only)
		say("read-only\n");
	return true;
}

static void close_trace(void) __attribute__((destructor));

static void
close_trace(void)
{
	if (out != NULL) {
		say("end\n");
		fclose(out);
	}
}

/*
 * The guest's memory, if vdisk has it mapped.
 */
static void *
guest(uint64_t gpa, uint64_t len)
{
	uint64_t page, end;

	if (window == NULL || __builtin_add_overflow(gpa, len, &end) ||
	    end > UINT64_C(1) << WINDOW_BITS)
		return NULL;
	for (page = gpa / PAGE_BYTES; page * PAGE_BYTES < end; page++)
		if (!(present[page / 64] >> page % 64 & 1))
			return NULL;
	return window + gpa;
}

static void
forget(void)
{
	present = mmap(present, (UINT64_C(1) << WINDOW_BITS) / PAGE_BYTES / 8,
	    PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
		(present != NULL ? MAP_FIXED : 0),
	    -1, 0);
	if (present == MAP_FAILED)
		abort();
}

/*
 * The number of a sector's content: 0 for zeros, else counted by first sight.
 */
static uint32_t
content(const uint8_t *sector)
{
	uint64_t word, any = 0, hash = 0x9e3779b97f4a7c15;
	uint32_t i;

	for (i = 0; i < SECTOR; i += 8) {
		memcpy(&word, sector + i, 8);
		any |= word;
		hash = (hash ^ word) * 0xff51afd7ed558ccd;
		hash ^= hash >> 32;
	}
	if (any == 0)
		return 0;
	for (i = hash % CONTENTS; ids[i] != 0; i = (i + 1) % CONTENTS)
		if (hashes[i] == hash)
			return ids[i];
	if (next_id == CONTENTS / 2) {
		lost("too many different sectors");
		return 0;
	}
	hashes[i] = hash;
	return ids[i] = next_id++;
}

static void
write_hex(const uint8_t *data, size_t len)
{
	say(" x");
	for (; len > 0; data++, len--)
		say("%02x", *data);
}

/*
 * Data: sectors as the numbers of their contents, in runs of zeros or of
 * consecutive numbers; what is not whole sectors as it is.
 */
static void
write_data(const uint8_t *data, size_t len)
{
	uint32_t first, run;
	char before = ' ';

	if (len == 0)
		return;
	if (len % SECTOR != 0) {
		write_hex(data, len);
		return;
	}
	while (len > 0 && out != NULL) {
		first = content(data);
		for (run = 1; run * SECTOR < len; run++)
			if (content(data + run * SECTOR) !=
			    (first == 0 ? 0 : first + run))
				break;
		say("%c", before);
		if (first == 0)
			say("z%x", run);
		else if (run == 1)
			say("%x", first);
		else
			say("%x-%x", first, first + run - 1);
		before = ',';
		data += run * SECTOR;
		len -= run * SECTOR;
	}
}

/*
 * The bytes of the chain's readable or writable part, to be freed.
 */
static uint8_t *
gather(const struct chain *chain, bool writable, size_t *len)
{
	uint8_t *data;
	unsigned i;

	*len = 0;
	for (i = 0; i < chain->n; i++)
		if (!(chain->desc[i].flags & VRING_DESC_F_WRITE) == !writable)
			*len += chain->desc[i].len;
	data = malloc(*len + 1);
	if (data == NULL)
		abort();
	*len = 0;
	for (i = 0; i < chain->n; i++) {
		const struct vring_desc *d = &chain->desc[i];
		void *p = guest(d->addr, d->len);

		if (!(d->flags & VRING_DESC_F_WRITE) != !writable)
			continue;
		if (p == NULL) {
			lost("buffer of a chain in flight unmapped");
			break;
		}
		memcpy(data + *len, p, d->len);
		*len += d->len;
	}
	return data;
}

/*
 * The chain at 'head' with all its buffers, into *chain, and its descriptors
 * as text into 'text'.  False if vdisk cannot have seen it.
 */
static bool
walk(unsigned head, struct chain *chain, FILE *text)
{
	struct vring_desc *table =
	    guest(queue.desc, queue.num * sizeof(*table));
	unsigned i = head, expected = head, num = queue.num;
	struct vring_desc d;

	chain->n = 0;
	while (table != NULL && i < num && chain->n < DESCS) {
		d = table[i];
		fprintf(text, " ");
		/* An index is told where it is not the next one. */
		if (i != expected)
			fprintf(text, "%x/", i);
		fprintf(text, "%" PRIx64 "+%x%s", (uint64_t)d.addr, d.len,
		    d.flags & VRING_DESC_F_INDIRECT ? "i"
		    : d.flags & VRING_DESC_F_WRITE  ? "w"
						    : "");
		if (d.flags & VRING_DESC_F_INDIRECT) {
			table = guest(d.addr, d.len);
			num = d.len / sizeof(d);
			i = expected = 0;
			continue;
		}
		if (guest(d.addr, d.len) == NULL)
			return false;
		chain->desc[chain->n++] = d;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return true;
		expected = i + 1;
		i = d.next;
	}
	return false;
}

/*
 * Record the chain at 'head'; false if it is too early for that.
 */
static bool
record_chain(unsigned head)
{
	struct chain *chain = chains[head];
	char *text = NULL;
	uint8_t *data;
	size_t len;
	FILE *f;
	bool whole;

	if (chain == NULL)
		chain = chains[head] = calloc(1, sizeof(*chain));
	f = open_memstream(&text, &len);
	if (chain == NULL || f == NULL)
		abort();
	whole = walk(head, chain, f);
	fclose(f);
	if (whole) {
		data = gather(chain, false, &len);
		if (out != NULL) {
			say("C %x%s =", head, text);
			write_hex(data, len < HEADER ? len : HEADER);
			if (len > HEADER)
				write_data(data + HEADER, len - HEADER);
			say("\n");
		}
		free(data);
		chain->inflight = true;
	}
	free(text);
	return whole;
}

static void
forget_chains(void)
{
	unsigned i;

	for (i = 0; i < HEADS; i++)
		if (chains[i] != NULL)
			chains[i]->inflight = false;
}

static bool
running(void)
{
	return queue.ready && (status & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
}

/*
 * Record the chains that have become available, and keep what those not
 * returned yet hold.
 */
static void
record_available(void)
{
	struct vring_avail *ring = guest(queue.driver, 6 + 2 * queue.num);
	uint16_t idx, head;
	unsigned i;

	if (!running() || ring == NULL)
		return;
	idx = __atomic_load_n(&ring->idx, __ATOMIC_ACQUIRE);
	for (; queue.avail != idx; queue.avail++) {
		head = ring->ring[queue.avail % queue.num];
		if (head >= queue.num ||
		    (chains[head] != NULL && chains[head]->inflight)) {
			lost("head %x cannot be available", head);
			return;
		}
		if (!record_chain(head))
			break;
	}
	for (i = 0; i < queue.num; i++) {
		if (chains[i] == NULL || !chains[i]->inflight)
			continue;
		free(chains[i]->written);
		chains[i]->written =
		    gather(chains[i], true, &chains[i]->written_bytes);
	}
}

/*
 * What the driver says of the interrupts it wants.
 */
static uint16_t
wanted_event(void)
{
	struct vring_avail *ring = guest(queue.driver, 6 + 2 * queue.num);

	if (ring == NULL)
		return 0;
	return features & 1u << VIRTIO_RING_F_EVENT_IDX
		   ? __atomic_load_n(&ring->ring[queue.num], __ATOMIC_RELAXED)
		   : __atomic_load_n(&ring->flags, __ATOMIC_RELAXED);
}

/*
 * Whether 'event' demands an interrupt for showing the driver used index
 * 'now' after 'before' (virtio 1.2, 2.7.7 and 2.7.10).
 */
static bool
demands(uint16_t event, uint16_t now, uint16_t before)
{
	return features & 1u << VIRTIO_RING_F_EVENT_IDX
		   ? vring_need_event(event, now, before)
		   : !(event & VRING_AVAIL_F_NO_INTERRUPT);
}

static void
record_completion(const struct vring_used_elem *elem)
{
	struct chain *chain = elem->id < HEADS ? chains[elem->id] : NULL;
	size_t len;

	if (chain == NULL || !chain->inflight || chain->written_bytes == 0) {
		lost("head %x was returned before it was seen", elem->id);
		return;
	}
	chain->inflight = false;
	len = chain->written_bytes - 1;
	say("U %x %x %x", elem->id, elem->len, chain->written[len]);
	write_data(chain->written, elem->len < len ? elem->len : len);
	if (out != NULL)
		say("\n");
}

/*
 * Record what has been shown to the driver in this turn, if anything, and
 * whether it was interrupted for that.
 */
static bool
record_published(bool raised)
{
	struct vring_used *ring = guest(queue.device, 6 + 8 * queue.num);
	uint16_t idx, before = queue.used, event = wanted_event();

	if (!running() || ring == NULL ||
	    (idx = __atomic_load_n(&ring->idx, __ATOMIC_ACQUIRE)) == before)
		return false;
	for (; queue.used != idx && out != NULL; queue.used++)
		record_completion(&ring->ring[queue.used % queue.num]);
	if (demands(queue.event, idx, before) == raised)
		event = queue.event;
	if (out == NULL)
		return true;
	say("P ");
	if (demands(event, idx, before) == raised)
		say("%x", event);
	else
		say("?");
	say(" %s\n", raised ? "raised" : "quiet");
	return true;
}

/*
 * Record the accesses that vdisk has put off.
 */
static void
record_deferred(void)
{
	unsigned i;

	for (i = 0; i < SLOTS && port[i] != 0; i++) {
		if (slot[i].state != STATE_IOREQ_INPROCESS || deferred[i] ||
		    !open_trace())
			continue;
		deferred[i] = true;
		if (slot[i].type == IOREQ_TYPE_INVALIDATE)
			say("DV %x\n", i);
		else
			say("DW %x %" PRIx64 " %x %" PRIx64 "\n", i,
			    slot[i].addr - mmio, slot[i].size, slot[i].data);
	}
}

/*
 * Record the notifications, after the chains that they are about.
 */
static void
record_kicks(void)
{
	unsigned i;

	for (i = 0; i < SLOTS && port[i] != 0; i++) {
		if (kicked[i] && open_trace())
			say("W %x %x 4 %" PRIx64 "\n", i,
			    VIRTIO_MMIO_QUEUE_NOTIFY, kick[i]);
		kicked[i] = false;
	}
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
	queue.ready = ready;
	queue.avail = queue.used = 0;
	forget_chains();
}

/*
 * The rings of version 1 are one after the other (2.7.2, 4.2.4).
 */
static void
place_queue(uint64_t pfn)
{
	queue.desc = pfn * page_size;
	queue.driver = queue.desc + 16 * queue.num;
	queue.device =
	    (queue.driver + 6 + 2 * queue.num + align - 1) & -(uint64_t)align;
}

/*
 * Take note of a write to a register.
 */
static void
learn(uint32_t offset, uint32_t data)
{
	switch (offset) {
	case VIRTIO_MMIO_STATUS:
		status = data;
		if (data == 0)
			start_queue(false);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		features_sel = data;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		if (features_sel == 0)
			features = data;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		queue_sel = data;
		break;
	case VIRTIO_MMIO_GUEST_PAGE_SIZE:
		page_size = data;
		break;
	}
	if (queue_sel != 0)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		queue.num = data < HEADS ? data : 0;
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		start_queue(data & 1);
		break;
	case VIRTIO_MMIO_QUEUE_ALIGN:
		align = data;
		break;
	case VIRTIO_MMIO_QUEUE_PFN:
		place_queue(data);
		start_queue(data != 0);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_half(&queue.desc, offset & 4, data);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_half(&queue.driver, offset & 4, data);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_half(&queue.device, offset & 4, data);
		break;
	}
}

/*
 * Record the access in slot 'i', which has been answered.
 */
static void
record_access(unsigned i)
{
	const ioreq_t *a = &slot[i];
	uint32_t offset = a->addr - mmio;
	uint64_t data = a->data;

	if (a->size < 8)
		data &= (UINT64_C(1) << a->size * 8) - 1;
	deferred[i] = false;
	/*
	 * Another event can have woken the vCPU already, as that of another
	 * server does if both were told of pages given back.  Then what it
	 * asked is still there, unless it asks for something else.
	 */
	if (a->state != STATE_IORESP_READY && a->state != STATE_IOREQ_NONE) {
		lost("vCPU %x was too fast", i);
	} else if (a->type == IOREQ_TYPE_INVALIDATE) {
		forget();
		say("V %x\n", i);
	} else if (a->type != IOREQ_TYPE_COPY || a->count != 1 ||
		   a->data_is_ptr) {
		lost("vCPU %x made an access that no driver makes", i);
	} else if (a->dir == IOREQ_WRITE &&
		   offset == VIRTIO_MMIO_QUEUE_NOTIFY && a->size == 4) {
		kicked[i] = true;
		kick[i] = data;
	} else {
		say("%c %x %x %x %" PRIx64 "\n",
		    a->dir == IOREQ_WRITE ? 'W' : 'R', i, offset, a->size,
		    data);
		if (a->dir == IOREQ_WRITE && a->size == 4)
			learn(offset, data);
	}
}

/*
 * An interrupt's level was set.
 */
static void
record_interrupt(unsigned level)
{
	static bool up;

	if (!open_trace())
		return;
	if (level != 0) {
		if (!record_published(true))
			say("I\n");
	} else if (up) {
		record_published(false);
		say("L\n");
	}
	up = level != 0;
}

/*
 * The functions of which vdisk's calls come here.
 */

int
xendevicemodel_map_io_range_to_ioreq_server(xendevicemodel_handle *dmod,
    domid_t domid, ioservid_t id, int is_mmio, uint64_t start, uint64_t end)
{
	mmio = start;
	return REAL(xendevicemodel_map_io_range_to_ioreq_server)(
	    dmod, domid, id, is_mmio, start, end);
}

xenforeignmemory_resource_handle *
xenforeignmemory_map_resource(xenforeignmemory_handle *fmem, domid_t domid,
    unsigned int type, unsigned int id, unsigned long frame,
    unsigned long nr_frames, void **paddr, int prot, int flags)
{
	xenforeignmemory_resource_handle *resource =
	    REAL(xenforeignmemory_map_resource)(
		fmem, domid, type, id, frame, nr_frames, paddr, prot, flags);

	if (resource != NULL) {
		/* The last one is vdisk's own: it may look at others first. */
		slot = *paddr;
		forget();
	}
	return resource;
}

xenevtchn_port_or_error_t
xenevtchn_bind_interdomain(
    xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote)
{
	int local = REAL(xenevtchn_bind_interdomain)(xce, domid, remote);
	unsigned i;

	for (i = 0; i < SLOTS && slot[i].vp_eport != remote; i++)
		;
	if (i < SLOTS && local >= 0)
		port[i] = local;
	return local;
}

void *
xenforeignmemory_map2(xenforeignmemory_handle *fmem, uint32_t dom, void *addr,
    int prot, int flags, size_t pages, const xen_pfn_t arr[], int err[])
{
	char *map = REAL(xenforeignmemory_map2)(
	    fmem, dom, addr, prot, flags, pages, arr, err);
	size_t i;

	if (map == NULL || pages == 0)
		return map;
	window = map - arr[0] * PAGE_BYTES;
	for (i = 0; i < pages; i++)
		if (err[i] == 0)
			present[arr[i] / 64] |= UINT64_C(1) << arr[i] % 64;
	return map;
}

int
io_uring_register_files(struct io_uring *ring, const int *files, unsigned n)
{
	struct stat st;

	/* What a device says of itself would have to be recorded too. */
	if ((n == 1 || files[1] == -1) && fstat(files[0], &st) == 0 &&
	    S_ISREG(st.st_mode)) {
		sectors = st.st_size / SECTOR;
		read_only = (fcntl(files[0], F_GETFL) & O_ACCMODE) == O_RDONLY;
	}
	return REAL(io_uring_register_files)(ring, files, n);
}

int
xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t local)
{
	unsigned i;

	for (i = 0; i < SLOTS; i++)
		if (port[i] == (int)local && open_trace()) {
			record_published(false);
			record_access(i);
		}
	return REAL(xenevtchn_notify)(xce, local);
}

unsigned
io_uring_peek_batch_cqe(
    struct io_uring *ring, struct io_uring_cqe **cqes, unsigned max)
{
	unsigned n = REAL(io_uring_peek_batch_cqe)(ring, cqes, max);

	if (n == 0 && opened && out != NULL) {
		record_published(false);
		record_deferred();
		record_available();
		record_kicks();
		queue.event = wanted_event();
	}
	return n;
}

#if defined(__aarch64__)
int
xendevicemodel_set_irq_level(xendevicemodel_handle *dmod, domid_t domid,
    unsigned int irq, unsigned int level)
{
	record_interrupt(level);
	return REAL(xendevicemodel_set_irq_level)(dmod, domid, irq, level);
}
#else
int
xendevicemodel_set_isa_irq_level(
    xendevicemodel_handle *dmod, domid_t domid, uint8_t irq, unsigned int level)
{
	record_interrupt(level);
	return REAL(xendevicemodel_set_isa_irq_level)(dmod, domid, irq, level);
}
#endif

int
poll(struct pollfd *fds, nfds_t n, int timeout)
{
	if (opened && out != NULL)
		record_published(false);
	return REAL(poll)(fds, n, timeout);
}
