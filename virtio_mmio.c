/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registers of a virtio-mmio device, version 2 (virtio 1.2, 4.2).  Owns
 * them, the state machine of status and features (2.1, 3.1), and what of that
 * outlives the process.  Does not know how accesses arrive and interrupts are
 * raised, nor how requests get from the queue to the disk.
 *
 * Version 1, "legacy", differs in little: one register with the page of the
 * queue instead of three addresses and a switch, features negotiated by that
 * and not by FEATURES_OK, and no need for DRIVER_OK.
 */
#include <endian.h>
#include <stddef.h>
#include <string.h>
#include <sys/param.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "blk.h"
#include "ioreq.h"
#include "log.h"
#include "virtio_mmio.h"
#include "virtqueue.h"

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* Status bits that the driver may set; DEVICE_NEEDS_RESET is ours. */
#define DRIVER_STATUS                                                          \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |                \
	    VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK |          \
	    VIRTIO_CONFIG_S_FAILED)

/*
 * The whole state of the device, which outlives this process.  Register
 * accesses are idempotent: they stay pending for a successor until completed.
 */
struct device_state {
	uint64_t device_features; /* offered since the last reset */
	uint64_t driver_features;
	uint64_t capacity;		  /* last signalled, in sectors */
	uint32_t blk_size;		  /* ... in bytes */
	uint32_t driver_features_unknown; /* any accepted beyond those 64 */
	uint32_t device_features_sel;
	uint32_t driver_features_sel;
	uint32_t queue_sel;
	uint32_t status;
	uint32_t interrupt_status;
	uint32_t config_generation;
	uint32_t guest_page_size; /* version 1: bytes */
	uint32_t queue_align;	  /* ... of the used ring, in bytes */
	uint32_t queue_pfn;	  /* ... the rings are here, in such pages */
	struct blk_state blk;
	struct virtqueue_state queue;
};

_Static_assert(sizeof(struct device_state) == VIRTIO_MMIO_STATE_SIZE,
    "a new layout of the state needs a new version");

/* The features available; those offered were fixed by the last reset. */
static uint64_t
all_features(const struct virtio_mmio *dev)
{
	return blk_features(dev->blk) |
	       FEATURE(dev->legacy ? VIRTIO_F_ANY_LAYOUT : VIRTIO_F_VERSION_1) |
	       /* With grants, a table would be one more to copy. */
	       FEATURE(dev->blk->grants ? VIRTIO_F_ACCESS_PLATFORM
					: VIRTIO_RING_F_INDIRECT_DESC) |
	       FEATURE(VIRTIO_RING_F_EVENT_IDX);
}

bool
virtio_mmio_interrupt(struct virtio_mmio *dev, uint32_t cause)
{
	dev->s->interrupt_status |= cause;
	dev->interrupts++;
	return ioreq_interrupt(dev->io, 1);
}

