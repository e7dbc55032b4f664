/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The flow of requests between the virtqueue and the disk: popped from the one
 * and submitted to the other, pushed back when they complete, with a decision
 * whether to interrupt.  Owns nothing that outlives the process.  Does not know
 * the registers, how accesses to them arrive, nor what is in a request.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/param.h>

#include <linux/virtio_mmio.h>

#include "blk.h"
#include "device.h"
#include "guest.h"
#include "ioreq.h"
#include "log.h"
#include "virtio_mmio.h"
#include "virtqueue.h"

/*
 * While engine_pending(), signal the driver for this many completed requests or
 * half of those in flight: an interrupt costs more than a small request.
 */
#define SIGNAL_BATCH 8

struct device {
	struct blk *blk;
	struct virtio_mmio mmio;
	struct virtqueue vq;
	bool notify_enabled;  /* driver notifies of new chains */
	bool used;	      /* by the driver, not processed since */
	bool probed;	      /* looked for, and not used since */
	unsigned unsignalled; /* completed, not signalled yet */
	bool driver_awake;    /* completed last without an interrupt */
	bool starved;	      /* guest memory could not be mapped */
	bool limit_logged;    /* ... and never can be, which was logged */
};

bool
device_access(struct device *dev, struct access *a)
{
	/* Who uses the queue writes registers from QueueNotify on. */
	if (a->kind == ACCESS_WRITE)
		dev->used |= a->offset >= VIRTIO_MMIO_QUEUE_NOTIFY;
	else
		dev->probed |= a->offset == VIRTIO_MMIO_MAGIC_VALUE;
	dev->probed &= !dev->used;
	return virtio_mmio_access(&dev->mmio, a);
}

/*
 * If notifications are enabled, MagicValue may be read by another kernel that
 * was booted by kexec: until it resets us, it may have other data at the rings.
 */
static bool
queue_in_use(const struct device *dev)
{
	return virtio_mmio_queue_active(&dev->mmio) &&
	       !(dev->probed && dev->notify_enabled);
}

/* Unmap guest memory that no request in flight uses. */
static bool
reclaim(struct device *dev)
{
	const struct blk_req *req = NULL;
	const struct iovec *iov;

	while ((req = blk_next(dev->blk, req)) != NULL) {
		iov = req->op.data;
		guest_pin(dev->vq.guest, req->op.status, 1);
		for (unsigned i = 0; i < req->op.segments; i++, iov++)
			guest_pin(dev->vq.guest, iov->iov_base, iov->iov_len);
	}
	if (!device_idle(dev))
		virtqueue_pin(&dev->vq);
	return guest_reclaim(dev->vq.guest);
}

/*
 * The next chain, after other memory was unmapped: all, when nothing is in
 * flight.  If the limit is too low even then, the request can only fail.
 */
static int
pop_after_reclaim(struct device *dev, struct virtqueue_chain *chain)
{
	int got = VIRTQUEUE_AGAIN;

	for (int i = 0; i < 2 && got == VIRTQUEUE_AGAIN && reclaim(dev); i++)
		got = virtqueue_pop(&dev->vq, chain);
	if (got != VIRTQUEUE_AGAIN || !device_idle(dev))
		return got;
	guest_unmap_all(dev->vq.guest);
	got = virtqueue_pop(&dev->vq, chain);
	if (got != VIRTQUEUE_AGAIN || errno != ENOBUFS)
		return got;
	if (!dev->limit_logged)
		log_msg(dev->mmio.log, XTL_WARN, -1,
		    "a request needs more of the guest's memory than may be "
		    "mapped at a time, and fails: see --map-limit in vdisk(8)");
	dev->limit_logged = true;
	guest_unmap_all(dev->vq.guest);
	chain->status_only = true;
	return virtqueue_pop(&dev->vq, chain);
}

/* 1: one was submitted.  0: there is none.  -1: fault.  VIRTQUEUE_AGAIN. */
static int
submit_one(struct device *dev)
{
	struct blk_req *req = blk_get(dev->blk);
	struct virtqueue_chain chain = {.status_only = false};
	int got;

	if (req == NULL)
		return 0;
	chain.iov = req->iov;
	got = virtqueue_pop(&dev->vq, &chain);
	if (got == VIRTQUEUE_AGAIN)
		got = pop_after_reclaim(dev, &chain);
	if (got > 0) {
		req->head = chain.head;
		req->readable = chain.readable;
		req->writable = chain.writable;
		req->status_only = chain.status_only;
		if (blk_submit(dev->blk, req))
			return 1;
		virtio_mmio_fault(&dev->mmio, "request without a status byte");
		got = -1;
	} else if (got == -1) {
		virtio_mmio_fault(&dev->mmio, dev->vq.fault);
	}
	blk_put(dev->blk, req);
	return got;
}

/*
 * Submit available chains until a vCPU has an access pending: at least one, or
 * accesses would starve the queue.  Returns the number submitted.
 */
static unsigned
process_avail(struct device *dev)
{
	unsigned n = 0;
	int got;

	while ((got = submit_one(dev)) > 0)
		if (++n == VIRTQUEUE_NUM_MAX || ioreq_pending(dev->mmio.io))
			break;
	dev->starved |= got == VIRTQUEUE_AGAIN;
	return n;
}

