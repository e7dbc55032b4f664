/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory: from guest-physical addresses (gpa) to pointers (hva). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct grants;
struct xentoollog_logger;

/*
 * Reserve the window for the memory of domain 'domid', of which no more than
 * 'limit' bytes (at least 8 MiB) are mapped at a time; by default what this
 * host can spare for one disk.  Or, unless 'grants' is NULL, no window, and
 * only rings are mapped, by these.  NULL on failure, which has been logged.
 */
#define GUEST_LIMIT_DEFAULT UINT64_MAX
struct guest *guest_open(struct xentoollog_logger *log, uint16_t domid,
    uint64_t limit, struct grants *grants);

/*
 * Map the guest-physical range [gpa, gpa + len) for reading and writing; 'len'
 * may be 0.  NULL: errno is ENOMEM if the host has no room for it now, ENOBUFS if
 * more would be mapped now than the limit, and else some of it is not guest memory
 * (EFAULT) or, with grants, not granted.
 *
 * The guest changes this memory at any time: load once, then validate.  The
 * pointer is valid until guest_reclaim() or guest_unmap_all(); it may be kept
 * in a request in flight, and nowhere else.
 */
void *guest_map(struct guest *guest, uint64_t gpa, size_t len);

/*
 * Unmap some memory, the least recently used first, but none that guest_pin()
 * has pinned since the last call, to which alone pointers stay valid.  False:
 * nothing was unmapped.  To pin what is not guest memory is harmless.
 */
bool guest_reclaim(struct guest *guest);
void guest_pin(struct guest *guest, const void *p, size_t len);

/*
 * For live migration: guest_wrote() notes that [gpa, gpa + len), mapped or not,
 * has been written to, which Xen does not see; guest_report() marks all of it
 * as dirty, mostly with one hypercall.  What no guest can have is ignored.
 */
#if defined(__x86_64__)
#define GUEST_CAN_MIGRATE true
#else
#define GUEST_CAN_MIGRATE false
#endif
void guest_wrote(struct guest *guest, uint64_t gpa, uint64_t len);
void guest_report(struct guest *guest);

/*
 * Unmap everything, granted rings too: for IOREQ_TYPE_INVALIDATE, or when the
 * guest may take grants back.  Nothing may be in flight.
 */
void guest_unmap_all(struct guest *guest);

/* Bytes of the window that are mapped: with grants, 0. */
uint64_t guest_mapped(const struct guest *guest);