/* A guest can cause faults without end, so the log is rate-limited. */
void
virtio_mmio_fault(struct virtio_mmio *dev, const char *why)
{
	struct timespec now;

	if (dev->s->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	dev->s->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (dev->s->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_mmio_interrupt(dev, VIRTIO_MMIO_INT_CONFIG);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec != dev->fault_logged)
		log_msg(dev->log, XTL_WARN, -1,
		    "guest fault: %s; the device needs a reset", why);
	dev->fault_logged = now.tv_sec;
}

/*
 * That a flush has failed stays: it concerns the disk, of which the host's
 * cache may still show what was never written to it.
 */
static void
reset(struct virtio_mmio *dev)
{
	const struct virtio_blk_config config = blk_config(dev->blk);
	struct device_state *s = dev->s;

	virtqueue_reset(dev->vq);
	/* A successor begins the reset again, whatever of this it finds. */
	s->status = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	s->device_features = all_features(dev);
	s->capacity = le64toh(config.capacity);
	s->blk_size = le32toh(config.blk_size);
	s->driver_features = s->driver_features_unknown = 0;
	s->device_features_sel = s->driver_features_sel = s->queue_sel = 0;
	s->interrupt_status = 0;
	ioreq_interrupt(dev->io, 0);
}

/* By FEATURES_OK (3.1.1), or in version 1 by enabling the queue (3.1.2). */
static bool
features_negotiated(const struct virtio_mmio *dev)
{
	return dev->legacy
		   ? dev->s->queue.ready
		   : (dev->s->status & VIRTIO_CONFIG_S_FEATURES_OK) != 0;
}

/* Whether the features accepted by the driver are a valid subset (2.2.2). */
static bool
accept_features(struct virtio_mmio *dev)
{
	uint64_t features = dev->s->driver_features;
	uint64_t offered = dev->s->device_features;
	uint64_t required = offered & (FEATURE(VIRTIO_F_VERSION_1) |
					  FEATURE(VIRTIO_F_ACCESS_PLATFORM));
	uint16_t *through = &dev->s->blk.write_through;

	if (dev->s->driver_features_unknown != 0 ||
	    (features & ~offered) != 0 || (required & ~features) != 0)
		return false;
	/*
	 * A driver without FLUSH cannot flush a cache (5.2.5.2).  What another
	 * has chosen stays: Linux does not choose anew when it has slept.
	 */
	if ((features & FEATURE(VIRTIO_BLK_F_FLUSH)) == 0)
		*through = 1;
	else if ((features & FEATURE(VIRTIO_BLK_F_CONFIG_WCE)) == 0 ||
		 *through == 1)
		*through = 0;
	return true;
}

/* A write of Status (2.1, 3.1): bits are added, or 0 resets.  False: wait. */
static bool
write_status(struct virtio_mmio *dev, uint32_t status)
{
	struct device_state *s = dev->s;
	bool begins;

	if (status == 0) {
		if (blk_inflight(dev->blk) > 0)
			return false;
		reset(dev);
		return true;
	}
	status = s->status | (status & DRIVER_STATUS);
	if (dev->legacy || /* neither rejected nor retained (3.1.2) */
	    ((status & ~s->status & VIRTIO_CONFIG_S_FEATURES_OK) != 0 &&
		!accept_features(dev)))
		status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!dev->legacy && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
		status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	begins = (status & ~s->status & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
	s->status = status;
	if (begins) /* what came before is signalled now (2.1.2, 5.2.5) */
		virtio_mmio_resize(dev);
	return true;
}

/* A write of QueueReady, or of QueuePFN.  False: wait. */
static bool
write_queue_ready(struct virtio_mmio *dev, uint32_t ready)
{
	struct device_state *s = dev->s;

	if (ready == 0) {
		if (blk_inflight(dev->blk) > 0)
			return false;
		virtqueue_disable(dev->vq);
	} else if (!s->queue.ready &&
		   !(s->status & VIRTIO_CONFIG_S_NEEDS_RESET) &&
		   (dev->legacy ? accept_features(dev)
				: features_negotiated(dev))) {
		if (virtqueue_enable(dev->vq, s->driver_features) < 0)
			virtio_mmio_fault(dev, dev->vq->fault);
	}
	return true;
}

static void
set_half(uint64_t *v, unsigned half, uint32_t data)
{
	*v &= ~(UINT64_C(0xffffffff) << 32 * half);
	*v |= (uint64_t)data << 32 * half;
}

/* The driver may not change the one queue while it is ready (4.2.2.2). */
static void
write_queue(struct virtio_mmio *dev, uint32_t offset, uint32_t data)
{
	struct virtqueue_state *q = &dev->s->queue;
	unsigned half = offset % 8 / 4; /* of an address: low, high */

	if (dev->s->queue_sel != 0 || q->ready)
		return;
	offset -= 4 * half;
	if (offset == VIRTIO_MMIO_QUEUE_DESC_LOW)
		set_half(&q->desc, half, data);
	else if (offset == VIRTIO_MMIO_QUEUE_AVAIL_LOW)
		set_half(&q->driver, half, data);
	else if (offset == VIRTIO_MMIO_QUEUE_USED_LOW)
		set_half(&q->device, half, data);
	else if (offset == VIRTIO_MMIO_QUEUE_NUM && half == 0)
		q->num = data;
}

static void
write_driver_features(struct virtio_mmio *dev, uint32_t data)
{
	struct device_state *s = dev->s;

	if (features_negotiated(dev))
		return;
	if (dev->legacy) /* which has no FEATURES_OK to refuse them */
		data &= s->driver_features_sel == 0 ? s->device_features : 0;
	if (s->driver_features_sel <= 1)
		set_half(&s->driver_features, s->driver_features_sel, data);
	else /* none are offered */
		s->driver_features_unknown |= data;
}

/* A write of a register that only version 1 has (4.2.4).  False: wait. */
static bool
write_legacy(struct virtio_mmio *dev, uint32_t offset, uint32_t data)
{
	struct device_state *s = dev->s;

	/* Linux sets it once, before a reset. */
	if (offset == VIRTIO_MMIO_GUEST_PAGE_SIZE)
		s->guest_page_size = data;
	if (offset == VIRTIO_MMIO_QUEUE_ALIGN && s->queue_sel == 0)
		s->queue_align = data;
	if (offset != VIRTIO_MMIO_QUEUE_PFN || s->queue_sel != 0)
		return true;
	if (data != 0 && !s->queue.ready) {
		s->queue_pfn = data;
		virtqueue_set_legacy_layout(dev->vq,
		    (uint64_t)data * s->guest_page_size, s->queue_align);
	}
	return write_queue_ready(dev, data);
}

/* A write of a register of Table 4.1 (4.2.2).  False: wait. */
static bool
write_register(struct virtio_mmio *dev, uint32_t offset, uint32_t data)
{
	struct device_state *s = dev->s;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		s->device_features_sel = data;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		write_driver_features(dev, data);
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		s->driver_features_sel = data;
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		s->queue_sel = data;
		break;
	case VIRTIO_MMIO_QUEUE_READY:
		return dev->legacy || s->queue_sel != 0 ||
		       write_queue_ready(dev, data & 1);
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		/* A wake-up only: the queue is processed anyway. */
		dev->doorbells++;
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		s->interrupt_status &= ~data;
		ioreq_interrupt(dev->io, 0);
		/* If others are pending, raise it again: it may be an edge. */
		if (s->interrupt_status != 0)
			ioreq_interrupt(dev->io, 1);
		break;
	case VIRTIO_MMIO_STATUS:
		return write_status(dev, data);
	default:
		if (dev->legacy && offset != VIRTIO_MMIO_QUEUE_NUM)
			return write_legacy(dev, offset, data);
		write_queue(dev, offset, data);
	}
	return true;
}

/* A read of a register of Table 4.1.  What cannot be read is 0. */
static uint32_t
read_register(const struct virtio_mmio *dev, uint32_t offset)
{
	const struct device_state *s = dev->s;

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return UINT32_C(0x74726976); /* "virt" */
	case VIRTIO_MMIO_VERSION:
		return dev->legacy ? 1 : 2;
	case VIRTIO_MMIO_DEVICE_ID:
		return VIRTIO_ID_BLOCK;
	case VIRTIO_MMIO_VENDOR_ID:
		return UINT32_C(0x4b534456); /* "VDSK" */
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return s->device_features_sel > 1
			   ? 0
			   : s->device_features >> 32 * s->device_features_sel;
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return s->queue_sel == 0 ? VIRTQUEUE_NUM_MAX : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return s->queue_sel == 0 && !dev->legacy ? s->queue.ready : 0;
	case VIRTIO_MMIO_QUEUE_PFN:
		return s->queue_sel == 0 && s->queue.ready ? s->queue_pfn : 0;
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return s->interrupt_status;
	case VIRTIO_MMIO_STATUS:
		return s->status;
	case VIRTIO_MMIO_SHM_LEN_LOW ... VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX; /* there is no such region */
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return s->config_generation;
	default:
		return 0;
	}
}

