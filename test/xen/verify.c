/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's load: writes a disk from several threads at once and verifies
 * every byte that comes back.  Each sector carries its own number, a generation
 * that counts how often it was written, a pattern made from both, and a
 * checksum, so that lost, torn, stale and misplaced writes are told apart.
 *
 *	verify [-e] [-t THREADS] [-s SECONDS] DISK
 *		Write and read all of it in order, then here and there in all
 *		sizes for SECONDS, then read all of it again.  With -e requests
 *		may fail: a sector that was written in vain is as it was, or as
 *		it should be.
 *	verify -p [-t THREADS] DISK
 *		Write all of it in order, generation 1, 2, 3 ..., until
 *		something fails; says after each that it is on stable storage.
 *	verify -c [-g GENERATION] DISK
 *		Only look: every sector must be intact, and of this generation
 *		or a later one.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECTOR	    512
#define MAX_SECTORS 512 /* of one request */
#define MAX_THREADS 64
#define MAX_REPORTS 8

/* The sector as it is on the disk; the checksum is over all words before it. */
struct stamp {
	uint64_t number;
	uint64_t generation;
	uint64_t pattern[SECTOR / 8 - 3];
	uint64_t checksum;
};

enum job { WRITE, READ, MIX, CHECK };

/* Each thread has a part of the disk for itself, so it knows what is there. */
struct worker {
	pthread_t thread;
	uint64_t first;	      /* sector */
	uint64_t count;	      /* sectors */
	uint32_t *generation; /* of each sector: the newest that was written, */
	uint32_t *certain;    /* and the newest that was not in vain, or 0 */
	uint64_t random;
	char *buffer;
	uint64_t requests; /* done in the current job */
	uint64_t sectors;  /* ... in these */
	double slowest;	   /* seconds the longest of them took */
};

static int disk;
static struct worker workers[MAX_THREADS];
static unsigned threads = 1;
static enum job job;
static double deadline; /* of the job MIX */
static uint32_t oldest; /* generation allowed in the job CHECK */
static bool may_fail;
static atomic_uint errors, failures;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint64_t
checksum(const struct stamp *s)
{
	const uint64_t *word = (const uint64_t *)s;
	uint64_t sum = 0xcbf29ce484222325;

	for (size_t i = 0; i < SECTOR / 8 - 1; i++)
		sum = (sum ^ word[i]) * 0x100000001b3;
	return sum;
}

static void
stamp(struct stamp *s, uint64_t number, uint64_t generation)
{
	uint64_t x = (number << 24 ^ generation) * 0x9e3779b97f4a7c15;

	s->number = number;
	s->generation = generation;
	for (size_t i = 0; i < SECTOR / 8 - 3; i++)
		s->pattern[i] = x += 0xd1342543de82ef95;
	s->checksum = checksum(s);
}

static void
complain(uint64_t number, const char *what, uint64_t detail)
{
	if (atomic_fetch_add(&errors, 1) < MAX_REPORTS)
		printf("verify: sector %llu: %s %llu\n",
		    (unsigned long long)number, what,
		    (unsigned long long)detail);
}

/*
 * Whether to go on.
 */
static bool
failed(uint64_t number, const char *what, int error)
{
	char text[32];

	if (may_fail) {
		failures++;
		usleep(20000);
		return true;
	}
	snprintf(text, sizeof(text), "%s failed, error", what);
	complain(number, text, error);
	return false;
}

/*
 * The sector must be of a generation from 'first' to 'last'.
 */
static void
verify(const struct stamp *s, uint64_t number, uint64_t first, uint64_t last)
{
	uint64_t generation = s->generation;
	struct stamp want;

	if (generation < first)
		generation = first;
	else if (generation > last)
		generation = last;
	stamp(&want, number, generation);
	if (memcmp(s, &want, SECTOR) == 0)
		return;
	if (s->checksum != checksum(s))
		complain(number, "torn or foreign; wanted generation", first);
	else if (s->number != number)
		complain(number, "holds what belongs to", s->number);
	else
		complain(number, "stale: holds generation", s->generation);
}

/*
 * One request: 'count' sectors of w's part, 'at' sectors from its start.  The
 * place in the buffer varies, so that requests differ in their segments.
 */
static bool
transfer(struct worker *w, bool write, uint64_t at, uint64_t count)
{
	struct stamp *s = (struct stamp *)w->buffer + (at ^ w->requests) % 8;
	uint64_t number = w->first + at;
	ssize_t len = count * SECTOR, n;
	double start;

	if (write)
		for (uint64_t i = 0; i < count; i++)
			stamp(&s[i], number + i, ++w->generation[at + i]);
	start = now();
	n = write ? pwrite(disk, s, len, number * SECTOR)
		  : pread(disk, s, len, number * SECTOR);
	if (now() - start > w->slowest)
		w->slowest = now() - start;
	if (n != len)
		return failed(
		    number, write ? "write" : "read", n < 0 ? errno : 0);
	for (uint64_t i = 0; i < count; i++) {
		uint32_t *certain = &w->certain[at + i];

		if (write)
			*certain = w->generation[at + i];
		else if (job == CHECK)
			verify(&s[i], number + i, oldest, UINT64_MAX);
		else if (*certain > 0)
			verify(
			    &s[i], number + i, *certain, w->generation[at + i]);
	}
	w->requests++;
	w->sectors += count;
	return true;
}

