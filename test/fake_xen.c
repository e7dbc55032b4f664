/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fake host: domain, IOREQ servers, event channels, guest memory and the
 * interrupt line in one shared file.  Owns what these calls do; what it says
 * of Xen's behaviour was seen on Xen 4.17 or read in its source.  Knows nothing
 * of virtio.
 *
 * An event channel port of Xen is a server's slot for one vCPU; a process binds
 * it to a port of its own.  Ports that are ready to be read are queued in
 * shared memory, and the descriptor to poll is a datagram socket in which one
 * byte waits exactly while the queue is not empty: it can be written to by any
 * process, and refuses connections once its process is dead, which is how
 * channels become unbound.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <search.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "fake_xen.h"

#include <xentoollog.h>

#include <xen/grant_table.h>
#include <xen/memory.h>

#define MAGIC	      0x6e657866
#define BANK_PAGES    262144
#define SPARE_PAGES   65536
#define ENDLESS_PAGES 512
#define IOREQ_OFFSET  (8 << 20)
#define RAM_OFFSET    (16 << 20)
#define PORTS	      (FAKE_XEN_SERVERS * FAKE_XEN_VCPUS)
#define HANDLES	      32
#define RANGES	      8
#define WATCHED	      32
#define PROCESSES     16
#define GRANTS	      8192
#define GRANT_MAPS    64
#define FIRST_GRANT   8 /* those before it are Xen's and the toolstack's */

/* Areas that a process has for other things than guest memory. */
#define OTHER_AREAS 64

/* So that neither kind of port is an index, nor taken for the other. */
#define REMOTE_PORT 5
#define LOCAL_PORT  2005

#if defined(__x86_64__) || defined(__i386__)
#define X86 true
#else
#define X86 false
#endif

struct server {
	bool exists;
	bool enabled;
	bool buffered;	/* takes buffered requests, as QEMU's does */
	bool elsewhere; /* belongs to another domain than dom0 */
	unsigned ranges;
	uint64_t start[RANGES], end[RANGES];
	uint32_t notified[FAKE_XEN_VCPUS];
};

/* What a vCPU is blocked on: every server of which 'on' has a bit. */
struct vcpu {
	uint32_t on;
	uint32_t looked; /* at as many notifications */
	uint8_t state[FAKE_XEN_SERVERS];
};

/* A process's port, bound to remote port (server * FAKE_XEN_VCPUS + vCPU). */
struct port {
	bool bound;
	bool masked;
	bool pending;
	unsigned handle;
	unsigned remote;
};

struct address {
	struct sockaddr_un name;
	socklen_t len;
};

struct handle {
	bool open;
	struct address address;
	uint32_t head, tail;
	uint16_t queue[PORTS];
};

struct bank {
	uint64_t gpa;
	uint32_t pages;
	uint32_t frame[BANK_PAGES];  /* page of the file; 0: no memory */
	uint32_t copied[BANK_PAGES]; /* checksum of the copy; 0: none */
};

/* What a process has taken of the room for foreign pages. */
struct process {
	pid_t pid;
	uint64_t pages;
};

struct grant {
	uint64_t gfn; /* 0: none */
	bool readonly;
	bool elsewhere; /* for another domain than ours */
};

/* Grants that a process has mapped. */
struct grant_map {
	pid_t pid; /* 0: none */
	uint32_t ref, n;
	void *addr;
};

struct state {
	uint32_t magic;
	pthread_mutex_t lock;
	uint16_t domid;
	unsigned vcpus;
	enum fake_xen_life life;
	uint32_t events;
	unsigned calls[XC_CALLS];
	unsigned fail_nth[XC_CALLS];
	int fail_errno[XC_CALLS];
	struct server servers[FAKE_XEN_SERVERS];
	struct vcpu vcpu[FAKE_XEN_VCPUS];
	struct handle handles[HANDLES];
	struct port ports[PORTS];
	unsigned ports_used; /* none was ever bound from this one on */
	unsigned irq, raised;
	bool line; /* x86: the level that was set last */
	bool up;   /* what the guest's interrupt controller has */
	uint32_t next_frame, end_frame;
	struct bank banks[2];
	bool copying;
	uint64_t flicker;	/* number of one that comes and goes; 0: none */
	bool flickered;		/* it is not there */
	uint64_t endless;	/* page number, and from there on; 0: none */
	uint32_t endless_frame; /* of the first of the pages that it has */
	uint64_t room, room_max; /* in pages */
	int starved;		 /* of memory for tables: ENOENT, ENOMEM */
	struct process processes[PROCESSES];
	struct grant grants[GRANTS];
	struct grant_map grant_maps[GRANT_MAPS];
	unsigned fail_segment;
	int16_t segment_status;
	bool watching;
	uint64_t watched[WATCHED]; /* page numbers, 0: none */
	unsigned stores;
	unsigned kill_after; /* so many more, 0: never */
	unsigned kill_next;  /* what that becomes, see arm() */
};

static_assert(sizeof(struct state) <= IOREQ_OFFSET, "no room for the state");
static_assert(HANDLES <= 32, "wake_handles has not so many bits");

/* What all handles begin with. */
struct common {
	xentoollog_logger *logger;
	int domid;	     /* restricted to this one, or -1 */
	bool grants;	     /* a handle of gntdev's */
	bool null;	     /* ... that has become /dev/null */
	struct common *next; /* opened before it by this process */
};

struct xendevicemodel_handle {
	struct common c;
};

struct xengntdev_handle {
	struct common c;
};

struct xenforeignmemory_handle {
	struct common c;
};

/* A mapping of guest memory, whether or not there is any in it. */
struct mapping {
	uint8_t *addr;
	size_t pages;
};

struct xenforeignmemory_resource_handle {
	void *addr;
	size_t len;
};

struct xenevtchn_handle {
	struct common c;
	int fd;
	unsigned index;
};

static struct state *xen;
static int xen_fd = -1;
static struct common *opened; /* all handles of this process */
static void *mappings;	      /* ... and mappings, a tree of tsearch()'s */
static unsigned nmappings, areas_max;
static uint8_t *view; /* the banks, one after the other, in the test */

/* The sockets that unlock() must wake, after the lock is released. */
static uint32_t wake_handles; /* bit h: handle h */
static bool wake_guest;

static _Noreturn void
die(const char *what)
{
	fprintf(stderr, "fake_xen: %s\n", what);
	abort();
}

static void
map_state(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");

	if (f == NULL || fscanf(f, "%u", &areas_max) != 1)
		areas_max = 65530;
	if (f != NULL)
		fclose(f);
	areas_max -= OTHER_AREAS;
	xen = mmap(
	    NULL, RAM_OFFSET, PROT_READ | PROT_WRITE, MAP_SHARED, xen_fd, 0);
	if (xen == MAP_FAILED)
		die("cannot map the state");
}

/*
 * The state, for a process that did not make it; false if there is no Xen.
 */
static bool
attach(void)
{
	const char *path = getenv("FAKE_XEN");

	if (xen != NULL)
		return true;
	if (path == NULL || (xen_fd = open(path, O_RDWR | O_CLOEXEC)) == -1) {
		errno = ENOENT;
		return false;
	}
	map_state();
	return true;
}

static void
lock(void)
{
	int error;

	if (xen == NULL)
		die("no host was made");
	error = pthread_mutex_lock(&xen->lock);
	/* The process was killed holding it: the state is what it left. */
	if (error == EOWNERDEAD)
		error = pthread_mutex_consistent(&xen->lock);
	if (error != 0 || xen->magic != MAGIC)
		die("the state was overwritten");
}

/*
 * One byte to the socket of a handle, ignored if that process is dead.
 */
