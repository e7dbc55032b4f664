/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest.h seam for unit programs: guest memory made of ordinary memory,
 * with nothing around it, so that any access out of bounds faults.
 */
#ifndef FAKE_GUEST_H
#define FAKE_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

#define FAKE_GUEST_PAGE 4096

/*
 * A guest whose physical addresses [base, base + size) may be populated; at
 * first all of it is a hole.  Ends the test if there is no memory.
 */
struct guest *fake_guest_open(uint64_t base, size_t size);
void fake_guest_close(struct guest *guest);

/*
 * New guest memory of 'len' bytes, as near before an unmapped page as 'align'
 * permits, and after one: its guest-physical address.
 */
uint64_t fake_guest_alloc(struct guest *guest, size_t len, size_t align);

/*
 * The same memory as the guest itself sees it.
 */
void *fake_guest_at(struct guest *guest, uint64_t gpa);

/*
 * Unpopulate the pages of [gpa, gpa + len), or everything.
 */
void fake_guest_hole(struct guest *guest, uint64_t gpa, size_t len);
void fake_guest_revoke(struct guest *guest);

/*
 * Give back the pages that [gpa, gpa + len) touches, as they were.
 */
void fake_guest_fill(struct guest *guest, uint64_t gpa, size_t len);

/*
 * Why there is nothing in a hole from now on: the guest has it not, as at
 * first, or it cannot be mapped now.
 */
void fake_guest_shortage(struct guest *guest, int error);

/*
 * Calls so far of guest_map() and guest_unmap_all().
 */
unsigned fake_guest_lookups(const struct guest *guest);
unsigned fake_guest_forgets(const struct guest *guest);

/*
 * Slow motion: from now on 'after' is called after each instruction of the
 * device that touches the page of 'gpa', with the number of such instructions
 * so far, and may change memory as a guest could at that moment.  NULL ends
 * it.  False where a program cannot single-step itself; nothing happens then.
 */
bool fake_guest_step(
    struct guest *guest, uint64_t gpa, void (*after)(unsigned nth));

#endif
