/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory: from guest-physical addresses (gpa) to pointers (hva). */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xentoollog_logger;
struct guest;

/* As a limit: what this host can spare for one disk. */
#define GUEST_LIMIT_DEFAULT UINT64_MAX

/*
 * Reserve the window for the memory of domain 'domid', of which no more than
 * 'limit' bytes are going to be mapped at a time (8 MiB at least).  Nothing is
 * mapped yet.  NULL on failure, which has been logged to 'log'.
 */
struct guest *guest_open(
    struct xentoollog_logger *log, uint16_t domid, uint64_t limit);

/*
 * The guest-physical range [gpa, gpa + len) as a contiguous range here, mapped
 * for reading and writing; NULL if that cannot be, and then guest_map_error()
 * says why.  'len' may be 0.
 *
 * The guest shares this memory and changes it at any time: read once, then
 * judge.  The pointer is good until guest_reclaim() or guest_unmap_all(); it
 * may be kept in a request in flight, and nowhere else.
 */
void *guest_map(struct guest *guest, uint64_t gpa, size_t len);

/* Why the last guest_map() that gave NULL did so. */
enum guest_map_error {
	GUEST_NOT_PRESENT,  /* some of it is not guest memory */
	GUEST_NO_RESOURCES, /* not now: the host has no room for it */
	GUEST_OVER_LIMIT,   /* not now: more would be mapped than the limit */
};
enum guest_map_error guest_map_error(const struct guest *guest);

/*
 * Give back some of what is mapped, the least recently used first, but nothing
 * that was kept by guest_pin() since the last call.  False: there was nothing
 * to give back.  Pointers are good only to what was kept.  To keep what is not
 * guest memory is harmless.
 */
bool guest_reclaim(struct guest *guest);
void guest_pin(struct guest *guest, const void *p, size_t len);

/*
 * For a guest that runs on while its memory is copied, to migrate:
 * guest_wrote() notes that [gpa, gpa + len), mapped or not, has been written
 * to, which Xen does not see; guest_report() tells Xen of all that was noted,
 * mostly with one hypercall, so that it is copied again.  What no guest can
 * have is ignored.
 */
#if defined(__x86_64__)
#define GUEST_CAN_MIGRATE true
#else
#define GUEST_CAN_MIGRATE false
#endif
void guest_wrote(struct guest *guest, uint64_t gpa, uint64_t len);
void guest_report(struct guest *guest);

/*
 * Unmap everything, for IOREQ_TYPE_INVALIDATE: pages were removed from the
 * guest and must not be accessed any more.  Nothing may be in flight.
 * guest_map() maps again on demand.
 */
void guest_unmap_all(struct guest *guest);

/* Bytes of the window that are mapped. */
uint64_t guest_mapped(const struct guest *guest);

#endif