/* Any width; beyond the end there are zeros. */
static uint64_t
read_config(const struct virtio_mmio *dev, uint32_t offset, uint32_t size)
{
	struct virtio_blk_config config = blk_config(dev->blk);
	uint64_t value = 0;

	config.wce = !dev->s->blk.write_through;
	config.blk_size = htole32(dev->s->blk_size);
	if (offset < sizeof(config))
		memcpy(&value, (const char *)&config + offset,
		    MIN(size, sizeof(config) - offset));
	return le64toh(value);
}

/*
 * A write of the configuration space, in which the driver may only change
 * 'writeback'.  False: wait, so that no write in flight spans the change.
 *
 * A driver that switches to write-through will not flush what is in the cache.
 */
static bool
write_config(
    struct virtio_mmio *dev, uint32_t offset, uint32_t size, uint8_t data)
{
	if (offset != offsetof(struct virtio_blk_config, wce) || size != 1 ||
	    !features_negotiated(dev) ||
	    !(dev->s->driver_features & FEATURE(VIRTIO_BLK_F_CONFIG_WCE)))
		return true;
	if (blk_inflight(dev->blk) > 0)
		return false;
	if (data == 0 && !dev->s->blk.write_through)
		blk_sync(dev->blk);
	dev->s->blk.write_through = data == 0 ? BLK_CHOSEN : 0;
	return true;
}

