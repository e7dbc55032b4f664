/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A Xen host with one guest, as far as vdisk can see of it: the libxen* calls
 * vdisk makes, and no others, so that a new one is a link error.  This header
 * is the other side: what a test does as hypervisor, toolstack and guest.
 *
 * The state lives in a memfd.  Linked into a test program the calls work on the
 * state that the program made; as shared libraries in front of the real ones
 * they work on the state of which the environment variable FAKE_XEN is the
 * path, so that a process under test can be killed and the state stays, as it
 * does in Xen.
 *
 * Where a real Xen calls domain_crash(), this calls abort().
 */
#ifndef FAKE_XEN_H
#define FAKE_XEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Xen's public headers keep what is for tools from others. */
#ifndef __XEN_TOOLS__
#define __XEN_TOOLS__ 1
#endif
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xengnttab.h>
#include <xentoolcore.h>

#include <xen/hvm/ioreq.h>

/* Where the guest's memory is; at most 1 GiB in each bank. */
#define FAKE_XEN_LOW	 0x40000000ULL
#define FAKE_XEN_HIGH	 0x3000000000ULL /* of 40 bits, not 32 */

#define FAKE_XEN_PAGE	 4096
#define FAKE_XEN_SERVERS 8
#if defined(__x86_64__)
#define FAKE_XEN_QEMUS 1 /* so many of them are taken */
#else
#define FAKE_XEN_QEMUS 0
#endif
#define FAKE_XEN_VCPUS 128

enum fake_xen_call {
	XC_RESTRICT_ALL,
	XC_DEVICEMODEL_OPEN,
	XC_CREATE_IOREQ_SERVER,
	XC_GET_IOREQ_SERVER_INFO,
	XC_MAP_IO_RANGE,
	XC_SET_IOREQ_SERVER_STATE,
	XC_DESTROY_IOREQ_SERVER,
	XC_SET_IRQ_LEVEL,
	XC_SET_ISA_IRQ_LEVEL,
	XC_NR_VCPUS,
	XC_MODIFIED_MEMORY,
	XC_FOREIGNMEMORY_OPEN,
	XC_MAP2,
	XC_UNMAP,
	XC_MAP_RESOURCE,
	XC_UNMAP_RESOURCE,
	XC_GNTTAB_OPEN,
	XC_GRANT_MAP,
	XC_GRANT_UNMAP,
	XC_GRANT_COPY,
	XC_EVTCHN_OPEN,
	XC_EVTCHN_FD,
	XC_BIND_INTERDOMAIN,
	XC_UNBIND,
	XC_NOTIFY,
	XC_PENDING,
	XC_UNMASK,
	XC_RELEASE, /* of a dead process's port, by whoever finds it dead */
	XC_CALLS
};

enum fake_xen_life {
	FAKE_XEN_ALIVE,
	FAKE_XEN_DYING, /* destruction began: ENOENT, memory does not map */
	FAKE_XEN_DEAD,	/* ESRCH */
};

/*
 * Make a host on which domain 'domid' has 'vcpus' vCPUs and 'low' and 'high'
 * bytes of zeroed memory at FAKE_XEN_LOW and FAKE_XEN_HIGH.  It replaces the
 * host made before, if any.
 */
void fake_xen_start(
    uint16_t domid, unsigned vcpus, uint64_t low, uint64_t high);

/*
 * On x86 the domain has a QEMU, which has taken the last of the servers, and
 * serves nothing.  A PVH guest has none; that of an HVM guest can be in another
 * domain than dom0, which is denied all knowledge of it then.
 */
void fake_xen_remove_qemu(void);
void fake_xen_move_qemu(void);

/*
 * What FAKE_XEN must be for another process to live on this host.
 */
const char *fake_xen_path(void);

/*
 * How often 'call' was made, failed calls included; and let the 'nth' from now
 * (1 is the next) fail with errno 'error', or none if 'nth' is 0.
 */
#define FAKE_XEN_KILLED (-1) /* as 'error': the caller is killed instead */
unsigned fake_xen_calls(enum fake_xen_call call);
void fake_xen_fail(enum fake_xen_call call, unsigned nth, int error);

/*
 * Operations of the toolstack.
 */
void fake_xen_set_life(enum fake_xen_life life);

/*
 * What is known of IOREQ server 'id'.  The page is that of Xen: a test may
 * look at slots and at the tail, or damage them.
 */
bool fake_xen_server_exists(unsigned id);
bool fake_xen_server_enabled(unsigned id);
bool fake_xen_server_claims(unsigned id, uint64_t gpa);
unsigned fake_xen_server_bound(unsigned id); /* event channels bound by a
						process that lives */
ioreq_t *fake_xen_server_page(unsigned id);

/*
 * Guest memory at 'gpa' as the guest sees it, contiguous within a bank.
 */
void *fake_xen_ram(uint64_t gpa);