static void
wake(const struct address *to)
{
	static int fd = -1;

	if (fd == -1)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	sendto(fd, "", 1, MSG_DONTWAIT, (const struct sockaddr *)&to->name,
	    to->len);
}

static void
unlock(void)
{
	struct address to[HANDLES];
	bool guest = wake_guest;
	unsigned n = 0;

	/* Once it is unlocked a successor of the dead may have the handle. */
	for (; wake_handles != 0; wake_handles &= wake_handles - 1)
		to[n++] = xen->handles[__builtin_ctz(wake_handles)].address;
	wake_guest = false;
	pthread_mutex_unlock(&xen->lock);
	while (n > 0)
		wake(&to[--n]);
	if (guest)
		syscall(SYS_futex, &xen->events, FUTEX_WAKE, INT_MAX, NULL,
		    NULL, 0);
}

static void arm(enum fake_xen_call call);

/*
 * Count the call, and return the error that it must fail with.
 */
static int
count(enum fake_xen_call call)
{
	xen->calls[call]++;
	if (xen->fail_nth[call] == 0 || --xen->fail_nth[call] != 0)
		return 0;
	if (xen->fail_errno[call] == FAKE_XEN_KILLED)
		kill(getpid(), SIGKILL);
	return xen->fail_errno[call];
}

/*
 * Begin a call: takes the lock, and returns the error the call must fail with.
 */
static int
enter(enum fake_xen_call call)
{
	lock();
	arm(call);
	return count(call);
}

static int
enter_domain(enum fake_xen_call call, int restricted, uint32_t domid)
{
	int error = enter(call);

	if (error == 0 && restricted != -1 && restricted != (int)domid)
		error = EPERM;
	if (error == 0 && (domid != xen->domid || xen->life == FAKE_XEN_DEAD))
		error = ESRCH;
	return error;
}

static int
leave(int error)
{
	unlock();
	if (error == 0)
		return 0;
	errno = error;
	return -1;
}

/*
 * The real libraries that use privcmd say themselves that they cannot open it,
 * to the logger or, without one, to stderr; of other failures none says
 * anything.
 */
static void
complain(xentoollog_logger *logger, const char *library)
{
	static const char what[] =
	    "Could not obtain handle on privileged command interface";
	int error = errno;

	if (logger != NULL)
		xtl_log(logger, XTL_ERROR, error, library, "%s", what);
	else
		fprintf(stderr, "%s: error: %s\n", library, what);
	errno = error;
}

static void *
open_handle(enum fake_xen_call call, xentoollog_logger *logger, size_t size)
{
	struct common *handle;

	if (!attach() || leave(enter(call)) == -1) {
		if (call == XC_DEVICEMODEL_OPEN)
			complain(logger, "xencall");
		if (call == XC_FOREIGNMEMORY_OPEN)
			complain(logger, "xenforeignmemory");
		return NULL;
	}
	handle = calloc(1, size);
	if (handle == NULL)
		return NULL;
	handle->logger = logger;
	handle->domid = -1;
	handle->grants = call == XC_GNTTAB_OPEN;
	handle->next = opened;
	opened = handle;
	return handle;
}

int
xentoolcore_restrict_all(domid_t domid)
{
	int error = enter(XC_RESTRICT_ALL);
	struct common *c;

	for (c = opened; error == 0 && c != NULL; c = c->next) {
		if (c->domid != -1 && c->domid != domid)
			error = EACCES;
		else
			c->domid = domid;
		/* gntdev cannot be restricted: it is made useless. */
		c->null |= c->grants;
	}
	return leave(error);
}

static void
event(void)
{
	__atomic_add_fetch(&xen->events, 1, __ATOMIC_RELEASE);
	wake_guest = true;
}

/*
 * Event channels.
 */

static bool
is_dead(const struct handle *h)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool dead;

	if (fd == -1)
		die("cannot make a socket");
	dead = connect(fd, (const struct sockaddr *)&h->address.name,
		   h->address.len) == -1;
	close(fd);
	return dead;
}

/*
 * Remove dead processes and unbind their ports.  Who does it may be killed
 * meanwhile: the next one begins anew.
 */
static void
bury(void)
{
	struct handle *h;
	unsigned i, p;

	for (i = 0; i < HANDLES; i++) {
		h = &xen->handles[i];
		if (!h->open || !is_dead(h))
			continue;
		for (p = 0; p < PORTS; p++) {
			if (!xen->ports[p].bound || xen->ports[p].handle != i)
				continue;
			count(XC_RELEASE);
			xen->ports[p].bound = false;
		}
		__atomic_store_n(&h->open, false, __ATOMIC_RELEASE);
	}
}

static void
deliver(struct port *port)
{
	struct handle *h = &xen->handles[port->handle];

	if (port->masked) {
		port->pending = true;
		return;
	}
	port->masked = true;
	port->pending = false;
	h->queue[h->tail++ % PORTS] = port - xen->ports;
	if (h->tail - h->head == 1)
		wake_handles |= UINT32_C(1) << port->handle;
}

static void
raise_port(unsigned remote)
{
	unsigned i;

	for (i = 0; i < xen->ports_used; i++)
		if (xen->ports[i].bound && xen->ports[i].remote == remote)
			deliver(&xen->ports[i]);
}

static struct port *
local_port(const xenevtchn_handle *xce, evtchn_port_t number)
{
	struct port *port;

	if (number < LOCAL_PORT || number >= LOCAL_PORT + PORTS)
		return NULL;
	port = &xen->ports[number - LOCAL_PORT];
	return port->bound && port->handle == xce->index ? port : NULL;
}

xenevtchn_handle *
xenevtchn_open(struct xentoollog_logger *logger, unsigned flags)
{
	struct sockaddr_un any = {.sun_family = AF_UNIX};
	xenevtchn_handle *xce;
	struct handle *h;

	xce = open_handle(XC_EVTCHN_OPEN, logger, sizeof(*xce));
	if (xce == NULL)
		return NULL;
	xce->fd = socket(AF_UNIX,
	    SOCK_DGRAM | (flags & XENEVTCHN_NO_CLOEXEC ? 0 : SOCK_CLOEXEC), 0);
	if (xce->fd == -1 ||
	    bind(xce->fd, (struct sockaddr *)&any, sizeof(any.sun_family)))
		die("cannot make a socket");
	lock();
	bury();
	for (xce->index = 0; xen->handles[xce->index].open; xce->index++)
		if (xce->index == HANDLES - 1)
			die("too many event channel handles");
	h = &xen->handles[xce->index];
	memset(h, 0, sizeof(*h));
	h->address.len = sizeof(h->address.name);
	getsockname(
	    xce->fd, (struct sockaddr *)&h->address.name, &h->address.len);
	/* Last: who is killed before is not found dead later. */
	__atomic_store_n(&h->open, true, __ATOMIC_RELEASE);
	unlock();
	return xce;
}

int
xenevtchn_fd(xenevtchn_handle *xce)
{
	return leave(enter(XC_EVTCHN_FD)) == -1 ? -1 : xce->fd;
}

static xenevtchn_port_or_error_t
bind_port(const xenevtchn_handle *xce, unsigned remote)
{
	struct port *port = NULL;
	unsigned i;

	bury();
	if (remote >= PORTS || !xen->servers[remote / FAKE_XEN_VCPUS].exists ||
	    remote % FAKE_XEN_VCPUS >= xen->vcpus)
		return -EINVAL;
	for (i = PORTS; i-- > 0;) {
		if (!xen->ports[i].bound)
			port = &xen->ports[i];
		else if (xen->ports[i].remote == remote)
			return -EINVAL;
	}
	if (port == NULL)
		return -ENOSPC;
	i = port - xen->ports;
	if (xen->ports_used <= i)
		xen->ports_used = i + 1;
	*port = (struct port){.handle = xce->index, .remote = remote};
	/* Last: it is unbound when its owner is found dead. */
	__atomic_store_n(&port->bound, true, __ATOMIC_RELEASE);
	deliver(port);
	return LOCAL_PORT + (port - xen->ports);
}

