/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ioreq.h seam for unit programs: an interrupt line that counts, accesses
 * that are pending or not, and memory for the state that a device leaves to its
 * successor.
 */
#ifndef FAKE_IOREQ_H
#define FAKE_IOREQ_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio_mmio.h"

struct ioreq_server {
	unsigned raised;
	unsigned lowered;
	unsigned level;	  /* that was set last */
	unsigned refused; /* the next so many are, by the host */
	bool pending;
	bool adopted;
	uint64_t state[VIRTIO_MMIO_STATE_SIZE / sizeof(uint64_t)];
};

#endif
