/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's virtio device: registers, a queue and a disk, joined. */
#pragma once

#include <stdbool.h>

struct xentoollog_logger;
struct access;
struct blk;
struct guest;
struct ioreq_server;

/*
 * Open the device on modules that stay the caller's.  'legacy': version 1.  It
 * is as after reset or, if a predecessor was killed, restored from its state in
 * ioreq_state(), with its requests in flight resubmitted.  NULL on failure,
 * e.g. that the disk does not match the state, which has been logged to 'log'.
 */
struct device *device_open(struct xentoollog_logger *log,
    struct ioreq_server *io, struct guest *guest, struct blk *blk, bool legacy);

/* See virtio_mmio_access().  False: retry after a 'paused' process_queue(). */
bool device_access(struct device *dev, struct access *a);

/*
 * Submit available chains (not if 'paused'), push completed ones, interrupt if
 * the driver wants it; bounded by the queue size.  True: there may be more.
 */
bool device_process_queue(struct device *dev, bool paused);

/* Whether memory is short, guest's or host's: process the queue in a while. */
bool device_starved(const struct device *dev);

/* The event that is expected next. */
enum device_event {
	DEVICE_IRQ_ACK,	   /* the driver acknowledges an interrupt */
	DEVICE_COMPLETION, /* of the disk */
	DEVICE_AVAIL,	   /* chains become available */
	DEVICE_MORE,	   /* ... soon: the driver wanted no interrupt */
};
enum device_event device_expected_event(const struct device *dev);

/* Before sleeping.  True: a chain has become available, maybe unnotified. */
bool device_enable_notify(struct device *dev);

/* Read the size of the disk again, and notify the driver (5.2.5). */
void device_resize(struct device *dev);

/* Log statistics since device_open(), in one line. */
void device_log_stats(const struct device *dev);

/* Whether no request is in flight, so that no guest memory is in use. */
bool device_idle(const struct device *dev);