xenevtchn_port_or_error_t
xenevtchn_bind_interdomain(
    xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote_port)
{
	int error = enter_domain(XC_BIND_INTERDOMAIN, xce->c.domid, domid);
	int port = 0;

	if (error == 0) {
		port = bind_port(xce, remote_port - REMOTE_PORT);
		if (port < 0)
			error = -port;
	}
	return leave(error) == -1 ? -1 : port;
}

int
xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t number)
{
	int error = enter(XC_UNBIND);
	struct port *port = local_port(xce, number);

	if (error == 0 && port == NULL)
		error = ENOTCONN;
	if (error == 0)
		port->bound = false;
	return leave(error);
}

int
xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t number)
{
	int error = enter(XC_NOTIFY);
	struct port *port = local_port(xce, number);
	unsigned remote;

	if (error == 0 && port == NULL)
		error = ENOTCONN;
	if (error == 0) {
		remote = port->remote;
		xen->servers[remote / FAKE_XEN_VCPUS]
		    .notified[remote % FAKE_XEN_VCPUS]++;
		event();
	}
	return leave(error);
}

xenevtchn_port_or_error_t
xenevtchn_pending(xenevtchn_handle *xce)
{
	struct handle *h = &xen->handles[xce->index];
	int error = enter(XC_PENDING);
	struct port *port;
	char byte;

	if (error != 0)
		return leave(error);
	for (;;) {
		port = NULL;
		while (port == NULL && h->head != h->tail) {
			port = &xen->ports[h->queue[h->head++ % PORTS]];
			if (!port->bound || port->handle != xce->index)
				port = NULL;
			/* Its byte is there, or on the way. */
			while (h->head == h->tail &&
			       recv(xce->fd, &byte, 1, 0) == -1)
				;
		}
		unlock();
		if (port != NULL)
			return LOCAL_PORT + (port - xen->ports);
		/* Waits, or fails, as the descriptor is set to. */
		if (recv(xce->fd, &byte, 1, MSG_PEEK) == -1)
			return -1;
		lock();
	}
}

int
xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t number)
{
	int error = enter(XC_UNMASK);
	struct port *port = local_port(xce, number);

	if (error == 0 && port == NULL)
		error = ENOTCONN;
	if (error == 0) {
		port->masked = false;
		if (port->pending)
			deliver(port);
	}
	return leave(error);
}

/*
 * Device model operations.
 */

static ioreq_t *
page(unsigned id)
{
	return (void *)((uint8_t *)xen + IOREQ_OFFSET + id * FAKE_XEN_PAGE);
}

static int
enter_server(
    enum fake_xen_call call, int restricted, domid_t domid, ioservid_t id)
{
	int error = enter_domain(call, restricted, domid);

	if (error == 0 &&
	    (xen->life == FAKE_XEN_DYING || id >= FAKE_XEN_SERVERS ||
		!xen->servers[id].exists))
		error = ENOENT;
	if (error == 0 && xen->servers[id].elsewhere)
		error = EPERM;
	return error;
}

xendevicemodel_handle *
xendevicemodel_open(struct xentoollog_logger *logger,
    unsigned open_flags __attribute__((unused)))
{
	return open_handle(
	    XC_DEVICEMODEL_OPEN, logger, sizeof(xendevicemodel_handle));
}

int
xendevicemodel_create_ioreq_server(xendevicemodel_handle *dmod, domid_t domid,
    int handle_bufioreq, ioservid_t *id)
{
	int error = enter_domain(XC_CREATE_IOREQ_SERVER, dmod->c.domid, domid);
	unsigned i;

	/* As Arm has it; x86 would take others. */
	if (error == 0 && handle_bufioreq != HVM_IOREQSRV_BUFIOREQ_OFF)
		error = EINVAL;
	for (i = 0; i < FAKE_XEN_SERVERS && xen->servers[i].exists; i++)
		;
	if (error == 0 && i == FAKE_XEN_SERVERS)
		error = ENOSPC;
	if (error == 0) {
		memset(&xen->servers[i], 0, sizeof(xen->servers[i]));
		memset(page(i), 0, FAKE_XEN_PAGE);
		xen->servers[i].exists = true;
		*id = i;
	}
	return leave(error);
}

int
xendevicemodel_get_ioreq_server_info(xendevicemodel_handle *dmod, domid_t domid,
    ioservid_t id, xen_pfn_t *ioreq_gfn, xen_pfn_t *bufioreq_gfn,
    evtchn_port_t *bufioreq_port)
{
	int error =
	    enter_server(XC_GET_IOREQ_SERVER_INFO, dmod->c.domid, domid, id);

	if (ioreq_gfn != NULL || bufioreq_gfn != NULL)
		die("the IOREQ page has no frame number here");
	if (error == 0 && bufioreq_port != NULL)
		*bufioreq_port =
		    xen->servers[id].buffered ? REMOTE_PORT + PORTS : 0;
	return leave(error);
}

int
xendevicemodel_map_io_range_to_ioreq_server(xendevicemodel_handle *dmod,
    domid_t domid, ioservid_t id, int is_mmio, uint64_t start, uint64_t end)
{
	int error = enter_server(XC_MAP_IO_RANGE, dmod->c.domid, domid, id);
	struct server *s = &xen->servers[id % FAKE_XEN_SERVERS];
	unsigned i;

	if (error == 0 && (!is_mmio || start > end))
		error = EINVAL;
	for (i = 0; error == 0 && i < s->ranges; i++)
		if (start <= s->end[i] && end >= s->start[i])
			error = EEXIST;
	if (error == 0 && s->ranges == RANGES)
		error = ENOSPC;
	if (error == 0) {
		s->start[s->ranges] = start;
		s->end[s->ranges] = end;
		__atomic_store_n(&s->ranges, s->ranges + 1, __ATOMIC_RELEASE);
	}
	return leave(error);
}

int
xendevicemodel_set_ioreq_server_state(
    xendevicemodel_handle *dmod, domid_t domid, ioservid_t id, int enabled)
{
	int error =
	    enter_server(XC_SET_IOREQ_SERVER_STATE, dmod->c.domid, domid, id);
	unsigned i;

	if (error == 0) {
		xen->servers[id].enabled = enabled != 0;
		for (i = 0; enabled && i < xen->vcpus; i++)
			page(id)[i].vp_eport =
			    REMOTE_PORT + id * FAKE_XEN_VCPUS + i;
	}
	return leave(error);
}

int
xendevicemodel_destroy_ioreq_server(
    xendevicemodel_handle *dmod, domid_t domid, ioservid_t id)
{
	int error =
	    enter_server(XC_DESTROY_IOREQ_SERVER, dmod->c.domid, domid, id);
	unsigned i;

	if (error == 0) {
		xen->servers[id].exists = false;
		xen->servers[id].enabled = false;
		for (i = 0; i < PORTS; i++)
			if (xen->ports[i].remote / FAKE_XEN_VCPUS == id)
				xen->ports[i].bound = false;
	}
	return leave(error);
}

int
xendevicemodel_nr_vcpus(
    xendevicemodel_handle *dmod, domid_t domid, unsigned int *vcpus)
{
	int error = enter_domain(XC_NR_VCPUS, dmod->c.domid, domid);

	if (error == 0)
		*vcpus = xen->vcpus;
	return leave(error);
}

/*
 * Whether the guest takes the interrupt as an edge: all of Arm's vGIC, and of
 * x86's the one that vdisk.asl describes so.
 */
