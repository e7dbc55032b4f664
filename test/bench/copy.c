/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What it costs to copy between an image and a guest's memory, and nothing
 * else: one preadv() or pwritev() after the other, in order, on pages that lie
 * about like those of drive.c, and of which as many are used.  fio copies to
 * and from a few buffers, which stay in the processor's cache.
 */
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE	 4096
#define PAGES	 ((UINT32_C(256) << 20) / PAGE)
#define SEGMENTS 256

static uint32_t order[PAGES];

static double
seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void
shuffle(void)
{
	uint64_t random = 1;

	for (uint32_t i = 0, j; i < PAGES; i++) {
		random = random * 6364136223846793005 + 1442695040888963407;
		j = (random >> 33) % (i + 1);
		order[i] = order[j];
		order[j] = i;
	}
}

int
main(int argc, char **argv)
{
	uint64_t size, bytes, offset = 0, n = 0;
	double start, end, cpu;
	cpu_set_t set;
	uint32_t page = 0;
	bool write;
	char *memory;
	int fd;

	if (argc != 6 || (bytes = atoi(argv[4])) % PAGE != 0 ||
	    bytes / PAGE > SEGMENTS || bytes == 0)
		errx(2, "usage: copy CPU SECONDS IMAGE BYTES read|write");
	write = strcmp(argv[5], "write") == 0;
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	sched_setaffinity(0, sizeof(set), &set);
	fd = open(argv[3], write ? O_RDWR : O_RDONLY);
	if (fd < 0)
		err(1, "%s", argv[3]);
	size = lseek(fd, 0, SEEK_END);
	memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "memory");
	shuffle();

	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	start = seconds(CLOCK_MONOTONIC);
	do {
		struct iovec iov[SEGMENTS];
		int segments = bytes / PAGE;

		for (int i = 0; i < segments; i++) {
			iov[i].iov_base = memory + (size_t)order[page] * PAGE;
			iov[i].iov_len = PAGE;
			page = (page + 1) % PAGES;
		}
		if ((write ? pwritev(fd, iov, segments, offset)
			   : preadv(fd, iov, segments, offset)) !=
		    (ssize_t)bytes)
			err(1, "%s", argv[3]);
		offset = offset + 2 * bytes > size ? 0 : offset + bytes;
		n++;
		end = seconds(CLOCK_MONOTONIC);
	} while (end - start < atof(argv[2]));
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	printf("{\"iops\": %.1f, \"mbs\": %.2f, \"cpu_us\": %.3f}\n",
	    n / (end - start), n * bytes / (end - start) / 1e6, cpu * 1e6 / n);
	return 0;
}
