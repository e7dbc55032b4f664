/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory: the one gate between guest-physical addresses and pointers.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

struct xentoollog_logger;
struct guest;

/*
 * Reserve the window for the memory of domain 'domid'.  Nothing is mapped yet.
 * NULL on failure, which has been logged to 'log'.
 */
struct guest *guest_open(struct xentoollog_logger *log, uint16_t domid);

/*
 * The guest-physical range [gpa, gpa + len) as a contiguous range here, mapped
 * for reading and writing; NULL if any byte of it is not guest memory.  'len'
 * may be 0.
 *
 * The guest shares this memory and changes it at any time: read once, then
 * judge.  The pointer is good until guest_forget(); it may be kept in a request
 * in flight, and nowhere else.
 */
void *guest_ptr(struct guest *guest, uint64_t gpa, size_t len);

/*
 * For a guest that runs on while its memory is copied, to migrate: guest_wrote()
 * notes that [p, p + len), which guest_ptr() gave, has been written to, which Xen
 * does not see; guest_report() tells Xen of all that was noted, mostly with one
 * hypercall, so that it is copied again.
 */
#if defined(__x86_64__)
#define GUEST_CAN_MIGRATE true
#else
#define GUEST_CAN_MIGRATE false
#endif
void guest_wrote(struct guest *guest, const void *p, size_t len);
void guest_report(struct guest *guest);

/*
 * Unmap everything: the guest gave pages back and they must not be written or
 * read any more.  Nothing may be in flight.  What is needed again is mapped
 * again by guest_ptr().
 */
void guest_forget(struct guest *guest);

/*
 * Bytes of the window that are mapped, or somewhat more.
 */
uint64_t guest_mapped(const struct guest *guest);

#endif
