/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The IOREQ server.  Owns the page that Xen shares with us, with one slot per
 * vCPU, the event channels that go with it, and the guest's interrupt.  Knows
 * nothing of virtio or disks.
 *
 * A slot goes STATE_IOREQ_READY (Xen) -> STATE_IOREQ_INPROCESS ->
 * STATE_IORESP_READY (us) -> STATE_IOREQ_NONE (Xen), see xen/hvm/ioreq.h, and
 * its vCPU is blocked meanwhile.  Only the states say which accesses are
 * pending; an event is merely a hint to scan them.
 *
 * The page outlives us: Xen keeps it, the window and the ports for as long as
 * the domain lives.  The slots do not fill it, so the device keeps its state
 * behind them, where a successor finds it:
 *
 *	slot[0] ... slot[vcpus - 1]   at least one unused   state   mark
 *
 * The event channels are the lock: a port can be bound by one process only,
 * and is free again when ioreq_fd() is closed by the last one who has it.  The
 * kernel's direct I/O goes on after the end of a process; so the ring that
 * does it keeps it open until that is over, too (engine_retain()).
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <unistd.h>

#define __XEN_TOOLS__ 1 /* the names that Xen keeps for device models */
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xentoolcore.h>

#include <xen/hvm/ioreq.h>
#include <xen/memory.h>

#include "ioreq.h"
#include "log.h"

#define SLOTS		  (4096 / sizeof(ioreq_t)) /* in Xen's page */
#define MAX_IOREQ_SERVERS 8    /* MAX_NR_IOREQ_SERVERS in Xen */
#define BIND_RETRIES	  2000 /* ms that a predecessor may take to die */
#define MAGIC		  UINT64_C(0x6b736964762d7876) /* "xv-vdisk" */

/* In the last slot, clear of vp_eport, which Xen sets if there is that vCPU. */
struct signature {
	uint64_t magic;
	uint64_t base;	  /* of the register window */
	uint32_t version; /* layout of signature and state */
	uint32_t size;	  /* of the state, in bytes */
};

_Static_assert(sizeof(struct signature) <= offsetof(ioreq_t, vp_eport),
    "the mark lies in the way of a port");

struct ioreq_server {
	xentoollog_logger *log;
	xendevicemodel_handle *dmod;
	xenevtchn_handle *xce;
	xenforeignmemory_handle *fmem;
	struct ioreq_config config;
	domid_t domid;
	ioservid_t id;
	bool created;	       /* 'id' is a new server */
	bool adopted;	       /* 'id' is a predecessor's */
	bool has_device_model; /* e.g. QEMU's IOREQ server */
	int irq_errno;	       /* last failure to interrupt, logged once */
	ioreq_t *slot;	       /* in the page shared with Xen, one per vCPU */
	struct signature *signature; /* in the same page */
	void *state;		     /* behind the slots, or private memory */
	unsigned vcpus;
	unsigned next;	 /* slot at which the scan continues */
	int port[SLOTS]; /* local port of each vCPU's event channel */
};

/* What differs between architectures: interrupt controllers, and WFE. */
#if defined(__aarch64__)
const char *
ioreq_irq_invalid(unsigned long irq)
{
	return irq >= 32 && irq <= 1019 ? NULL : "not an SPI (32 to 1019)";
}

static const bool needs_device_model = false;

/* Xen's vGIC takes 1 as an edge and ignores 0: save that hypercall. */
static int
set_irq(struct ioreq_server *io, unsigned level)
{
	return level == 0 ? 0
			  : xendevicemodel_set_irq_level(
				io->dmod, io->domid, io->config.irq, level);
}

/* An event may be there, as after each exception: then the first takes it. */
bool
ioreq_yield(void)
{
	__asm__ volatile("wfe\n\twfe" ::: "memory");
	return true;
}
#elif defined(__x86_64__)
const char *
ioreq_irq_invalid(unsigned long irq)
{
	return irq >= 1 && irq <= 15 ? NULL : "not an ISA IRQ (1 to 15)";
}

