/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How fast disks are for the guest: a few kinds of work, past the guest's page
 * cache, on each disk in turns.
 *
 *	rate ROUNDS SECONDS DISK...
 *		Prints a line for each kind of work, round and disk: these, and
 *		how many requests a second were done in so many seconds.  Writes
 *		all over the disks.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "profile.h"

#define DEPTH_MAX 4

static const struct work {
	const char *name;
	bool write;
	bool in_order;
	unsigned depth; /* requests at a time, each from a thread */
	size_t bytes;	/* of one */
} works[] = {
    {"256k-write-in-order", true, true, 1, 256 << 10},
    {"256k-read-in-order", false, true, 1, 256 << 10},
    {"4k-read-QD1", false, false, 1, 4096},
    {"4k-read-QD4", false, false, 4, 4096},
    {"4k-write-QD1", true, false, 1, 4096},
    {"4k-write-QD4", true, false, 4, 4096},
};

static const struct work *work;
static int disk;
static uint64_t places; /* for requests on the disk */
static double deadline;
static atomic_uint_fast64_t done;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *
thread(void *arg)
{
	uint64_t n = (uintptr_t)arg, place = 0;
	char *buffer = aligned_alloc(4096, work->bytes);
	ssize_t len;

	if (buffer == NULL)
		err(1, "memory");
	while (now() < deadline) {
		n = n * 6364136223846793005 + 1442695040888963407;
		place = work->in_order ? place + 1 : n >> 33;
		len = work->write ? pwrite(disk, buffer, work->bytes,
					place % places * work->bytes)
				  : pread(disk, buffer, work->bytes,
					place % places * work->bytes);
		if (len != (ssize_t)work->bytes)
			err(1, "%s", work->name);
		atomic_fetch_add(&done, 1);
	}
	free(buffer);
	return NULL;
}

/*
 * Tell profile.c, if it is there, to begin or to end.
 */
static void
mark(bool begin)
{
#if defined(__aarch64__)
	if (begin)
		__asm__ volatile(".inst %0" ::"i"(PROFILE_BEGIN));
	else
		__asm__ volatile(".inst %0" ::"i"(PROFILE_END));
#else
	(void)begin;
#endif
}

/*
 * Requests a second that the disk does for 'seconds'.
 */
static double
rate(const char *path, double seconds)
{
	pthread_t threads[DEPTH_MAX];
	pthread_attr_t attr;
	cpu_set_t cpu;
	double start;
	off_t size;

	disk = open(path, O_RDWR | O_DIRECT);
	if (disk < 0 || (size = lseek(disk, 0, SEEK_END)) < 0)
		err(1, "%s", path);
	places = size / work->bytes;
	done = 0;
	pthread_attr_init(&attr);
	mark(true);
	start = now();
	deadline = start + seconds;
	/* One alone stays where the interrupts of virtio disks come in. */
	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	if (work->depth == 1)
		pthread_attr_setaffinity_np(&attr, sizeof(cpu), &cpu);
	for (uintptr_t i = 0; i < work->depth; i++)
		if (pthread_create(&threads[i], &attr, thread, (void *)i) != 0)
			errx(1, "cannot create a thread");
	for (unsigned i = 0; i < work->depth; i++)
		pthread_join(threads[i], NULL);
	seconds = now() - start;
	mark(false);
	close(disk);
	return done / seconds;
}

int
main(int argc, char **argv)
{
	const struct work *end = works + sizeof(works) / sizeof(works[0]);

	if (argc < 4)
		errx(2, "usage: rate ROUNDS SECONDS DISK...");
	for (work = works; work < end; work++)
		for (int round = 1; round <= atoi(argv[1]); round++)
			for (int i = 3; i < argc; i++)
				printf("%s %d %s %.1f\n", work->name, round,
				    argv[i], rate(argv[i], atof(argv[2])));
	return 0;
}
