/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The verifying load.  Owns what every sector must hold; leaves rings and
 * registers to the driver.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_blk.h>

#include "driver.h"
#include "fake_xen.h"
#include "load.h"

#define SECTOR 512
#define ZEROS  UINT32_MAX /* the generation of a sector that was cleared */

struct stamp {
	uint32_t sector;
	uint32_t generation;
	uint32_t noise[SECTOR / 4 - 2];
};

_Static_assert(sizeof(struct stamp) == SECTOR, "a stamp fills a sector");
_Static_assert(LOAD_COUNT_MAX *SECTOR <= FAKE_XEN_PAGE,
    "a buffer is one page, which can be taken away");

static void
stamp(struct stamp *s, uint32_t sector, uint32_t generation)
{
	uint32_t x = sector * 2654435761u ^ generation * 0x9e3779b1u;
	unsigned i;

	if (generation == ZEROS) {
		memset(s, 0, sizeof(*s));
		return;
	}
	s->sector = sector;
	s->generation = generation;
	for (i = 0; i < sizeof(s->noise) / sizeof(s->noise[0]); i++)
		s->noise[i] = x = x * 1664525u + 1013904223u;
}

static bool
has_stamp(const struct stamp *s, uint32_t sector, uint32_t generation)
{
	struct stamp want;

	stamp(&want, sector, generation);
	return memcmp(s, &want, sizeof(want)) == 0;
}

void
load_init(struct load *l, struct driver *d, int fd, unsigned seed)
{
	struct stamp s;
	uint32_t i;

	memset(l, 0, sizeof(*l));
	l->d = d;
	l->seed = seed;
	for (i = 0; i < LOAD_SECTORS; i++) {
		stamp(&s, i, 0);
		ck_assert_int_eq(
		    pwrite(fd, &s, SECTOR, (off_t)i * SECTOR), SECTOR);
	}
	for (i = 0; i < LOAD_SLOTS; i++) {
		l->slot[i].head = -1;
		l->slot[i].gpa = driver_alloc(d, FAKE_XEN_PAGE, FAKE_XEN_PAGE);
	}
}

unsigned
load_random(struct load *l, unsigned n)
{
	return (unsigned)rand_r(&l->seed) % n;
}

static bool
is_busy(const struct load *l, uint32_t sector, uint32_t count)
{
	while (count > 0)
		if (l->sector[sector + --count].busy)
			return true;
	return false;
}

static bool
is_open(const struct load *l, uint32_t sector, uint32_t count)
{
	while (count > 0)
		if (l->sector[sector + --count].unless != 0)
			return true;
	return false;
}

static void
set_busy(struct load *l, const struct load_slot *s, bool busy)
{
	uint32_t i;

	for (i = 0; i < s->count; i++)
		l->sector[s->sector + i].busy = busy;
}

static bool
is_clearing(uint32_t type)
{
	return type == VIRTIO_BLK_T_DISCARD ||
	       type == VIRTIO_BLK_T_WRITE_ZEROES;
}

/*
 * One range for each sector: their length.
 */
static uint32_t
put_ranges(struct virtio_blk_discard_write_zeroes *range, uint32_t sector,
    uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		range[i] = (struct virtio_blk_discard_write_zeroes){
		    .sector = sector + i, .num_sectors = 1};
	return count * sizeof(*range);
}

bool
load_request(struct load *l, uint32_t type, uint32_t sector, uint32_t count)
{
	struct load_slot *s = l->slot;
	struct stamp *data;
	uint32_t i, len;

	/*
	 * What a reset left open is settled by reading, before it is written.
	 */
	if (type != VIRTIO_BLK_T_IN && is_open(l, sector, count))
		type = VIRTIO_BLK_T_IN;
	while (s < &l->slot[LOAD_SLOTS] && s->head >= 0)
		s++;
	if (s == &l->slot[LOAD_SLOTS] || is_busy(l, sector, count))
		return false;
	s->type = type;
	s->sector = sector;
	s->count = count;
	data = fake_xen_ram(s->gpa);
	memset(data, 0xee, (size_t)count * SECTOR);
	if (type == VIRTIO_BLK_T_OUT) {
		s->generation = ++l->generation;
		for (i = 0; i < count; i++)
			stamp(&data[i], sector + i, s->generation);
	}
	len = count * SECTOR;
	if (is_clearing(type)) {
		s->generation = ZEROS;
		len = put_ranges((void *)data, sector, count);
	}
	s->head = driver_request(l->d, type, len > 0 ? sector : 0, s->gpa, len);
	if (s->head < 0)
		return false;
	set_busy(l, s, true);
	l->inflight++;
	return true;
}