/*
 * Remove a page from the guest, or populate it: a new page, zeroed.  Mappings
 * of the old page stay, and show the old page.
 */
void fake_xen_take_page(uint64_t gpa);
void fake_xen_give_page(uint64_t gpa);

/*
 * The guest takes a page and gives it up all the time: it is there in every other
 * mapping that is asked for, and in the next.
 */
void fake_xen_flicker(uint64_t gpa);

/*
 * The guest's grants.  It lends 'n' pages from that at 'gpa' on to vdisk's
 * domain, by consecutive references, of which the first is returned.  It takes
 * them back; false: somebody has one mapped, or it was never lent.  And it has
 * lent one to another domain.
 */
uint32_t fake_xen_grant(uint64_t gpa, unsigned n, bool readonly);
bool fake_xen_ungrant(uint32_t ref, unsigned n);
void fake_xen_grant_elsewhere(uint32_t ref);

/* So many pages of grants are mapped, by processes that live. */
unsigned fake_xen_grants_mapped(void);

/*
 * The 'nth' segment from now on that is copied has this status, GNTST_*, and
 * nothing happens; as Xen has it if, say, the page is paged out.
 */
void fake_xen_fail_segment(unsigned nth, int16_t status);

/*
 * The guest is being copied, as for a migration, or not any more (x86 only).
 * Its memory was copied before; of what the device model reports from then on,
 * a copy is made at that very moment.  Whether that of the page at 'gpa' is
 * what the page contains now; false if there is none.
 */
void fake_xen_copy(bool on);
bool fake_xen_copied(uint64_t gpa);

/*
 * The guest has memory everywhere from 'gpa' on, as far as addresses go, though
 * it is the same 2 MiB everywhere.
 */
void fake_xen_endless(uint64_t gpa);

/*
 * The host's room for foreign pages: how many there are (at first any number),
 * how many are taken, and how many were at most since the last
 * fake_xen_set_room().  A mapping takes one for each of its pages, whether or
 * not the guest has it, and frees them as a whole.
 */
void fake_xen_set_room(uint64_t pages);

/*
 * There is no memory for the tables by which the host's domain maps, or with 0 some
 * again: then every page that the guest has fails, but not the call.  ENOENT is Xen's
 * own error.  ENOMEM is Linux's, whose privcmd returns the pages' numbers instead, of 64
 * bits, since it has those and the errors, of 32, at the same place.
 */
void fake_xen_starve(int error);
uint64_t fake_xen_foreign(void);
uint64_t fake_xen_foreign_max(void);

/*
 * Pages of guest memory that process 'pid' has mapped (0: this one, not
 * counting what fake_xen_ram() shows), whichever way they were unmapped.
 */
unsigned fake_xen_mapped(int pid);

/*
 * A vCPU makes the access in 'addr', 'data', 'count', 'size', 'type', 'dir' and
 * 'data_is_ptr' of *req; the rest is not looked at.  Returns the number of
 * servers it went to: IOREQ_TYPE_INVALIDATE goes to every enabled one, others
 * to the one that claims 'addr', if any.  Unless it is 0, the vCPU is blocked.
 */
unsigned fake_xen_issue(unsigned vcpu, const ioreq_t *req);

/*
 * Whether the access of the vCPU has been completed in its slot *and* notified;
 * if so, *data is the result and the vCPU resumes.  Aborts if a slot went
 * backwards.
 */
bool fake_xen_answered(unsigned vcpu, uint64_t *data);

/*
 * A spurious event.
 */
void fake_xen_spurious(unsigned id, unsigned vcpu);

/*
 * The guest's interrupt line: how often it was raised, and whether it is up.
 * On Arm the line is an edge, and on x86 IRQ 7 is, so these are up from a raise
 * until fake_xen_irq_take(), by which the guest's interrupt controller takes
 * it.  On x86 there is no other edge until the line was lowered.
 */
unsigned fake_xen_irq_raised(void);
unsigned fake_xen_irq_number(void);
bool fake_xen_irq_up(void);
void fake_xen_irq_take(void);

/*
 * Wait until something has happened since fake_xen_events() returned 'seen': a
 * vCPU was notified, or the interrupt line changed.  False: nothing did, for
 * 'ms' milliseconds.
 */
uint32_t fake_xen_events(void);
bool fake_xen_sleep(uint32_t seen, int ms);

/*
 * The stores of another process, one instruction's at a time: those to its
 * IOREQ page, and to the guest pages that fake_xen_watch() named before it
 * mapped them (nobody else may write those through its mapping, as the kernel
 * would when it reads a file into them).  After the 'nth' from its start on, or
 * if it runs already from its next notification on, the process is killed; 0 is
 * never, and then stores cost and count nothing.  fake_xen_watch() is false where
 * a process cannot single-step itself, and nothing happens then.
 */
bool fake_xen_watch(uint64_t gpa);
void fake_xen_kill_after(unsigned nth);
unsigned fake_xen_stores(void);

#endif