static bool
is_edge(void)
{
	return !X86 || xen->irq == 7;
}

static int
set_line(int error, unsigned irq, unsigned level)
{
	bool rises = level != 0 && (!X86 || !xen->line);

	if (error == 0) {
		xen->irq = irq;
		xen->raised += rises;
		xen->line = level != 0;
		xen->up = is_edge() ? xen->up || rises : xen->line;
		event();
	}
	return leave(error);
}

int
xendevicemodel_set_irq_level(xendevicemodel_handle *dmod, domid_t domid,
    unsigned int irq, unsigned int level)
{
	int error = enter_domain(XC_SET_IRQ_LEVEL, dmod->c.domid, domid);

	if (error == 0 && X86)
		error = EOPNOTSUPP;
	if (error == 0 && (irq < 32 || irq > 1019 || level > 1))
		error = EINVAL;
	return set_line(error, irq, level);
}

int
xendevicemodel_set_isa_irq_level(
    xendevicemodel_handle *dmod, domid_t domid, uint8_t irq, unsigned int level)
{
	int error = enter_domain(XC_SET_ISA_IRQ_LEVEL, dmod->c.domid, domid);

	if (error == 0 && !X86)
		error = EOPNOTSUPP;
	if (error == 0 && (irq > 15 || level > 1))
		error = EINVAL;
	return set_line(error, irq, level);
}

/*
 * Slow motion.  Pages that are watched are mapped for reading only; an
 * instruction that stores there faults, and is then carried out alone.  While
 * nobody is to be killed, the first store makes a page as any other.
 */

#if defined(__x86_64__)

#define TRAP_FLAG 0x100 /* single-step */

static void
count_store(void)
{
	xen->stores++;
	if (xen->kill_after != 0 && --xen->kill_after == 0)
		kill(getpid(), SIGKILL);
}

/* Of this process; a signal handler has no other way to know. */
static uint8_t *watched_page[WATCHED + FAKE_XEN_SERVERS];
static unsigned watched_pages;
static uint8_t *storing; /* page that is written to just now */

static void
on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint8_t *at = info->si_addr;
	unsigned i;

	for (i = 0; i < watched_pages; i++)
		if (at - watched_page[i] >= 0 &&
		    at - watched_page[i] < FAKE_XEN_PAGE)
			break;
	if (i == watched_pages) {
		signal(sig, SIG_DFL); /* a fault of its own: let it happen */
		return;
	}
	storing = watched_page[i];
	mprotect(storing, FAKE_XEN_PAGE, PROT_READ | PROT_WRITE);
	if (xen->kill_after != 0)
		uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void
on_step(int sig __attribute__((unused)),
    siginfo_t *info __attribute__((unused)), void *context)
{
	ucontext_t *uc = context;

	uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	mprotect(storing, FAKE_XEN_PAGE, PROT_READ);
	count_store();
}

static bool
can_watch(void)
{
	return true;
}

/* In a call: have stores count from here on, if it is time. */
static void
arm(enum fake_xen_call call)
{
	if (xen->kill_next == 0 || (watched_pages > 0 && call != XC_NOTIFY))
		return;
	for (unsigned i = 0; i < watched_pages; i++)
		mprotect(watched_page[i], FAKE_XEN_PAGE, PROT_READ);
	xen->kill_after = xen->kill_next;
	xen->kill_next = 0;
}

/*
 * Watch the page that is mapped at 'addr'.
 */
static void
watch(uint8_t *addr)
{
	struct sigaction fault = {
	    .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	struct sigaction trap = {
	    .sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	unsigned i;

	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGTRAP, &trap, NULL);
	mprotect(addr, FAKE_XEN_PAGE, PROT_READ);
	for (i = 0; i < watched_pages && watched_page[i] != addr; i++)
		;
	if (i == WATCHED + FAKE_XEN_SERVERS)
		die("too many pages are watched");
	watched_page[i] = addr;
	if (i == watched_pages)
		watched_pages++;
}

#else

static bool
can_watch(void)
{
	return false;
}

static void
arm(enum fake_xen_call call __attribute__((unused)))
{
}

static void
watch(uint8_t *addr __attribute__((unused)))
{
}

static void
count_store(void)
{
}

#endif

static bool
is_watched(uint64_t gfn)
{
	unsigned i;

	for (i = 0; i < WATCHED; i++)
		if (xen->watching && xen->watched[i] == gfn)
			return true;
	return false;
}

/*
 * The address space.  Linux's privcmd takes a page of the room for each page of
 * a mapping and frees the wrong ones when a mapping is split; it frees them
 * when all of it goes.  So whatever this process maps and unmaps is looked at.
 */

static void *
sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

static int
overlap(const void *a, const void *b)
{
	const struct mapping *x = a, *y = b;

	if (x->addr + x->pages * FAKE_XEN_PAGE <= y->addr)
		return -1;
	return x->addr >= y->addr + y->pages * FAKE_XEN_PAGE;
}

/*
 * The room that this process has taken.
 */
static uint64_t *
taken(void)
{
	static struct process *p;
	struct state *of = xen;
	static struct state *was;

	if (was == of && p->pid == getpid())
		return &p->pages;
	was = of;
	for (p = of->processes; p->pid != 0 && kill(p->pid, 0) == 0; p++)
		if (p == &of->processes[PROCESSES - 1])
			die("too many processes");
	*p = (struct process){.pid = getpid()};
	return &p->pages;
}

/*
 * Whatever is mapped in the range has gone.
 */
static void
forget_mappings(uint8_t *addr, size_t len)
{
	struct mapping key = {addr, len / FAKE_XEN_PAGE}, *m, **found;

	while ((found = tfind(&key, &mappings, overlap)) != NULL) {
		m = *found;
		if (m->addr < addr ||
		    m->addr + m->pages * FAKE_XEN_PAGE > addr + len)
			die("a mapping is split");
		__atomic_sub_fetch(taken(), m->pages, __ATOMIC_RELAXED);
		nmappings--;
		tdelete(m, &mappings, overlap);
		free(m);
	}
}

/*
 * Those of libc, in front of which we are.
 */
#if defined(FAKE_XEN_LIBRARY) && defined(__x86_64__)
#define LIBC "GLIBC_2.2.5"
#elif defined(FAKE_XEN_LIBRARY)
#define LIBC "GLIBC_2.17"
#endif
#ifdef LIBC
#define mmap   our_mmap
#define munmap our_munmap
void *our_mmap(void *, size_t, int, int, int, off_t);
int our_munmap(void *, size_t);
__asm__(".symver our_mmap, mmap@@" LIBC);
__asm__(".symver our_munmap, munmap@@" LIBC);
#endif

void *
mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *p;

	/* As Linux does, which counts before it looks what goes. */
	if (nmappings > 0 && nmappings > areas_max) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	p = sys_mmap(addr, len, prot, flags, fd, offset);
	if (p != MAP_FAILED && (flags & MAP_FIXED))
		forget_mappings(p, len);
	return p;
}

int
munmap(void *addr, size_t len)
{
	int e = syscall(SYS_munmap, addr, len);

	if (e == 0)
		forget_mappings(addr, len);
	return e;
}

/*
 * Foreign memory.
 */

/* The page of the file that is page 'gfn' of the guest, or 0. */
static uint32_t
frame(uint64_t gfn)
{
	uint64_t n;
	unsigned i;

	if (xen->endless != 0 && gfn >= xen->endless)
		return xen->endless_frame + gfn % ENDLESS_PAGES;
	for (i = 0; i < 2; i++) {
		n = gfn - xen->banks[i].gpa / FAKE_XEN_PAGE;
		if (n < xen->banks[i].pages)
			return xen->banks[i].frame[n];
	}
	return 0;
}

