/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The part of ioreq.h that a device needs: its interrupt, its state, and
 * whether an access is pending.  The rest of that header is missing on purpose:
 * a device which calls it does not link.
 */
#include "fake_ioreq.h"
#include "ioreq.h"

bool
ioreq_interrupt(struct ioreq_server *io, unsigned level)
{
	if (io->refused > 0) {
		io->refused--;
		return false;
	}
	io->level = level;
	if (level == 0)
		io->lowered++;
	else
		io->raised++;
	return true;
}

void *
ioreq_state(struct ioreq_server *io, bool *adopted)
{
	*adopted = io->adopted;
	return io->state;
}

bool
ioreq_pending(const struct ioreq_server *io)
{
	return io->pending;
}
