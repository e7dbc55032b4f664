/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unmodified vdisk on the fake Xen: every register access blocks the only
 * vCPU until it is completed, and is measured.  Owns the guest's registers and
 * interrupt line.
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "../fake_xen.h"
#include "ring.h"
#include "transport.h"

#define DOMID 7
#define BASE  0x2000000ULL

#define FEATURES                                                               \
	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC |    \
	    1ULL << VIRTIO_RING_F_EVENT_IDX | 1ULL << VIRTIO_BLK_F_FLUSH |     \
	    1ULL << VIRTIO_BLK_F_SEG_MAX)

static pid_t child;
static double ready_ms;
static uint64_t interrupts, spurious;
static struct samples doorbell, interrupt;
static unsigned calls[XC_CALLS]; /* when counting began */

static uint64_t
access_register(bool write, uint32_t offset, uint32_t value, struct samples *s)
{
	ioreq_t req = {
	    .addr = BASE + offset,
	    .data = value,
	    .count = 1,
	    .size = 4,
	    .dir = write ? IOREQ_WRITE : IOREQ_READ,
	    .type = IOREQ_TYPE_COPY,
	};
	uint64_t begin = now(), data = 0;
	uint32_t seen = fake_xen_events();

	if (fake_xen_issue(0, &req) != 1)
		errx(1, "nobody claims the register window");
	while (!fake_xen_answered(0, &data)) {
		fake_xen_sleep(seen, 1000);
		seen = fake_xen_events();
		if (now() - begin > 10000000000)
			errx(1, "the device does not answer");
	}
	if (s != NULL)
		sample(s, now() - begin);
	return data;
}

static uint32_t
get(uint32_t offset)
{
	return access_register(false, offset, 0, NULL);
}

static void
put(uint32_t offset, uint32_t value)
{
	access_register(true, offset, value, NULL);
}

static void
put64(uint32_t low, uint64_t value)
{
	put(low, value);
	put(low + 4, value >> 32);
}

static _Noreturn void
become_disk(char **argv, int cpu, int out)
{
	const char *libraries = getenv("FAKE_XEN_LIBS");

	dup2(out, STDOUT_FILENO);
	if (libraries != NULL)
		setenv("LD_LIBRARY_PATH", libraries, 1);
	become(argv, cpu);
}

static void
start_disk(char **argv, int cpu)
{
	static const char ready[] = "ready\n";
	char text[sizeof(ready)] = "";
	uint64_t begin;
	int out[2];

	setenv("FAKE_XEN", fake_xen_path(), 1);
	if (pipe(out) == -1)
		err(1, "pipe");
	begin = now();
	child = fork();
	if (child == -1)
		err(1, "fork");
	if (child == 0)
		become_disk(argv, cpu, out[1]);
	close(out[1]);
	if (read(out[0], text, sizeof(text) - 1) <= 0 ||
	    strcmp(text, ready) != 0)
		errx(1, "the disk does not get ready");
	ready_ms = (now() - begin) / 1e6;
	close(out[0]);
}

void
transport_start(struct ring *r, uint64_t ram, char **argv, int cpu)
{
	fake_xen_start(DOMID, 1, ram, 0);
	ring_init(r, fake_xen_ram(FAKE_XEN_LOW), FAKE_XEN_LOW, ram);
	start_disk(argv, cpu);

	if (get(VIRTIO_MMIO_MAGIC_VALUE) != 0x74726976 ||
	    get(VIRTIO_MMIO_VERSION) != 2)
		errx(1, "not a virtio-mmio device, version 2");
	put(VIRTIO_MMIO_STATUS, 0);
	put(VIRTIO_MMIO_STATUS,
	    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	put(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put(VIRTIO_MMIO_DRIVER_FEATURES, FEATURES >> 32);
	put(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	put(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)FEATURES);
	put(VIRTIO_MMIO_STATUS,
	    get(VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_FEATURES_OK);
	if (!(get(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK))
		errx(1, "the device refuses the features");
	put(VIRTIO_MMIO_QUEUE_SEL, 0);
	put(VIRTIO_MMIO_QUEUE_NUM, RING_NUM);
	put64(VIRTIO_MMIO_QUEUE_DESC_LOW, r->gpa + RING_DESC);
	put64(VIRTIO_MMIO_QUEUE_AVAIL_LOW, r->gpa + RING_AVAIL);
	put64(VIRTIO_MMIO_QUEUE_USED_LOW, r->gpa + RING_USED);
	put(VIRTIO_MMIO_QUEUE_READY, 1);
	put(VIRTIO_MMIO_STATUS,
	    get(VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK);
}

pid_t
transport_pid(void)
{
	return child;
}

void
transport_kick(void)
{
	access_register(true, VIRTIO_MMIO_QUEUE_NOTIFY, 0, &doorbell);
}

void
transport_interrupt(void)
{
	uint64_t begin = now();
	uint32_t seen, status;

	for (;;) {
		seen = fake_xen_events();
		if (!fake_xen_irq_up()) {
			fake_xen_sleep(seen, 1000);
			if (now() - begin > 10000000000)
				errx(1, "the device does not interrupt");
			continue;
		}
		fake_xen_irq_take();
		status = access_register(
		    false, VIRTIO_MMIO_INTERRUPT_STATUS, 0, &interrupt);
		if (status != 0)
			break;
		spurious++;
	}
	interrupts++;
	access_register(true, VIRTIO_MMIO_INTERRUPT_ACK, status, &interrupt);
}

void
transport_reset(void)
{
	int i;

	for (i = 0; i < XC_CALLS; i++)
		calls[i] = fake_xen_calls(i);
	doorbell.n = interrupt.n = 0;
	interrupts = spurious = 0;
}

void
transport_report(FILE *f, uint64_t requests)
{
	unsigned count[XC_CALLS], all = 0;
	double n = requests;
	int i;

	for (i = 0; i < XC_CALLS; i++)
		all += count[i] = fake_xen_calls(i) - calls[i];
	fprintf(f, ", \"ready_ms\": %.2f, \"doorbells\": %.5f", ready_ms,
	    doorbell.n / n);
	fprintf(f, ", \"interrupts\": %.5f, \"spurious\": %.5f", interrupts / n,
	    spurious / n);
	fprintf(f, ", \"xen_calls\": %.4f, \"xen_map\": %.5f", all / n,
	    (count[XC_MAP2] + count[XC_UNMAP]) / n);
	fprintf(f, ", \"xen_evtchn\": %.4f, \"xen_irq\": %.4f",
	    (count[XC_PENDING] + count[XC_UNMASK] + count[XC_NOTIFY]) / n,
	    (count[XC_SET_IRQ_LEVEL] + count[XC_SET_ISA_IRQ_LEVEL]) / n);
	report_samples(f, "doorbell_ns", &doorbell);
	report_samples(f, "interrupt_ns", &interrupt);
}