/* Where what is known of the copy of the page is kept. */
static uint32_t *
copied(uint64_t gfn)
{
	struct bank *b = gfn >= FAKE_XEN_HIGH / FAKE_XEN_PAGE ? &xen->banks[1]
							      : &xen->banks[0];

	return &b->copied[gfn - b->gpa / FAKE_XEN_PAGE];
}

static uint32_t
checksum(uint64_t gfn)
{
	const uint32_t *data = mmap(NULL, FAKE_XEN_PAGE, PROT_READ, MAP_SHARED,
	    xen_fd, (off_t)frame(gfn) * FAKE_XEN_PAGE);
	uint32_t sum = 1;

	if (data == MAP_FAILED)
		die("cannot map guest memory");
	for (unsigned i = 0; i < FAKE_XEN_PAGE / 4; i++)
		sum = (sum ^ data[i]) * 0x9e3779b1u + (sum >> 15);
	munmap((void *)data, FAKE_XEN_PAGE);
	return sum | 1;
}

/*
 * As Xen has it: nothing is looked at unless the guest is copied; from the last
 * to the first; and a range that ends beyond the number of the last page is
 * refused, one too early.  Linux's privcmd limits the size.
 */
int
xendevicemodel_modified_memory_bulk(xendevicemodel_handle *dmod, domid_t domid,
    struct xen_dm_op_modified_memory_extent *extent, uint32_t nr)
{
	int error = enter_domain(XC_MODIFIED_MEMORY, dmod->c.domid, domid);
	const struct bank *last = &xen->banks[xen->banks[1].pages > 0];
	uint64_t max = last->gpa / FAKE_XEN_PAGE + last->pages - 1;

	if (error == 0 && !X86)
		error = EOPNOTSUPP;
	if (error == 0 && nr * sizeof(*extent) > FAKE_XEN_PAGE)
		error = E2BIG;
	while (error == 0 && xen->copying && nr-- > 0) {
		uint64_t gfn = extent[nr].first_pfn, end = gfn + extent[nr].nr;

		if (extent[nr].pad != 0 || end <= gfn || end > max)
			error = EINVAL;
		for (; error == 0 && gfn < end; gfn++)
			if (frame(gfn) != 0)
				*copied(gfn) = checksum(gfn);
	}
	return leave(error);
}

/*
 * Map 'n' pages at 'addr', each run of neighbours in the file at once.
 */
static void
map_frames(uint8_t *addr, int prot, size_t n, const xen_pfn_t *gfn)
{
	size_t i, run;

	for (i = 0; i < n; i += run) {
		for (run = 1; i + run < n; run++)
			if (frame(gfn[i]) == 0 ||
			    frame(gfn[i + run]) != frame(gfn[i]) + run)
				break;
		if (frame(gfn[i]) != 0 &&
		    sys_mmap(addr + i * FAKE_XEN_PAGE, run * FAKE_XEN_PAGE,
			prot, MAP_SHARED | MAP_FIXED, xen_fd,
			(off_t)frame(gfn[i]) * FAKE_XEN_PAGE) == MAP_FAILED)
			die("cannot map guest memory");
	}
}

static void *
reserve(void *addr, size_t len, int flags)
{
	return sys_mmap(addr, len, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (flags & MAP_FIXED),
	    -1, 0);
}

/*
 * Whether there is room for a mapping of so many pages.
 */
static bool
has_room(size_t pages)
{
	return nmappings < areas_max && fake_xen_foreign() <= xen->room &&
	       pages <= xen->room - fake_xen_foreign();
}

/*
 * There is one now.
 */
static void
remember_mapping(uint8_t *addr, size_t pages)
{
	struct mapping *m = malloc(sizeof(*m));

	if (m == NULL)
		die("out of memory");
	*m = (struct mapping){addr, pages};
	tsearch(m, &mappings, overlap);
	nmappings++;
	*taken() += pages;
	if (xen->room_max < fake_xen_foreign())
		xen->room_max = fake_xen_foreign();
}

xenforeignmemory_handle *
xenforeignmemory_open(struct xentoollog_logger *logger,
    unsigned open_flags __attribute__((unused)))
{
	return open_handle(
	    XC_FOREIGNMEMORY_OPEN, logger, sizeof(xenforeignmemory_handle));
}

void *
xenforeignmemory_map2(xenforeignmemory_handle *fmem, uint32_t dom, void *addr,
    int prot, int flags, size_t pages, const xen_pfn_t arr[], int err[])
{
	int error = enter_domain(XC_MAP2, fmem->c.domid, dom);
	bool there = error == 0 && xen->life == FAKE_XEN_ALIVE;
	size_t i, bad = 0;
	void *map;

	/* Of a domain that does not exist all pages fail, and not the call. */
	if (error == ESRCH)
		error = 0;
	if (error == 0 && !has_room(pages))
		error = ENOMEM;
	/* The real one maps first, and unmaps when the hypercall fails. */
	if (error != 0) {
		if (flags & MAP_FIXED)
			munmap(addr, pages * FAKE_XEN_PAGE);
		leave(error);
		return NULL;
	}
	map = reserve(addr, pages * FAKE_XEN_PAGE, flags);
	if (map == MAP_FAILED) {
		leave(errno);
		return NULL;
	}
	forget_mappings(map, pages * FAKE_XEN_PAGE);
	remember_mapping(map, pages);
	for (i = 0; i < pages; i++) {
		error = there && frame(arr[i]) != 0 ? 0
			: there			    ? EINVAL
						    : ESRCH;
		if (error == ESRCH && xen->life == FAKE_XEN_DYING)
			error = EINVAL;
		if (error == 0 && arr[i] != 0 && arr[i] == xen->flicker) {
			error = xen->flickered ? EINVAL : 0;
			xen->flickered = !xen->flickered;
		}
		if (error == 0)
			error = xen->starved;
		bad += error != 0;
		if (err != NULL)
			err[i] = error == ENOMEM
				     ? (int)(arr[i / 2] >> (i % 2 * 32))
				     : -error;
	}
	if (there && !xen->starved)
		map_frames(map, prot, pages, arr);
	for (i = 0; there && i < pages; i++)
		if (is_watched(arr[i]))
			watch((uint8_t *)map + i * FAKE_XEN_PAGE);
	if (err == NULL && bad != 0) {
		munmap(map, pages * FAKE_XEN_PAGE);
		leave(EINVAL);
		return NULL;
	}
	unlock();
	return map;
}

int
xenforeignmemory_unmap(xenforeignmemory_handle *fmem __attribute__((unused)),
    void *addr, size_t pages)
{
	int error = enter(XC_UNMAP);

	if (error == 0 && munmap(addr, pages * FAKE_XEN_PAGE) == -1)
		error = errno;
	return leave(error);
}

xenforeignmemory_resource_handle *
xenforeignmemory_map_resource(xenforeignmemory_handle *fmem, domid_t domid,
    unsigned int type, unsigned int id, unsigned long frame_number,
    unsigned long nr_frames, void **paddr, int prot, int flags)
{
	int error = enter_domain(XC_MAP_RESOURCE, fmem->c.domid, domid);
	xenforeignmemory_resource_handle *fres = NULL;

	if (error == 0 &&
	    (type != XENMEM_resource_ioreq_server || id >= FAKE_XEN_SERVERS ||
		!xen->servers[id].exists ||
		frame_number != XENMEM_resource_ioreq_server_frame_ioreq(0) ||
		nr_frames != 1 || (flags & ~MAP_SHARED) != 0))
		error = EINVAL;
	if (error == 0 && (fres = calloc(1, sizeof(*fres))) == NULL)
		error = ENOMEM;
	if (error == 0) {
		fres->len = FAKE_XEN_PAGE;
		fres->addr = mmap(*paddr, fres->len, prot, MAP_SHARED, xen_fd,
		    IOREQ_OFFSET + id * FAKE_XEN_PAGE);
		if (fres->addr == MAP_FAILED)
			die("cannot map an IOREQ page");
		if (xen->watching && (prot & PROT_WRITE))
			watch(fres->addr);
		*paddr = fres->addr;
	}
	return leave(error) == -1 ? NULL : fres;
}

