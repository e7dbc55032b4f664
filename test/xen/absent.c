/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hostile driver, in a guest whose own has let go of the device: it names
 * memory that the guest has not.
 *
 *	absent BASE RESETS COUNT
 *		RESETS times, reset the device at BASE, negotiate, and make ready
 *		a queue whose rings are in memory that is not there, each time
 *		somewhere else; and then, without a reset, COUNT times.  Says how
 *		often the device would have it, which is never.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#define PAGE   4096
#define ABSENT UINT64_C(0x400000000) /* no guest of these has memory there */
#define STEP   UINT64_C(0x200000)

static volatile uint32_t *regs;

static void
set(unsigned offset, uint32_t value)
{
	regs[offset / 4] = value;
}

static uint32_t
get(unsigned offset)
{
	return regs[offset / 4];
}

static void
negotiate(void)
{
	uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	set(VIRTIO_MMIO_STATUS, 0);
	set(VIRTIO_MMIO_STATUS, status);
	set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_F_VERSION_1 / 32);
	set(VIRTIO_MMIO_DRIVER_FEATURES, 1u << VIRTIO_F_VERSION_1 % 32);
	set(VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_FEATURES_OK);
	set(VIRTIO_MMIO_QUEUE_NUM, 2);
}

/* Whether the device has a queue there. */
static unsigned
ready_at(uint64_t gpa)
{
	set(VIRTIO_MMIO_QUEUE_DESC_LOW, gpa);
	set(VIRTIO_MMIO_QUEUE_DESC_HIGH, gpa >> 32);
	set(VIRTIO_MMIO_QUEUE_READY, 1);
	return get(VIRTIO_MMIO_QUEUE_READY);
}

int
main(int argc, char **argv)
{
	unsigned long i, resets, count;
	unsigned ready = 0;
	uint64_t base;
	char *mem;
	int fd;

	if (argc != 4)
		errx(2, "usage: absent BASE RESETS COUNT");
	base = strtoull(argv[1], NULL, 0);
	resets = strtoul(argv[2], NULL, 0);
	count = strtoul(argv[3], NULL, 0);
	fd = open("/dev/mem", O_RDWR | O_SYNC);
	mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
	    base & -(uint64_t)PAGE);
	if (mem == MAP_FAILED)
		err(1, "/dev/mem");
	regs = (volatile uint32_t *)(void *)(mem + base % PAGE);
	for (i = 0; i < resets; i++) {
		negotiate();
		ready += ready_at(ABSENT + i * STEP);
	}
	for (i = 0; i < count; i++)
		ready += ready_at(ABSENT + i * STEP);
	printf("%lu queues, %u ready, status 0x%x\n", resets + count, ready,
	    (unsigned)get(VIRTIO_MMIO_STATUS));
	return 0;
}