static uint64_t
pick(struct worker *w, uint64_t limit)
{
	w->random = w->random * 6364136223846793005 + 1442695040888963407;
	return (w->random >> 33) % limit;
}

static void
mix(struct worker *w)
{
	while (now() < deadline && !errors) {
		uint64_t count = 1 + pick(w, 1 << pick(w, 10));
		uint64_t at = pick(w, w->count - count);

		if (!transfer(w, pick(w, 2), at, count))
			return;
		if (pick(w, 64) == 0 && fsync(disk) < 0)
			failed(w->first + at, "fsync", errno);
	}
}

static void *
work(void *arg)
{
	struct worker *w = arg;

	w->requests = w->sectors = 0;
	w->slowest = 0;
	if (job == MIX) {
		mix(w);
		return NULL;
	}
	for (uint64_t at = 0; at < w->count; at += MAX_SECTORS) {
		uint64_t left = w->count - at;

		if (!transfer(w, job == WRITE, at,
			left < MAX_SECTORS ? left : MAX_SECTORS))
			break;
	}
	return NULL;
}

static void
run(enum job what, const char *name)
{
	uint64_t requests = 0, sectors = 0;
	double start = now(), seconds, slowest = 0;

	job = what;
	for (unsigned i = 0; i < threads; i++)
		if (pthread_create(
			&workers[i].thread, NULL, work, &workers[i]) != 0)
			errx(1, "can't create a thread");
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		requests += workers[i].requests;
		sectors += workers[i].sectors;
		if (workers[i].slowest > slowest)
			slowest = workers[i].slowest;
	}
	if (what == WRITE && fsync(disk) < 0)
		failed(0, "fsync", errno);
	seconds = now() - start;
	if (name)
		printf("%-14s %2u threads %6.0f requests/s %6.1f MB/s, slowest "
		       "%.0f ms\n",
		    name, threads, requests / seconds,
		    sectors * SECTOR / 1e6 / seconds, slowest * 1e3);
}

static void
divide(uint64_t sectors)
{
	uint64_t part = sectors / threads;

	if (part <= MAX_SECTORS)
		errx(1, "the disk is too small");
	for (unsigned i = 0; i < threads; i++) {
		struct worker *w = &workers[i];

		w->first = i * part;
		w->count = i == threads - 1 ? sectors - w->first : part;
		w->random = i + 1;
		w->generation = calloc(w->count, sizeof(*w->generation));
		w->certain = calloc(w->count, sizeof(*w->certain));
		w->buffer = aligned_alloc(4096, (MAX_SECTORS + 8) * SECTOR);
		if (!w->generation || !w->certain || !w->buffer)
			err(1, "memory");
	}
}

static int
verdict(void)
{
	if (failures)
		printf("verify: %u requests failed\n", (unsigned)failures);
	if (errors)
		printf("verify: %u errors\n", (unsigned)errors);
	else
		printf("verify: every byte is right\n");
	return errors != 0;
}

int
main(int argc, char **argv)
{
	bool check = false, passes = false;
	double seconds = 5;
	int option;
	off_t size;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt(argc, argv, "t:s:g:cep")) != -1) {
		switch (option) {
		case 't':
			threads = atoi(optarg);
			break;
		case 's':
			seconds = atof(optarg);
			break;
		case 'g':
			oldest = atoi(optarg);
			break;
		case 'c':
			check = true;
			break;
		case 'e':
			may_fail = true;
			break;
		case 'p':
			passes = true;
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1 || threads < 1 || threads > MAX_THREADS)
		errx(2, "see verify.c");
	disk = open(argv[optind], check ? O_RDONLY : O_RDWR | O_DIRECT);
	if (disk < 0 || (size = lseek(disk, 0, SEEK_END)) < 0)
		err(1, "%s", argv[optind]);
	divide(size / SECTOR);

	if (check) {
		run(CHECK, "check");
		return verdict();
	}
	for (uint32_t generation = 1; passes && !errors; generation++) {
		run(WRITE, NULL);
		if (!errors)
			printf("generation %u\n", generation);
	}
	if (passes)
		return verdict();
	run(WRITE, "write in order");
	run(READ, "read in order");
	deadline = now() + seconds;
	run(MIX, "all over");
	run(READ, "read in order");
	return verdict();
}