/*
 * A PVH guest has no vPIC, and Xen does not check: to raise an ISA IRQ there
 * crashes the host (vpic_irq_positive_edge() in Xen 4.20).  The kind of guest
 * cannot be queried, but unlike an HVM guest PVH has no QEMU.
 */
static const bool needs_device_model = true;

static int
set_irq(struct ioreq_server *io, unsigned level)
{
	return xendevicemodel_set_isa_irq_level(
	    io->dmod, io->domid, io->config.irq, level);
}

bool
ioreq_yield(void)
{
	return false;
}
#else
#error "no interrupt for this architecture"
#endif

/* Log a setup failure and return NULL, or false. */
static void *
setup_error(struct ioreq_server *io, const char *what)
{
	if (errno == ESRCH)
		return log_error(io->log, -1, "no domain %u", io->domid);
	return log_error(
	    io->log, errno, "domain %u: cannot %s", io->domid, what);
}

/* The mapping stays, unless the caller unmaps it by the handle returned. */
static xenforeignmemory_resource_handle *
map_page(struct ioreq_server *io, int prot)
{
	size_t state_slots = howmany(io->config.state_size, sizeof(ioreq_t));
	void *page = NULL;
	xenforeignmemory_resource_handle *r = xenforeignmemory_map_resource(
	    io->fmem, io->domid, XENMEM_resource_ioreq_server, io->id,
	    XENMEM_resource_ioreq_server_frame_ioreq(0), 1, &page, prot, 0);

	if (r == NULL)
		return NULL;
	io->slot = page;
	io->signature = (struct signature *)&io->slot[SLOTS - 1];
	io->state = &io->slot[SLOTS - 1 - state_slots];
	return r;
}

/* Adopt the server of a killed predecessor, if any.  False: it cannot be. */
static bool
adopt_server(struct ioreq_server *io)
{
	xenforeignmemory_resource_handle *r;
	struct signature signature;

	for (io->id = 0; io->id < MAX_IOREQ_SERVERS; io->id++) {
		evtchn_port_t buffered = 0;
		int info = xendevicemodel_get_ioreq_server_info(
		    io->dmod, io->domid, io->id, NULL, NULL, &buffered);

		/* QEMU has buffered ioreqs, or is in a stub domain. */
		if (info < 0 ? errno == EPERM : buffered != 0)
			io->has_device_model = true;
		if (info < 0 || buffered != 0)
			continue;
		/* It may be another program's: read only.  EPERM: it is. */
		if ((r = map_page(io, PROT_READ)) == NULL && errno != EPERM)
			return setup_error(io, "map the IOREQ page");
		signature = r != NULL ? *io->signature : (struct signature){0};
		xenforeignmemory_unmap_resource(io->fmem, r);
		if (signature.magic != MAGIC ||
		    signature.base != io->config.base)
			continue;
		if (signature.version != io->config.state_version ||
		    signature.size != io->config.state_size)
			return log_error(io->log, -1,
			    "domain %u: the disk at %#llx has the state of "
			    "another version of vdisk, which must be used to "
			    "continue",
			    io->domid, (unsigned long long)signature.base);
		if (map_page(io, PROT_READ | PROT_WRITE) == NULL)
			return setup_error(io, "map the IOREQ page");
		io->adopted = true;
		break;
	}
	return true;
}

/*
 * Every step after the signature can be repeated by a successor.  If we are
 * killed before, the server, one of 8, is lost until the domain ends: without a
 * signature it may be that of another program that is just starting.
 */