bool
virtio_mmio_access(struct virtio_mmio *dev, struct access *a)
{
	/* Registers take aligned 32-bit accesses (4.2.2.2), the rest any. */
	bool config = a->offset >= VIRTIO_MMIO_CONFIG;
	bool whole = a->size == 4 && a->offset % 4 == 0;
	uint32_t offset = a->offset - (config ? VIRTIO_MMIO_CONFIG : 0);

	if (a->kind == ACCESS_WRITE)
		return config ? write_config(dev, offset, a->size, a->data)
			      : !whole || write_register(dev, offset, a->data);
	a->data = config  ? read_config(dev, offset, a->size)
		  : whole ? read_register(dev, offset)
			  : 0;
	return true;
}

/*
 * Why the state cannot be continued with this disk, or NULL.  The driver can be
 * notified of another capacity only (5.2.5), and expects none smaller, but for
 * 0.  Discard may go: it is advisory, and fails.
 */
static const char *
state_incompatible(const struct virtio_mmio *dev)
{
	const struct virtio_blk_config config = blk_config(dev->blk);
	const struct device_state *s = dev->s;
	uint64_t changed = s->device_features ^ all_features(dev);

	if ((s->status & ~(DRIVER_STATUS | VIRTIO_CONFIG_S_NEEDS_RESET)) != 0 ||
	    (s->driver_features & ~s->device_features &
		-(uint64_t)features_negotiated(dev)) != 0 ||
	    s->queue.ready > 1 || s->blk.write_through > BLK_CHOSEN ||
	    s->blk.flush_failed > 1)
		return "the state is corrupt";
	if ((changed & FEATURE(VIRTIO_F_VERSION_1)) != 0)
		return "--legacy differs";
	if ((changed & FEATURE(VIRTIO_F_ACCESS_PLATFORM)) != 0)
		return "--grants differs";
	if ((changed & FEATURE(VIRTIO_BLK_F_RO)) != 0)
		return "read-only differs";
	changed &= s->device_features;
	if ((changed & ~FEATURE(VIRTIO_BLK_F_DISCARD)) != 0)
		return "a feature that was offered is gone";
	if (config.capacity == 0) /* ejected, until another one comes */
		return NULL;
	if (s->blk_size != le32toh(config.blk_size))
		return "the block size differs";
	if (s->capacity > le64toh(config.capacity))
		return "the disk is smaller than it was";
	return NULL;
}

/* The capacity is stored last: a successor rather signals twice than never. */
void
virtio_mmio_resize(struct virtio_mmio *dev)
{
	uint64_t capacity = le64toh(blk_config(dev->blk).capacity);
	struct device_state *s = dev->s;

	s->config_generation += s->capacity != capacity;
	if ((s->status & VIRTIO_CONFIG_S_DRIVER_OK) != 0 &&
	    (s->capacity != capacity ||
		(s->status & VIRTIO_CONFIG_S_NEEDS_RESET) != 0) &&
	    virtio_mmio_interrupt(dev, VIRTIO_MMIO_INT_CONFIG))
		s->capacity = capacity;
}

static bool
restore_state(struct virtio_mmio *dev)
{
	struct device_state *s = dev->s;
	const char *why = state_incompatible(dev);

	if (why == NULL && s->queue.ready &&
	    virtqueue_adopt(dev->vq, s->driver_features) < 0)
		why = dev->vq->fault;
	if (why != NULL)
		return log_error(
		    dev->log, -1, "cannot restore the device state: %s", why);
	log_msg(dev->log, XTL_NOTICE, -1,
	    "continuing from the state of a previous vdisk");
	blk_adopt(dev->blk, &s->blk);
	/* It may have been killed before it signalled something. */
	virtio_mmio_resize(dev);
	return true;
}

bool
virtio_mmio_open(struct virtio_mmio *dev)
{
	bool adopted;

	dev->s = ioreq_state(dev->io, &adopted);
	dev->vq->s = &dev->s->queue;
	/* A device after reset has no state worth restoring. */
	if (adopted && (dev->s->status != 0 || dev->s->queue.ready))
		return restore_state(dev);
	blk_adopt(dev->blk, &dev->s->blk);
	reset(dev);
	return true;
}

bool
virtio_mmio_queue_active(const struct virtio_mmio *dev)
{
	const uint32_t bad =
	    VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;

	/* Legacy drivers may start without DRIVER_OK (3.1.2). */
	return dev->s->queue.ready && (dev->s->status & bad) == 0 &&
	       (dev->legacy || (dev->s->status & VIRTIO_CONFIG_S_DRIVER_OK));
}

bool
virtio_mmio_irq_acked(const struct virtio_mmio *dev)
{
	return dev->s->interrupt_status == 0;
}
