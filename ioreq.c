/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The IOREQ server.  Owns the page that Xen shares with us, with one slot per
 * vCPU, the event channels that go with it, and the guest's interrupt.  Knows
 * nothing of virtio or disks.
 *
 * A slot goes STATE_IOREQ_READY (Xen) -> STATE_IOREQ_INPROCESS -> STATE_IORESP_READY
 * (us) -> STATE_IOREQ_NONE (Xen), see xen/hvm/ioreq.h, and its vCPU stands
 * still meanwhile.  The states are all that says which vCPU waits; an event is
 * only a reason to look.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define __XEN_TOOLS__ 1 /* the names that Xen keeps for device models */
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xentoollog.h>

#include <xen/hvm/ioreq.h>
#include <xen/memory.h>

#include "ioreq.h"

#define PAGE_BYTES 4096
#define SLOTS	   (PAGE_BYTES / sizeof(ioreq_t))

struct ioreq_server {
	xentoollog_logger *log;
	xendevicemodel_handle *dmod;
	xenevtchn_handle *xce;
	domid_t domid;
	ioservid_t id;
	bool created; /* 'id' is a server of ours */
	uint64_t base;
	uint64_t size;
	unsigned irq;
	int irq_errno; /* last failure to interrupt, logged once */
	ioreq_t *slot; /* in the page shared with Xen, one per vCPU */
	unsigned vcpus;
	unsigned next;	 /* slot at which this sweep continues */
	int port[SLOTS]; /* our end of each vCPU's event channel */
};

/*
 * What differs between the architectures: the guest's interrupt.
 */
#if defined(__aarch64__)
const char *
ioreq_irq_invalid(unsigned long irq)
{
	return irq >= 32 && irq <= 1019 ? NULL : "not an SPI (32 to 1019)";
}

/* Xen's vGIC takes 1 as an edge and ignores 0: spare it that call. */
static int
set_irq(struct ioreq_server *io, unsigned level)
{
	return level == 0 ? 0
			  : xendevicemodel_set_irq_level(
				io->dmod, io->domid, io->irq, level);
}
#elif defined(__x86_64__)
const char *
ioreq_irq_invalid(unsigned long irq)
{
	return irq >= 1 && irq <= 15 ? NULL : "not an ISA IRQ (1 to 15)";
}

static int
set_irq(struct ioreq_server *io, unsigned level)
{
	return xendevicemodel_set_isa_irq_level(
	    io->dmod, io->domid, io->irq, level);
}
#else
#error "no interrupt for this architecture"
#endif

/*
 * Log a failure to set up, and tell so.
 */
static int
refused(struct ioreq_server *io, const char *what)
{
	int e = errno;

	if (e == ESRCH)
		xtl_log(
		    io->log, XTL_ERROR, -1, "vdisk", "no domain %u", io->domid);
	else
		xtl_log(io->log, XTL_ERROR, e, "vdisk", "domain %u: cannot %s",
		    io->domid, what);
	return -1;
}

/*
 * Create the server, map its page and claim the register window for it.
 */
static int
create(struct ioreq_server *io, xenforeignmemory_handle *fmem)
{
	void *page = NULL;

	/* Buffered requests make no sense for registers, and Arm has none. */
	if (xendevicemodel_create_ioreq_server(
		io->dmod, io->domid, HVM_IOREQSRV_BUFIOREQ_OFF, &io->id) < 0)
		return refused(io, "create an IOREQ server (does this Xen have "
				   "them, and are fewer than 8 in use?)");
	io->created = true;
	/* The mapping, and so its handle, lasts as long as the process. */
	if (xenforeignmemory_map_resource(fmem, io->domid,
		XENMEM_resource_ioreq_server, io->id,
		XENMEM_resource_ioreq_server_frame_ioreq(0), 1, &page,
		PROT_READ | PROT_WRITE, 0) == NULL)
		return refused(io, "map the IOREQ page");
	io->slot = page;
	if (xendevicemodel_map_io_range_to_ioreq_server(io->dmod, io->domid,
		io->id, 1, io->base, io->base + io->size - 1) < 0)
		return refused(io, "claim the register window");
	return 0;
}

/*
 * Enable the server and bind every vCPU's event channel.  Xen gives a port to each vCPU that the
 * domain can have when the server is enabled, and to no other slot.
 */
static int
enable(struct ioreq_server *io)
{
	if (xendevicemodel_set_ioreq_server_state(
		io->dmod, io->domid, io->id, 1) < 0)
		return refused(io, "enable the IOREQ server");
	while (io->vcpus < SLOTS && io->slot[io->vcpus].vp_eport != 0) {
		int port = xenevtchn_bind_interdomain(
		    io->xce, io->domid, io->slot[io->vcpus].vp_eport);

		if (port < 0)
			return refused(io, "bind a vCPU's event channel");
		io->port[io->vcpus++] = port;
	}
	return 0;
}

