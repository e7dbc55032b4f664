/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A driver's rings in fake guest memory.
 */
#include <endian.h>

#include "fake_driver.h"
#include "fake_guest.h"

void
fake_driver_init(struct fake_driver *d, struct guest *guest, uint16_t num)
{
	*d = (struct fake_driver){.guest = guest, .num = num};
	d->desc_gpa = fake_guest_alloc(guest, num * sizeof(*d->desc), 16);
	d->avail_gpa = fake_guest_alloc(guest, 6 + 2 * num, 2);
	d->used_gpa = fake_guest_alloc(guest, 6 + 8 * num, 4);
	d->desc = fake_guest_at(guest, d->desc_gpa);
	d->avail = fake_guest_at(guest, d->avail_gpa);
	d->used = fake_guest_at(guest, d->used_gpa);
	d->used_event = &d->avail->ring[num];
	d->avail_event = (uint16_t *)(void *)&d->used->ring[num];
}

void
fake_driver_desc(struct vring_desc *desc, uint64_t addr, uint32_t len,
    uint16_t flags, uint16_t next)
{
	desc->addr = htole64(addr);
	desc->len = htole32(len);
	desc->flags = htole16(flags);
	desc->next = htole16(next);
}

void
fake_driver_offer(struct fake_driver *d, uint16_t head)
{
	uint16_t idx = le16toh(d->avail->idx);

	d->avail->ring[idx % d->num] = htole16(head);
	__atomic_store_n(
	    &d->avail->idx, htole16((uint16_t)(idx + 1)), __ATOMIC_RELEASE);
}

bool
fake_driver_would_notify(
    const struct fake_driver *d, bool event_idx, uint16_t old)
{
	if (event_idx)
		return vring_need_event(
		    le16toh(*d->avail_event), le16toh(d->avail->idx), old);
	return !(le16toh(d->used->flags) & VRING_USED_F_NO_NOTIFY);
}

bool
fake_driver_take(struct fake_driver *d, struct vring_used_elem *e)
{
	uint16_t idx = __atomic_load_n(&d->used->idx, __ATOMIC_ACQUIRE);

	if (le16toh(idx) == d->seen)
		return false;
	e->id = le32toh(d->used->ring[d->seen % d->num].id);
	e->len = le32toh(d->used->ring[d->seen % d->num].len);
	d->seen++;
	return true;
}
