/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The flow of requests between the queue and the disk: taken from the one and
 * started on the other, and returned when they are finished, with a decision
 * whether to interrupt.  Owns nothing that outlives the process: all that is in
 * the states of the queue and of the registers, which also say when the queue is
 * to be looked at.  Does not know what registers there are, how accesses to them
 * get here, nor what is in a request.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/param.h>

#include <xentoollog.h>

#include "blk.h"
#include "device.h"
#include "guest.h"
#include "ioreq.h"
#include "virtio_mmio.h"
#include "virtqueue.h"

/*
 * While there is more to do at once, the driver is told of so many requests that
 * are finished, or of half of all, so that it is not idle meanwhile; not of each,
 * since an interrupt costs more than a small one.
 */
#define BATCH 8

struct device {
	xentoollog_logger *log;
	struct ioreq_server *io;
	struct blk *blk;
	struct virtio_mmio mmio;
	struct virtqueue vq;
	bool awaiting;	 /* the driver was asked to notify us */
	unsigned untold; /* requests finished, and the driver not told yet */
	uint32_t
	    redo; /* heads from here on are to be done again, if in flight */
	bool lacking; /* guest memory could not be mapped */
	bool refused; /* ... and never can be, which was logged */
};

bool
device_access(struct device *dev, struct access *a)
{
	return virtio_mmio_access(&dev->mmio, a);
}

/*
 * Have guest memory given back that no request in flight uses.
 */
static bool
reclaim(struct device *dev)
{
	const struct blk_req *req = NULL;
	const struct iovec *iov;

	while ((req = blk_next(dev->blk, req)) != NULL) {
		iov = req->op.data;
		guest_keep(dev->vq.guest, req->status, 1);
		for (unsigned i = 0; i < req->op.segments; i++)
			guest_keep(
			    dev->vq.guest, iov[i].iov_base, iov[i].iov_len);
	}
	if (!device_idle(dev))
		virtqueue_keep(&dev->vq);
	return guest_reclaim(dev->vq.guest);
}

/*
 * The next chain: one that was in flight when our predecessor was killed, or one
 * that is available.
 *
 * To do the former again is safe: the guest has not been told that they are
 * done, so their buffers are still ours, and the disk may hold all, part or
 * nothing of a write.  Another write to the same place that did complete was in
 * flight together with it, and so without an order between them.  And our
 * predecessor can write no more: its event channels came free after its last
 * I/O, for which they were kept (blk_retain()).
 */
static int
take(struct device *dev, struct virtqueue_chain *chain)
{
	int got;

	if (dev->redo == VIRTQUEUE_NUM_MAX)
		return virtqueue_pop(&dev->vq, chain);
	got = virtqueue_redo(&dev->vq, &dev->redo, chain);
	dev->redo = got == 0 ? VIRTQUEUE_NUM_MAX : dev->redo + (got > 0);
	return got != 0 ? got : virtqueue_pop(&dev->vq, chain);
}

/*
 * The same, when its memory could not be mapped: something has to be given back
 * first.  When nothing is in flight that is all; and if it is not enough then
 * because of the limit, it never is, and the request can only be refused.
 */
static int
take_later(struct device *dev, struct virtqueue_chain *chain)
{
	struct guest *guest = dev->vq.guest;
	int got = VIRTQUEUE_NOT_NOW;

	for (int i = 0; i < 2 && got == VIRTQUEUE_NOT_NOW && reclaim(dev); i++)
		got = take(dev, chain);
	if (got != VIRTQUEUE_NOT_NOW || !device_idle(dev))
		return got;
	guest_forget(guest);
	got = take(dev, chain);
	if (got != VIRTQUEUE_NOT_NOW || guest_lack(guest) != GUEST_OVER_LIMIT)
		return got;
	if (!dev->refused)
		xtl_log(dev->log, XTL_WARN, -1, "vdisk",
		    "a request needs more of the guest's memory than may be "
		    "mapped at a time, and fails: see --map-limit in vdisk(8)");
	dev->refused = true;
	guest_forget(guest);
	chain->last_byte = true;
	return take(dev, chain);
}

/*
 * Start the next chain.  1: done.  0: there is none.  VIRTQUEUE_NOT_NOW.  -1:
 * fault.
 */
static int
start_one(struct device *dev)
{
	struct blk_req *req = blk_get(dev->blk);
	struct virtqueue_chain chain = {.last_byte = false};
	int got;

	if (req == NULL)
		return 0;
	chain.iov = req->iov;
	got = take(dev, &chain);
	if (got == VIRTQUEUE_NOT_NOW)
		got = take_later(dev, &chain);
	if (got > 0) {
		req->head = chain.head;
		req->readable = chain.readable;
		req->writable = chain.writable;
		if (chain.last_byte && chain.writable > 0) {
			blk_refuse(dev->blk, req);
			return 1;
		}
		if (blk_submit(dev->blk, req))
			return 1;
		dev->vq.fault = "request without a status byte";
		got = -1;
	}
	blk_put(dev->blk, req);
	return got;
}