struct ioreq_server *
ioreq_open(struct xentoollog_logger *log, uint16_t domid, uint64_t base,
    uint64_t size, unsigned irq)
{
	struct ioreq_server *io = calloc(1, sizeof(*io));
	xenforeignmemory_handle *fmem;

	if (io == NULL) {
		xtl_log(log, XTL_ERROR, errno, "vdisk", "no memory");
		return NULL;
	}
	io->log = log;
	io->domid = domid;
	io->base = base;
	io->size = size;
	io->irq = irq;
	io->dmod = xendevicemodel_open(log, 0);
	io->xce = xenevtchn_open(log, 0);
	if (io->xce == NULL)
		refused(io, "open Xen's event channels");
	fmem = xenforeignmemory_open(log, 0);
	if (io->dmod == NULL || io->xce == NULL || fmem == NULL)
		return NULL; /* the library has logged the other two */
	if (create(io, fmem) == 0 && enable(io) == 0)
		return io;
	/* Nobody waits in it yet, so it can be taken away again. */
	if (io->created) {
		xendevicemodel_set_ioreq_server_state(
		    io->dmod, io->domid, io->id, 0);
		xendevicemodel_destroy_ioreq_server(
		    io->dmod, io->domid, io->id);
	}
	return NULL;
}

int
ioreq_fd(const struct ioreq_server *io)
{
	return xenevtchn_fd(io->xce);
}

int
ioreq_wake(struct ioreq_server *io)
{
	int port = xenevtchn_pending(io->xce);

	if (port >= 0 && xenevtchn_unmask(io->xce, port) == 0)
		return 0;
	xtl_log(io->log, XTL_CRITICAL, errno, "vdisk",
	    "event channels do not work any more");
	return -1;
}

/*
 * Whether 'slot' asks for something that a driver may ask for; *a is that.
 */
static bool
decode(const struct ioreq_server *io, const ioreq_t *slot, struct access *a)
{
	*a = (struct access){
	    .vcpu = slot - io->slot,
	    .offset = slot->addr - io->base,
	    .size = slot->size,
	    .data = slot->data,
	};
	if (slot->type == IOREQ_TYPE_INVALIDATE) {
		a->kind = ACCESS_INVALIDATE;
		return true;
	}
	a->kind = slot->dir == IOREQ_READ ? ACCESS_READ : ACCESS_WRITE;
	return slot->type == IOREQ_TYPE_COPY && slot->count == 1 &&
	       !slot->data_is_ptr && slot->addr >= io->base &&
	       slot->size <= io->size &&
	       slot->addr - io->base <= io->size - slot->size;
}

bool
ioreq_next(struct ioreq_server *io, struct access *a)
{
	while (io->next < io->vcpus) {
		ioreq_t *slot = &io->slot[io->next++];
		unsigned state = ((volatile ioreq_t *)slot)->state;

		if (state != STATE_IOREQ_READY &&
		    state != STATE_IOREQ_INPROCESS)
			continue;
		/* The state before the request that it announces. */
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		slot->state = STATE_IOREQ_INPROCESS;
		if (decode(io, slot, a))
			return true;
		a->data = UINT64_MAX;
		ioreq_done(io, a);
	}
	io->next = 0;
	return false;
}

void
ioreq_done(struct ioreq_server *io, const struct access *a)
{
	ioreq_t *slot = &io->slot[a->vcpu];

	if (slot->dir == IOREQ_READ)
		slot->data = a->data;
	/* The answer before the state that announces it. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	((volatile ioreq_t *)slot)->state = STATE_IORESP_READY;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (xenevtchn_notify(io->xce, io->port[a->vcpu]) < 0)
		xtl_log(io->log, XTL_ERROR, errno, "vdisk",
		    "cannot notify vCPU %u", a->vcpu);
}

static void
interrupt(struct ioreq_server *io, unsigned level)
{
	if (set_irq(io, level) == 0 || errno == io->irq_errno)
		return;
	io->irq_errno = errno;
	xtl_log(
	    io->log, XTL_ERROR, errno, "vdisk", "cannot set IRQ %u", io->irq);
}

void
ioreq_raise(struct ioreq_server *io)
{
	interrupt(io, 1);
}

void
ioreq_lower(struct ioreq_server *io)
{
	interrupt(io, 0);
}

bool
ioreq_alive(struct ioreq_server *io)
{
	return xendevicemodel_get_ioreq_server_info(
		   io->dmod, io->domid, io->id, NULL, NULL, NULL) == 0 ||
	       (errno != ENOENT && errno != ESRCH);
}