static bool
create_server(struct ioreq_server *io)
{
	/* Registers need no buffered ioreqs, and Arm does not have them. */
	if (xendevicemodel_create_ioreq_server(
		io->dmod, io->domid, HVM_IOREQSRV_BUFIOREQ_OFF, &io->id) < 0)
		return setup_error(io,
		    "create an IOREQ server (does this Xen have "
		    "them, and are fewer than 8 in use?)");
	io->created = true;
	if (needs_device_model && !io->has_device_model)
		return log_error(io->log, -1,
		    "domain %u has no QEMU: not an HVM guest, and no other has "
		    "an interrupt to raise",
		    io->domid);
	if (map_page(io, PROT_READ | PROT_WRITE) == NULL)
		return setup_error(io, "map the IOREQ page");
	*io->signature = (struct signature){.base = io->config.base,
	    .version = io->config.state_version,
	    .size = io->config.state_size};
	__atomic_store_n(&io->signature->magic, MAGIC, __ATOMIC_RELEASE);
	return true;
}

/* Bind the next vCPU's port; a killed predecessor may still hold it. */
static bool
bind_port(struct ioreq_server *io)
{
	int port, tries = 0;

	do {
		port = xenevtchn_bind_interdomain(
		    io->xce, io->domid, io->slot[io->vcpus].vp_eport);
		if (port >= 0) {
			io->port[io->vcpus++] = port;
			return true;
		}
	} while (io->adopted && tries++ < BIND_RETRIES && usleep(1000) == 0);
	if (!io->adopted)
		return setup_error(io, "bind a vCPU's event channel");
	return log_error(io->log, -1,
	    "domain %u: another vdisk is serving the disk at %#llx", io->domid,
	    (unsigned long long)io->config.base);
}

/* Once enabled, Xen has given a port to each vCPU's slot, and to no other. */
static bool
enable_server(struct ioreq_server *io)
{
	ioreq_t *end = (ioreq_t *)io->state - 1; /* at least this is unused */

	if (xendevicemodel_map_io_range_to_ioreq_server(io->dmod, io->domid,
		io->id, 1, io->config.base,
		io->config.base + io->config.size - 1) < 0 &&
	    !(io->adopted && errno == EEXIST))
		return setup_error(io, "claim the register window");
	if (xendevicemodel_set_ioreq_server_state(
		io->dmod, io->domid, io->id, 1) < 0)
		return setup_error(io, "enable the IOREQ server");
	if (end->vp_eport != 0) {
		/* The slots of so many vCPUs leave no space for the state. */
		io->signature->magic = 0;
		end = &io->slot[SLOTS];
		if ((io->state = calloc(1, io->config.state_size)) == NULL)
			return setup_error(io, "allocate memory");
		log_msg(io->log, XTL_NOTICE, -1,
		    "domain %u has so many vCPUs that the device state will "
		    "not survive this process",
		    io->domid);
	}
	while (&io->slot[io->vcpus] < end && io->slot[io->vcpus].vp_eport != 0)
		if (!bind_port(io))
			return false;
	return true;
}

struct ioreq_server *
ioreq_open(struct xentoollog_logger *log, const struct ioreq_config *config)
{
	struct ioreq_server *io = calloc(1, sizeof(*io));

	if (io == NULL)
		return log_error(log, errno, "out of memory");
	io->log = log;
	io->config = *config;
	io->domid = config->domid;
	io->dmod = xendevicemodel_open(log, 0);
	if ((io->xce = xenevtchn_open(log, 0)) == NULL)
		setup_error(io, "open Xen's event channels");
	io->fmem = xenforeignmemory_open(log, 0);
	if (io->dmod == NULL || io->xce == NULL || io->fmem == NULL)
		return NULL; /* the library has logged the other two */
	/* Not xendevicemodel_restrict(), which misses libxencall's handle. */
	if (xentoolcore_restrict_all(io->domid) < 0)
		return setup_error(
		    io, "restrict the Xen handles to this domain");
	if (!adopt_server(io) || (!io->adopted && !create_server(io)) ||
	    !enable_server(io)) {
		/* No vCPU is blocked in a new one yet. */
		if (io->created)
			xendevicemodel_destroy_ioreq_server(
			    io->dmod, io->domid, io->id);
		return NULL;
	}
	/* A predecessor may have been killed before its notification. */
	for (unsigned i = 0; i < io->vcpus; i++)
		if (io->slot[i].state == STATE_IORESP_READY)
			xenevtchn_notify(io->xce, io->port[i]);
	return io;
}