/*
 * Start what is available, until a vCPU waits for an answer: the first one at
 * least, so that accesses without end do not stop the queue.  The number of
 * requests started.
 */
static unsigned
start(struct device *dev)
{
	unsigned n = 0;
	int got;

	while ((got = start_one(dev)) > 0)
		if (++n == VIRTQUEUE_NUM_MAX || ioreq_pending(dev->io))
			break;
	if (got == VIRTQUEUE_NOT_NOW)
		dev->lacking = true;
	else if (got < 0)
		virtio_mmio_fault(&dev->mmio);
	return n;
}

/*
 * Return what the disk has finished, and interrupt for all of it at once, if it
 * is time for that.  The number of requests returned.
 */
static unsigned
finish(struct device *dev)
{
	struct blk_req *req;
	unsigned n = 0;
	int wanted;

	while ((req = blk_reap(dev->blk)) != NULL) {
		if (virtio_mmio_running(&dev->mmio) &&
		    virtqueue_push(&dev->vq, req->head, req->written) < 0)
			virtio_mmio_fault(&dev->mmio);
		blk_put(dev->blk, req);
		n++;
	}
	dev->untold += n;
	if (blk_pending(dev->blk) &&
	    dev->untold < MIN(BATCH, blk_inflight(dev->blk)))
		return n;
	dev->untold = 0;
	if (!virtio_mmio_running(&dev->mmio))
		return n;
	wanted = virtqueue_publish(&dev->vq);
	if (wanted == VIRTQUEUE_NOT_NOW) {
		dev->lacking = true;
		reclaim(dev);
		return n;
	}
	if (wanted < 0)
		virtio_mmio_fault(&dev->mmio);
	else if (wanted > 0)
		virtio_mmio_interrupt(&dev->mmio);
	virtqueue_signalled(&dev->vq);
	return n;
}

bool
device_run(struct device *dev, bool hold)
{
	unsigned started = 0;
	int got = 0;

	dev->lacking = false;
	if (!hold && virtio_mmio_running(&dev->mmio)) {
		/* From now on we look ourselves, until device_await(). */
		if (dev->awaiting)
			got = virtqueue_notify(&dev->vq, false);
		if (got == -1)
			virtio_mmio_fault(&dev->mmio);
		dev->awaiting = got == VIRTQUEUE_NOT_NOW;
		if (got != -1)
			started = start(dev);
	}
	blk_kick(dev->blk);
	return finish(dev) + started > 0 || blk_pending(dev->blk);
}

bool
device_await(struct device *dev)
{
	int more;

	/* What lacks memory is tried again soon. */
	if (!virtio_mmio_running(&dev->mmio) || dev->lacking)
		return false;
	dev->awaiting = true;
	more = virtqueue_notify(&dev->vq, true);
	if (more == VIRTQUEUE_NOT_NOW)
		dev->lacking = true;
	else if (more < 0)
		virtio_mmio_fault(&dev->mmio);
	/* With all requests in use there is none to start it with. */
	return more > 0 && blk_inflight(dev->blk) < BLK_REQS;
}

bool
device_lacking(const struct device *dev)
{
	return dev->lacking;
}

enum device_next
device_next(const struct device *dev)
{
	if (!device_idle(dev))
		return DEVICE_DISK;
	return virtio_mmio_acknowledged(&dev->mmio) ? DEVICE_REQUEST
						    : DEVICE_ACKNOWLEDGEMENT;
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
device_report(const struct device *dev)
{
	const struct blk_stats *b = blk_stats(dev->blk);

	xtl_log(dev->log, XTL_NOTICE, -1, "vdisk",
	    "requests %llu, failed %llu, flushes %llu, bytes read %llu, "
	    "written %llu, doorbells %llu, interrupts %llu, "
	    "guest memory mapped %llu",
	    b->requests, b->errors, b->flushes, b->read, b->written,
	    dev->mmio.doorbells, dev->mmio.interrupts,
	    (unsigned long long)guest_mapped(dev->vq.guest));
}

struct device *
device_open(struct xentoollog_logger *log, struct ioreq_server *io,
    struct guest *guest, struct blk *blk, bool legacy)
{
	struct device *dev = calloc(1, sizeof(*dev));

	if (dev == NULL) {
		xtl_log(log, XTL_ERROR, errno, "vdisk", "no memory");
		return NULL;
	}
	dev->log = log;
	dev->io = io;
	dev->blk = blk;
	dev->vq.guest = guest;
	dev->mmio = (struct virtio_mmio){
	    .log = log, .io = io, .blk = blk, .vq = &dev->vq, .legacy = legacy};
	if (!virtio_mmio_open(&dev->mmio))
		return NULL;
	if (virtio_mmio_running(&dev->mmio))
		start(dev);
	return dev;
}