int
xenforeignmemory_unmap_resource(xenforeignmemory_handle *fmem
    __attribute__((unused)),
    xenforeignmemory_resource_handle *fres)
{
	int error = enter(XC_UNMAP_RESOURCE);

	if (error == 0 && fres != NULL) {
		munmap(fres->addr, fres->len);
		free(fres);
	}
	return leave(error);
}

/*
 * Grants.  As Linux's gntdev has it: a mapping is whole or fails with EINVAL,
 * whatever Xen has against it; copies go on after one that fails, which tells in
 * its status, but what cannot be a copy at all ends the call.
 */

/* The libraries' own words, which a guest can provoke. */
static void
grumble(const xengnttab_handle *xgt, const char *what)
{
	int error = errno;

	if (xgt->c.logger != NULL)
		xtl_log(xgt->c.logger, XTL_ERROR, error, "gnttab", "%s", what);
	else
		fprintf(stderr, "gnttab: error: %s\n", what);
	errno = error;
}

static int
enter_grants(enum fake_xen_call call, const xengnttab_handle *xgt)
{
	int error = enter(call);

	return error == 0 && xgt->c.null ? ENOTTY : error;
}

/* What Xen says to the use of a grant, for writing or not. */
static int16_t
look_up_grant(uint32_t domid, uint32_t ref, bool write)
{
	const struct grant *g = &xen->grants[ref % GRANTS];

	if (domid != xen->domid || xen->life != FAKE_XEN_ALIVE)
		return GNTST_bad_domain;
	if (ref >= GRANTS)
		return GNTST_bad_gntref;
	if (g->gfn == 0 || g->elsewhere || (write && g->readonly))
		return GNTST_general_error;
	return frame(g->gfn) == 0 ? GNTST_bad_page : GNTST_okay;
}

/* Xen knows what is written by way of grants. */
static void
mark_dirty(uint64_t gfn)
{
	if (xen->copying && frame(gfn) != 0)
		*copied(gfn) = checksum(gfn);
}

xengnttab_handle *
xengnttab_open(struct xentoollog_logger *logger,
    unsigned open_flags __attribute__((unused)))
{
	xengnttab_handle *xgt =
	    open_handle(XC_GNTTAB_OPEN, logger, sizeof(xengnttab_handle));

	if (xgt == NULL)
		return NULL;
	/* What the dead had mapped has gone with them. */
	lock();
	for (int i = 0; i < GRANT_MAPS; i++)
		if (xen->grant_maps[i].pid != 0 &&
		    kill(xen->grant_maps[i].pid, 0) < 0)
			xen->grant_maps[i].pid = 0;
	unlock();
	return xgt;
}

int
xengnttab_close(xengnttab_handle *xgt)
{
	xgt->c.null = true;
	return 0;
}

/* Nothing can be done with it. */
int
xengnttab_fd(xengnttab_handle *xgt __attribute__((unused)))
{
	return xen_fd;
}

void *
xengnttab_map_domain_grant_refs(xengnttab_handle *xgt, uint32_t count,
    uint32_t domid, uint32_t *refs, int prot)
{
	int error = enter_grants(XC_GRANT_MAP, xgt);
	bool write = prot & PROT_WRITE;
	struct grant_map *m = xen->grant_maps;
	uint8_t *p = MAP_FAILED;

	for (uint32_t i = 0; error == 0 && i < count; i++) {
		if (look_up_grant(domid, refs[i], write) != GNTST_okay)
			error = EINVAL;
		if (refs[i] != refs[0] + i)
			die("references that are not consecutive");
	}
	while (error == 0 && m->pid != 0)
		if (++m == xen->grant_maps + GRANT_MAPS)
			die("too many grants are mapped");
	if (error == 0 &&
	    (p = reserve(NULL, count * FAKE_XEN_PAGE, 0)) == MAP_FAILED)
		error = ENOMEM;
	for (uint32_t i = 0; error == 0 && i < count; i++) {
		xen_pfn_t gfn = xen->grants[refs[i]].gfn;

		map_frames(p + i * FAKE_XEN_PAGE, prot, 1, &gfn);
		if (is_watched(gfn))
			watch(p + i * FAKE_XEN_PAGE);
	}
	if (error == 0)
		*m = (struct grant_map){getpid(), refs[0], count, p};
	if (leave(error) == 0)
		return p;
	grumble(xgt, "mmap failed");
	return NULL;
}

int
xengnttab_unmap(xengnttab_handle *xgt, void *addr, uint32_t count)
{
	int error = enter_grants(XC_GRANT_UNMAP, xgt);
	struct grant_map *m = xen->grant_maps;

	while (error == 0 && (m->pid != getpid() || m->addr != addr))
		if (++m == xen->grant_maps + GRANT_MAPS)
			error = EINVAL;
	if (error == 0 && m->n != count)
		error = EINVAL;
	if (error == 0) {
		for (uint32_t i = 0; i < count; i++)
			mark_dirty(xen->grants[m->ref + i].gfn);
		syscall(SYS_munmap, addr, count * FAKE_XEN_PAGE);
		m->pid = 0;
	}
	return leave(error);
}

/* The guest's page, by a mapping of everything, which fake_xen_mapped() ignores. */
static uint8_t *
xens_view(uint64_t gfn)
{
	static struct state *of;
	static uint8_t *all;

	if (of != xen) {
		of = xen;
		all = sys_mmap(NULL, (size_t)xen->end_frame * FAKE_XEN_PAGE,
		    PROT_READ | PROT_WRITE, MAP_SHARED, xen_fd, 0);
		if (all == MAP_FAILED)
			die("cannot map guest memory");
	}
	return all + (size_t)frame(gfn) * FAKE_XEN_PAGE;
}

static int16_t
copy_segment(const xengnttab_grant_copy_segment_t *s)
{
	bool to = s->flags & GNTCOPY_dest_gref;
	const union xengnttab_copy_ptr *theirs = to ? &s->dest : &s->source;
	uint32_t ref = theirs->foreign.ref;
	int16_t status = look_up_grant(theirs->foreign.domid, ref, to);
	xen_pfn_t gfn;
	uint8_t *page;

	if (xen->fail_segment != 0 && --xen->fail_segment == 0)
		return xen->segment_status;
	if (status != GNTST_okay)
		return status;
	gfn = xen->grants[ref].gfn;
	page = xens_view(gfn);
	if (to)
		memcpy(page + theirs->foreign.offset, s->source.virt, s->len);
	else
		memcpy(s->dest.virt, page + theirs->foreign.offset, s->len);
	if (to)
		mark_dirty(gfn);
	if (to && xen->watching)
		count_store();
	return GNTST_okay;
}

int
xengnttab_grant_copy(
    xengnttab_handle *xgt, uint32_t count, xengnttab_grant_copy_segment_t *segs)
{
	int error = enter_grants(XC_GRANT_COPY, xgt);

	for (uint32_t i = 0; error == 0 && i < count; i++) {
		xengnttab_grant_copy_segment_t *s = &segs[i];
		bool to = s->flags & GNTCOPY_dest_gref;
		bool from = s->flags & GNTCOPY_source_gref;

		if (to == from ||
		    (to ? s->dest : s->source).foreign.offset + s->len >
			FAKE_XEN_PAGE)
			error = EINVAL;
		else
			s->status = copy_segment(s);
	}
	if (leave(error) == 0)
		return 0;
	grumble(xgt, "ioctl GRANT COPY failed");
	return -1;
}