bool
load_any(struct load *l)
{
	static const uint32_t pieces[] = {0, 0, 0, 512, 700, 64};
	uint32_t count = 1 + load_random(l, LOAD_COUNT_MAX);
	uint32_t sector = load_random(l, LOAD_SECTORS - count + 1);
	static const uint32_t types[] = {VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT,
	    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN,
	    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_WRITE_ZEROES,
	    VIRTIO_BLK_T_DISCARD};
	unsigned what = load_random(l, l->no_discard ? 9 : 10);

	l->d->indirect = load_random(l, 2);
	l->d->piece = pieces[load_random(l, 6)];
	if (what == 0)
		return load_request(l, VIRTIO_BLK_T_FLUSH, 0, 0);
	return load_request(l, types[what - 1], sector, count);
}

/*
 * What the disk gave for 'sector'; from now on it holds that.
 */
static void
verify(struct load *l, uint32_t sector, const struct stamp *s)
{
	uint32_t holds = l->sector[sector].holds;
	uint32_t unless = l->sector[sector].unless;

	if (unless != 0 && has_stamp(s, sector, unless))
		l->sector[sector].holds = unless;
	else
		ck_assert_msg(has_stamp(s, sector, holds),
		    "sector %u: generation %u expected (or %u), found %u of "
		    "sector %u",
		    sector, holds, unless, s->generation, s->sector);
	l->sector[sector].unless = 0;
}

/*
 * What the request was to write may be there now, or not.
 */
static void
leave_open(struct load *l, const struct load_slot *s)
{
	if (s->type == VIRTIO_BLK_T_OUT || is_clearing(s->type))
		for (uint32_t i = 0; i < s->count; i++)
			l->sector[s->sector + i].unless = s->generation;
}

static void
check_slot(struct load *l, const struct load_slot *s)
{
	const struct stamp *data = fake_xen_ram(s->gpa);
	bool in = s->type == VIRTIO_BLK_T_IN;
	uint32_t i;

	if (l->may_fail && driver_status(l->d, s->head) == VIRTIO_BLK_S_IOERR) {
		l->failed++;
		leave_open(l, s);
		return;
	}
	ck_assert_msg(driver_status(l->d, s->head) == VIRTIO_BLK_S_OK,
	    "request of type %u at %u: status %u", s->type, s->sector,
	    driver_status(l->d, s->head));
	ck_assert_uint_eq(
	    l->d->written[s->head], in ? s->count * SECTOR + 1 : 1);
	if (l->copied && in && s->count > 0)
		ck_assert_msg(fake_xen_copied(s->gpa),
		    "a page was read into and is old in a copy of the guest");
	if (l->copied)
		ck_assert_msg(fake_xen_copied(l->d->status[s->head]),
		    "a status is old in a copy of the guest");
	for (i = 0; i < s->count; i++) {
		if (in)
			verify(l, s->sector + i, &data[i]);
		else
			l->sector[s->sector + i].holds = s->generation;
	}
}

static void
free_slot(struct load *l, struct load_slot *s)
{
	set_busy(l, s, false);
	s->head = -1;
	l->inflight--;
}

unsigned
load_collect(struct load *l)
{
	struct load_slot *s;
	unsigned n = 0;

	for (s = l->slot; s < &l->slot[LOAD_SLOTS]; s++)
		if (s->head >= 0 && l->d->done[s->head]) {
			check_slot(l, s);
			free_slot(l, s);
			n++;
		}
	l->completed += n;
	return n;
}

void
load_some(struct load *l)
{
	unsigned before = l->completed;

	driver_patience(l->d);
	while (l->inflight > 0 && l->completed == before) {
		driver_interrupt(l->d);
		if (load_collect(l) == 0)
			driver_wait(l->d);
	}
}

void
load_drain(struct load *l)
{
	while (l->inflight > 0)
		load_some(l);
}

void
load_poll(struct load *l)
{
	driver_patience(l->d);
	while (l->inflight > 0) {
		while (driver_take(l->d))
			;
		if (load_collect(l) == 0)
			driver_wait(l->d);
	}
}

void
load_reset(struct load *l)
{
	struct load_slot *s;

	for (s = l->slot; s < &l->slot[LOAD_SLOTS]; s++) {
		if (s->head < 0)
			continue;
		leave_open(l, s);
		free_slot(l, s);
	}
}

void
load_verify(struct load *l, int fd)
{
	struct stamp s;
	uint32_t i;

	ck_assert_uint_eq(l->inflight, 0);
	for (i = 0; i < LOAD_SECTORS; i++) {
		ck_assert_int_eq(
		    pread(fd, &s, SECTOR, (off_t)i * SECTOR), SECTOR);
		verify(l, i, &s);
	}
}