/*
 * Push completed requests and, when enough have accumulated, publish them with
 * at most one interrupt.  Returns the number pushed.
 */
static unsigned
process_completions(struct device *dev)
{
	struct blk_req *req;
	unsigned n = 0;
	int wanted;

	while ((req = blk_reap(dev->blk)) != NULL) {
		if (virtio_mmio_queue_active(&dev->mmio) &&
		    virtqueue_push(&dev->vq, req->head, req->written) < 0)
			virtio_mmio_fault(&dev->mmio, dev->vq.fault);
		blk_put(dev->blk, req);
		n++;
	}
	dev->unsignalled += n;
	if (!virtio_mmio_queue_active(&dev->mmio) ||
	    (engine_pending(dev->blk->engine) &&
		dev->unsignalled < MIN(SIGNAL_BATCH, blk_inflight(dev->blk))))
		return n;
	wanted = virtqueue_publish(&dev->vq);
	if (dev->unsignalled > 0)
		dev->driver_awake = wanted == 0;
	dev->unsignalled = 0;
	if (wanted == VIRTQUEUE_AGAIN) {
		dev->starved = true;
		if (!reclaim(dev) && device_idle(dev))
			guest_unmap_all(dev->vq.guest);
	} else if (wanted < 0) {
		virtio_mmio_fault(&dev->mmio, dev->vq.fault);
	} else if (wanted > 0 &&
		   !virtio_mmio_interrupt(&dev->mmio, VIRTIO_MMIO_INT_VRING)) {
		dev->starved = true; /* and decided again */
	} else {
		virtqueue_signalled(&dev->vq);
	}
	return n;
}

bool
device_process_queue(struct device *dev, bool paused)
{
	unsigned started = 0;
	int got = 0;

	dev->starved = false;
	if (!paused && queue_in_use(dev)) {
		/* Polling from now on, until device_enable_notify(). */
		if (dev->notify_enabled)
			got = virtqueue_set_notify(&dev->vq, false);
		if (got == -1)
			virtio_mmio_fault(&dev->mmio, dev->vq.fault);
		dev->notify_enabled = dev->used = got == VIRTQUEUE_AGAIN;
		if (got != -1)
			started = process_avail(dev);
	}
	engine_kick(dev->blk->engine);
	return process_completions(dev) + started > 0 ||
	       engine_pending(dev->blk->engine);
}

bool
device_enable_notify(struct device *dev)
{
	int more;

	/* What is starved is tried again soon. */
	if (!queue_in_use(dev) || dev->starved)
		return false;
	more = virtqueue_set_notify(&dev->vq, true);
	dev->starved = more == VIRTQUEUE_AGAIN;
	if (dev->starved)
		return false;
	dev->notify_enabled = true;
	dev->probed &= more == 0;
	if (more < 0)
		virtio_mmio_fault(&dev->mmio, dev->vq.fault);
	/* Without a free request the chain cannot be popped. */
	dev->used = more > 0 && blk_inflight(dev->blk) < BLK_REQS;
	return dev->used;
}

bool
device_starved(const struct device *dev)
{
	return dev->starved || engine_starved(dev->blk->engine);
}

enum device_event
device_expected_event(const struct device *dev)
{
	if (!device_idle(dev))
		return DEVICE_COMPLETION;
	if (dev->driver_awake)
		return DEVICE_MORE;
	return virtio_mmio_irq_acked(&dev->mmio) ? DEVICE_AVAIL
						 : DEVICE_IRQ_ACK;
}

bool
device_idle(const struct device *dev)
{
	return blk_inflight(dev->blk) == 0;
}

void
device_resize(struct device *dev)
{
	blk_resize(dev->blk);
	virtio_mmio_resize(&dev->mmio);
}

void
device_log_stats(const struct device *dev)
{
	const struct blk_stats *b = &dev->blk->stats;

	log_msg(dev->mmio.log, XTL_NOTICE, -1,
	    "requests %llu, failed %llu, flushes %llu, bytes read %llu, "
	    "written %llu, doorbells %llu, interrupts %llu, "
	    "guest memory mapped %llu",
	    b->requests, b->errors, b->flushes, b->read, b->written,
	    dev->mmio.doorbells, dev->mmio.interrupts,
	    (unsigned long long)guest_mapped(dev->vq.guest));
}

/*
 * To resubmit is safe: the buffers of what is not completed are still ours, and
 * the disk may hold all, part or nothing of a write.  Another write to the same
 * place that did complete was in flight together with it: there is no order
 * between them.  And our predecessor's last I/O is over (engine_retain()).
 */
struct device *
device_open(struct xentoollog_logger *log, struct ioreq_server *io,
    struct guest *guest, struct blk *blk, bool legacy)
{
	struct device *dev = calloc(1, sizeof(*dev));

	if (dev == NULL)
		return log_error(log, errno, "out of memory");
	dev->blk = blk;
	dev->vq.guest = guest;
	dev->mmio = (struct virtio_mmio){
	    .log = log, .io = io, .blk = blk, .vq = &dev->vq, .legacy = legacy};
	if (!virtio_mmio_open(&dev->mmio))
		return NULL;
	if (virtio_mmio_queue_active(&dev->mmio))
		process_avail(dev);
	return dev;
}