/*
 * The other side.
 */

/* A process that was killed has nothing mapped, even before it is waited for. */
static bool
lives(pid_t pid)
{
	char path[32], state = 'Z';
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		return false;
	if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 'Z';
	fclose(f);
	return state != 'Z' && state != 'X';
}

uint32_t
fake_xen_grant(uint64_t gpa, unsigned n, bool readonly)
{
	static uint32_t next = FIRST_GRANT;
	unsigned found = 0, looked = 0;

	lock();
	/* Not the ones that were taken back last, by which errors would hide. */
	for (; found < n; next++) {
		if (looked++ > 2 * GRANTS)
			die("the guest has no grants left");
		if (next >= GRANTS) {
			next = FIRST_GRANT - 1;
			found = 0;
			continue;
		}
		found = xen->grants[next].gfn != 0 ? 0 : found + 1;
	}
	for (unsigned i = 0; i < n; i++)
		xen->grants[next - n + i] = (struct grant){
		    .gfn = gpa / FAKE_XEN_PAGE + i, .readonly = readonly};
	unlock();
	return next - n;
}

static bool
is_mapped(uint32_t ref)
{
	struct grant_map *m = xen->grant_maps;

	for (; m < xen->grant_maps + GRANT_MAPS; m++) {
		if (m->pid == 0 || ref - m->ref >= m->n)
			continue;
		if (lives(m->pid))
			return true;
		m->pid = 0;
	}
	return false;
}

bool
fake_xen_ungrant(uint32_t ref, unsigned n)
{
	bool good = true;

	lock();
	for (; n > 0; n--, ref++) {
		if (xen->grants[ref].gfn == 0 || is_mapped(ref))
			good = false;
		else
			xen->grants[ref].gfn = 0;
	}
	unlock();
	return good;
}

void
fake_xen_grant_elsewhere(uint32_t ref)
{
	xen->grants[ref].elsewhere = true;
}

unsigned
fake_xen_grants_mapped(void)
{
	unsigned pages = 0;

	for (unsigned i = 0; i < GRANT_MAPS; i++)
		if (xen->grant_maps[i].pid != 0 &&
		    lives(xen->grant_maps[i].pid))
			pages += xen->grant_maps[i].n;
	return pages;
}

void
fake_xen_fail_segment(unsigned nth, int16_t status)
{
	lock();
	xen->fail_segment = nth;
	xen->segment_status = status;
	unlock();
}

static void
fill_bank(struct bank *bank, uint64_t gpa, uint64_t size)
{
	uint32_t i;

	if (size / FAKE_XEN_PAGE > BANK_PAGES)
		die("a bank is at most 1 GiB");
	bank->gpa = gpa;
	bank->pages = size / FAKE_XEN_PAGE;
	for (i = 0; i < bank->pages; i++)
		bank->frame[i] = xen->next_frame++;
}

void
fake_xen_start(uint16_t domid, unsigned vcpus, uint64_t low, uint64_t high)
{
	pthread_mutexattr_t attr;

	/* The previous host is kept: its handles may still be in use. */
	xen_fd = memfd_create("fake-xen", MFD_CLOEXEC);
	if (xen_fd == -1 ||
	    ftruncate(xen_fd,
		RAM_OFFSET + low + high + SPARE_PAGES * FAKE_XEN_PAGE) == -1)
		die("cannot make the state");
	map_state();
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&xen->lock, &attr);
	xen->domid = domid;
	xen->vcpus = vcpus;
	xen->room = UINT64_MAX;
	xen->next_frame = RAM_OFFSET / FAKE_XEN_PAGE;
	fill_bank(&xen->banks[0], FAKE_XEN_LOW, low);
	fill_bank(&xen->banks[1], FAKE_XEN_HIGH, high);
	xen->end_frame = xen->next_frame + SPARE_PAGES;
	xen->servers[FAKE_XEN_SERVERS - 1].exists = X86;
	xen->servers[FAKE_XEN_SERVERS - 1].buffered = X86;
	xen->magic = MAGIC;
	view = mmap(NULL, low + high, PROT_READ | PROT_WRITE, MAP_SHARED,
	    xen_fd, RAM_OFFSET);
	if (view == MAP_FAILED)
		die("cannot map guest memory");
}

const char *
fake_xen_path(void)
{
	static char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), xen_fd);
	return path;
}

void
fake_xen_remove_qemu(void)
{
	xen->servers[FAKE_XEN_SERVERS - 1].exists = false;
}

void
fake_xen_move_qemu(void)
{
	xen->servers[FAKE_XEN_SERVERS - 1].elsewhere = true;
}

unsigned
fake_xen_calls(enum fake_xen_call call)
{
	return __atomic_load_n(&xen->calls[call], __ATOMIC_RELAXED);
}

void
fake_xen_fail(enum fake_xen_call call, unsigned nth, int error)
{
	lock();
	xen->fail_nth[call] = nth;
	xen->fail_errno[call] = error;
	unlock();
}

void
fake_xen_set_life(enum fake_xen_life life)
{
	lock();
	xen->life = life;
	unlock();
}

bool
fake_xen_server_exists(unsigned id)
{
	return xen->servers[id].exists;
}

bool
fake_xen_server_enabled(unsigned id)
{
	return xen->servers[id].enabled;
}

bool
fake_xen_server_claims(unsigned id, uint64_t gpa)
{
	const struct server *s = &xen->servers[id];
	unsigned i;

	for (i = 0; i < s->ranges; i++)
		if (s->exists && gpa >= s->start[i] && gpa <= s->end[i])
			return true;
	return false;
}

unsigned
fake_xen_server_bound(unsigned id)
{
	unsigned i, bound = 0;

	lock();
	bury();
	for (i = 0; i < PORTS; i++)
		bound += xen->ports[i].bound &&
			 xen->ports[i].remote / FAKE_XEN_VCPUS == id;
	unlock();
	return bound;
}

ioreq_t *
fake_xen_server_page(unsigned id)
{
	return page(id);
}

/* The page of the view at 'gpa', and its frame. */
static uint8_t *
look(uint64_t gpa, uint32_t **framep)
{
	uint8_t *base = view;
	uint64_t n;
	unsigned i;

	for (i = 0; i < 2; i++) {
		n = (gpa - xen->banks[i].gpa) / FAKE_XEN_PAGE;
		if (gpa >= xen->banks[i].gpa && n < xen->banks[i].pages) {
			*framep = &xen->banks[i].frame[n];
			return base + n * FAKE_XEN_PAGE;
		}
		base += (size_t)xen->banks[i].pages * FAKE_XEN_PAGE;
	}
	die("the test touched an address without memory");
}

void *
fake_xen_ram(uint64_t gpa)
{
	uint32_t *f;

	return look(gpa, &f) + gpa % FAKE_XEN_PAGE;
}

void
fake_xen_take_page(uint64_t gpa)
{
	uint32_t *f;
	uint8_t *p;

	lock();
	p = look(gpa, &f);
	*f = 0;
	reserve(p, FAKE_XEN_PAGE, MAP_FIXED);
	unlock();
}

void
fake_xen_give_page(uint64_t gpa)
{
	xen_pfn_t gfn = gpa / FAKE_XEN_PAGE;
	uint32_t *f;
	uint8_t *p;

	lock();
	p = look(gpa, &f);
	if (xen->next_frame == xen->end_frame)
		die("no spare pages left");
	*f = xen->next_frame++;
	map_frames(p, PROT_READ | PROT_WRITE, 1, &gfn);
	unlock();
}

