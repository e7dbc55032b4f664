/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ioreq.h seam for unit programs: an interrupt line that counts.
 */
#ifndef FAKE_IOREQ_H
#define FAKE_IOREQ_H

struct ioreq_server {
	unsigned raised;
	unsigned lowered;
};

#endif