void *
ioreq_state(struct ioreq_server *io, bool *adopted)
{
	*adopted = io->adopted;
	return io->state;
}

int
ioreq_fd(const struct ioreq_server *io)
{
	return xenevtchn_fd(io->xce);
}

bool
ioreq_ack_event(struct ioreq_server *io)
{
	int port = xenevtchn_pending(io->xce);

	return (port >= 0 && xenevtchn_unmask(io->xce, port) == 0) ||
	       log_msg(io->log, XTL_CRITICAL, errno, "event channel failure");
}

/* Decode 'slot' to *a.  False: not an access that drivers make. */
static bool
decode(const struct ioreq_server *io, const ioreq_t *slot, struct access *a)
{
	*a = (struct access){.vcpu = slot - io->slot,
	    .offset = slot->addr - io->config.base,
	    .size = slot->size,
	    .data = slot->data};
	if (slot->type == IOREQ_TYPE_INVALIDATE) {
		a->kind = ACCESS_INVALIDATE;
		return true;
	}
	a->kind = slot->dir == IOREQ_READ ? ACCESS_READ : ACCESS_WRITE;
	return slot->type == IOREQ_TYPE_COPY && slot->count == 1 &&
	       !slot->data_is_ptr && slot->addr >= io->config.base &&
	       slot->size <= io->config.size &&
	       slot->addr - io->config.base <= io->config.size - slot->size;
}

static unsigned
state_of(const ioreq_t *slot)
{
	return ((const volatile ioreq_t *)slot)->state;
}

bool
ioreq_next(struct ioreq_server *io, struct access *a)
{
	while (io->next < io->vcpus) {
		ioreq_t *slot = &io->slot[io->next++];
		unsigned state = state_of(slot);

		if (state != STATE_IOREQ_READY &&
		    state != STATE_IOREQ_INPROCESS)
			continue;
		/* Load the state before the request. */
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		slot->state = STATE_IOREQ_INPROCESS;
		if (decode(io, slot, a))
			return true;
		a->data = UINT64_MAX;
		ioreq_complete(io, a);
	}
	io->next = 0;
	return false;
}

bool
ioreq_pending(const struct ioreq_server *io)
{
	for (unsigned i = 0; i < io->vcpus; i++)
		if (state_of(&io->slot[i]) == STATE_IOREQ_READY)
			return true;
	return false;
}

void
ioreq_complete(struct ioreq_server *io, const struct access *a)
{
	ioreq_t *slot = &io->slot[a->vcpu];

	if (slot->dir == IOREQ_READ)
		slot->data = a->data;
	/* Store the response before the state. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	((volatile ioreq_t *)slot)->state = STATE_IORESP_READY;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (xenevtchn_notify(io->xce, io->port[a->vcpu]) < 0)
		log_error(io->log, errno, "cannot notify vCPU %u", a->vcpu);
}

bool
ioreq_interrupt(struct ioreq_server *io, unsigned level)
{
	/* Where it could not be lowered, there would be no edge. */
	if ((level == 0 || io->irq_errno == 0 || set_irq(io, 0) == 0) &&
	    set_irq(io, level) == 0)
		return true;
	if (errno != io->irq_errno)
		log_error(io->log, errno, "cannot set IRQ %u", io->config.irq);
	io->irq_errno = errno;
	return false;
}

bool
ioreq_domain_exists(struct ioreq_server *io)
{
	return xendevicemodel_get_ioreq_server_info(
		   io->dmod, io->domid, io->id, NULL, NULL, NULL) == 0 ||
	       (errno != ENOENT && errno != ESRCH);
}