void
fake_xen_copy(bool on)
{
	lock();
	xen->copying = on;
	for (unsigned i = 0; i < 2; i++)
		memset(xen->banks[i].copied, 0, sizeof(xen->banks[i].copied));
	unlock();
}

bool
fake_xen_copied(uint64_t gpa)
{
	uint64_t gfn = gpa / FAKE_XEN_PAGE;
	uint32_t copy;

	lock();
	copy = frame(gfn) != 0 ? *copied(gfn) : 0;
	unlock();
	return copy != 0 && copy == checksum(gfn);
}

void
fake_xen_set_room(uint64_t pages)
{
	lock();
	xen->room = pages;
	xen->room_max = fake_xen_foreign();
	unlock();
}

uint64_t
fake_xen_foreign(void)
{
	uint64_t pages = 0;

	for (unsigned i = 0; i < PROCESSES; i++)
		if (xen->processes[i].pid != 0 &&
		    kill(xen->processes[i].pid, 0) == 0)
			pages += xen->processes[i].pages;
	return pages;
}

void
fake_xen_starve(int error)
{
	lock();
	xen->starved = error;
	unlock();
}

uint64_t
fake_xen_foreign_max(void)
{
	return xen->room_max;
}

void
fake_xen_flicker(uint64_t gpa)
{
	lock();
	xen->flicker = gpa / FAKE_XEN_PAGE;
	xen->flickered = false;
	unlock();
}

void
fake_xen_endless(uint64_t gpa)
{
	lock();
	if (xen->end_frame - xen->next_frame < ENDLESS_PAGES)
		die("no spare pages left");
	xen->endless = gpa / FAKE_XEN_PAGE;
	xen->endless_frame = xen->next_frame;
	xen->next_frame += ENDLESS_PAGES;
	unlock();
}

unsigned
fake_xen_mapped(int pid)
{
	unsigned long start, end, offset, inode, first;
	unsigned major, minor, pages = 0;
	struct stat st;
	char line[512];
	FILE *maps;

	snprintf(line, sizeof(line), "/proc/%d/maps", pid ? pid : getpid());
	maps = fopen(line, "r");
	if (maps == NULL)
		return 0;
	if (fstat(xen_fd, &st) == -1)
		die("the state was closed");
	first = (unsigned long)view;
	while (fgets(line, sizeof(line), maps) != NULL) {
		if (sscanf(line, "%lx-%lx %*s %lx %x:%x %lu", &start, &end,
			&offset, &major, &minor, &inode) != 6 ||
		    inode != st.st_ino || major != major(st.st_dev) ||
		    minor != minor(st.st_dev) || offset < RAM_OFFSET)
			continue;
		if (pid == 0 && start >= first &&
		    end <= first + (size_t)(xen->banks[0].pages +
					    xen->banks[1].pages) *
				       FAKE_XEN_PAGE)
			continue;
		pages += (end - start) / FAKE_XEN_PAGE;
	}
	fclose(maps);
	return pages;
}

/* That the vCPU has had, of all servers: each wakes it, and it looks at all slots. */
static uint32_t
notifications(unsigned vcpu)
{
	uint32_t sum = 0;

	for (unsigned id = 0; id < FAKE_XEN_SERVERS; id++)
		sum += xen->servers[id].notified[vcpu];
	return sum;
}

static void
fill_slot(unsigned id, unsigned vcpu, const ioreq_t *req)
{
	struct vcpu *v = &xen->vcpu[vcpu];
	ioreq_t *slot = &page(id)[vcpu];

	if (slot->state != STATE_IOREQ_NONE)
		die("a slot is in use before the vCPU used it");
	slot->addr = req->addr;
	slot->data = req->data;
	slot->count = req->count;
	slot->size = req->size;
	slot->data_is_ptr = req->data_is_ptr;
	slot->dir = req->dir;
	slot->df = 0;
	slot->type = req->type;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	slot->state = STATE_IOREQ_READY;
	v->on |= 1u << id;
	v->looked = notifications(vcpu);
	v->state[id] = STATE_IOREQ_READY;
	raise_port(id * FAKE_XEN_VCPUS + vcpu);
}

unsigned
fake_xen_issue(unsigned vcpu, const ioreq_t *req)
{
	bool all = req->type == IOREQ_TYPE_INVALIDATE;
	unsigned id, servers = 0;

	lock();
	if (vcpu >= xen->vcpus || xen->vcpu[vcpu].on != 0)
		die("a vCPU that is not there, or waits, made an access");
	for (id = FAKE_XEN_SERVERS; id-- > 0 && (all || servers == 0);)
		if (xen->servers[id].enabled &&
		    (all || fake_xen_server_claims(id, req->addr))) {
			fill_slot(id, vcpu, req);
			servers++;
		}
	unlock();
	return servers;
}

/*
 * Check one slot as Xen does in wait_for_io(), of a vCPU that was woken up or not.
 */
static void
look_at_slot(unsigned id, unsigned vcpu, bool woken, uint64_t *data)
{
	struct vcpu *v = &xen->vcpu[vcpu];
	ioreq_t *slot = &page(id)[vcpu];
	uint8_t state = slot->state;

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (state < v->state[id] || state > STATE_IORESP_READY)
		die("a slot went backwards: Xen crashes the domain");
	v->state[id] = state;
	if (!woken || state != STATE_IORESP_READY)
		return;
	*data = slot->data;
	slot->state = STATE_IOREQ_NONE;
	v->on &= ~(1u << id);
}

bool
fake_xen_answered(unsigned vcpu, uint64_t *data)
{
	struct vcpu *v = &xen->vcpu[vcpu];
	uint32_t notified;
	unsigned id;
	bool done;

	lock();
	notified = notifications(vcpu);
	for (id = 0; id < FAKE_XEN_SERVERS; id++)
		if (v->on & 1u << id)
			look_at_slot(id, vcpu, notified != v->looked, data);
	v->looked = notified;
	done = v->on == 0;
	unlock();
	return done;
}

void
fake_xen_spurious(unsigned id, unsigned vcpu)
{
	lock();
	raise_port(id * FAKE_XEN_VCPUS + vcpu);
	unlock();
}

unsigned
fake_xen_irq_raised(void)
{
	return __atomic_load_n(&xen->raised, __ATOMIC_ACQUIRE);
}

unsigned
fake_xen_irq_number(void)
{
	return xen->irq;
}

bool
fake_xen_irq_up(void)
{
	return __atomic_load_n(&xen->up, __ATOMIC_ACQUIRE);
}

void
fake_xen_irq_take(void)
{
	lock();
	if (is_edge())
		xen->up = false;
	unlock();
}

bool
fake_xen_watch(uint64_t gpa)
{
	unsigned i;

	for (i = 0; xen->watched[i] != 0; i++)
		if (i == WATCHED - 1)
			die("too many pages to watch");
	xen->watched[i] = gpa / FAKE_XEN_PAGE;
	xen->watching = can_watch();
	return xen->watching;
}

void
fake_xen_kill_after(unsigned nth)
{
	xen->kill_after = 0;
	xen->kill_next = nth;
}

unsigned
fake_xen_stores(void)
{
	return xen->stores;
}

uint32_t
fake_xen_events(void)
{
	return __atomic_load_n(&xen->events, __ATOMIC_ACQUIRE);
}

bool
fake_xen_sleep(uint32_t seen, int ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	if (syscall(SYS_futex, &xen->events, FUTEX_WAIT, seen, &ts, NULL, 0) ==
		-1 &&
	    errno == ETIMEDOUT)
		return fake_xen_events() != seen;
	return true;
}
