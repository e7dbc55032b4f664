/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that the guest has granted: with --grants, the addresses in its rings
 * are grant references (Linux's drivers/xen/grant-dma-ops.c), and iovecs have
 * these addresses in place of pointers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

struct xentoollog_logger;

/*
 * The grants of domain 'domid'; NULL: this host has none.  And their descriptor,
 * opened anew once Xen's handles have been restricted, which disables those of
 * grants; -1: failed.  Failures have been logged.
 */
struct grants *grant_new(struct xentoollog_logger *log, uint16_t domid);
int grant_open(struct grants *grants);

/* The address for an iovec, or NULL, EFAULT: none of grants of 'len' bytes. */
void *grant_address(uint64_t addr, uint64_t len);

/*
 * Map grants, of a ring, for reading and writing, until grant_unmap_all().
 * NULL: errno is ENOMEM if the host cannot now, else they are not usable.  Of
 * what is granted for reading only, too, the host is said to be unable.
 *
 * A guest cannot take a grant back that is mapped, and Linux then gives up the
 * device: so they must be unmapped before it is told that it may.
 */
void *grant_map(struct grants *grants, uint64_t addr, size_t len);
void grant_unmap_all(struct grants *grants);

/*
 * Copy 'len' bytes between our memory at 'p' and the guest's 'iov', and with the
 * same call a 0 to its 'status', unless that is NULL.  What is no grant is a
 * pointer; 'grants' may be NULL if all are.  False: not all of it is granted.
 */
bool guest_copy_all(struct grants *grants, const struct iovec *iov, void *p,
    size_t len, bool to_guest, void *status);

static inline bool
guest_copy(struct grants *grants, const struct iovec *iov, void *p, size_t len,
    bool to_guest, void *status)
{
	/* Most is small, of a length that the compiler knows. */
	if (grants != NULL || iov->iov_len < len || status != NULL)
		return guest_copy_all(grants, iov, p, len, to_guest, status);
	memcpy(to_guest ? iov->iov_base : p, to_guest ? p : iov->iov_base, len);
	return true;
}
