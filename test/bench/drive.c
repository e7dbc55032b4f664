/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One measurement: a guest with one vCPU drives a disk with one kind of work,
 * and what it cost is printed as one JSON object.  Owns the work, the clock and
 * the disk's processor time.
 *
 * The guest keeps as many requests in flight as it was told.  It looks at the
 * used ring only when interrupted, and notifies at most once for all that it
 * makes available then, as Linux does for a plugged batch, or for each.
 */
#include <dirent.h>
#include <err.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/perf_event.h>
#include <linux/virtio_blk.h>

#include "ring.h"
#include "transport.h"

#define MIB	    (1ULL << 20)
#define THREADS_MAX 64

/* Timeout in seconds. */
#define TIMEOUT_S 120

static const char usage[] =
    "usage: drive [-r PERCENT] [-s] [-f] [-b BYTES] [-q DEPTH] [-t SECONDS]\n"
    "             [-n REQUESTS] [-w MICROSECONDS] [-m MIB] [-d MIB]\n"
    "             [-g CPU] [-c CPU] [-ekuy]\n"
    "             COMMAND...\n\n"
    "  -r  requests that are reads (100), in percent\n"
    "  -s  sequential, not random\n"
    "  -f  a flush after every write\n"
    "  -b  bytes of a request (4096)\n"
    "  -q  requests in flight (1)\n"
    "  -t  seconds to measure (1), after all memory was used once and a\n"
    "      quarter as many seconds\n"
    "  -n  requests to measure instead, from the first on\n"
    "  -w  time that the guest thinks between interrupt and next requests\n"
    "  -m  the guest's memory (256)\n"
    "  -d  the disk's size as far as it is used (1024)\n"
    "  -g  processor of the guest, where it and the disk come before all\n"
    "      others; -c of the disk\n"
    "  -e  notify for each request, as Linux does for those of many threads\n"
    "  -k  only as much memory as is in flight is used, over and over\n"
    "  -u  what is read is not looked at\n"
    "  -y  count the disk's system calls, too, which slows it down\n";

static struct {
	unsigned reads;
	bool sequential;
	bool flush;
	unsigned pages;
	unsigned depth;
	double seconds;
	uint64_t requests;
	unsigned think;
	uint64_t ram;
	uint64_t blocks; /* of the size of a request, on the disk */
	int guest_cpu, disk_cpu;
	bool few_pages;
	bool kick_each;
	bool count_calls;
} work = {.reads = 100,
    .pages = 1,
    .depth = 1,
    .seconds = 1,
    .ram = 256 * MIB,
    .blocks = 1024 * MIB,
    .guest_cpu = -1,
    .disk_cpu = -1};

static struct ring ring;
static struct samples latency;
static uint64_t next_block, served, bytes;
static unsigned owed; /* flushes for writes that came back */
static int counter[THREADS_MAX];
static unsigned counters;

uint64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

void
sample(struct samples *s, uint64_t ns)
{
	if (s->n == s->room) {
		s->room = s->room == 0 ? 65536 : 2 * s->room;
		s->ns = reallocarray(s->ns, s->room, sizeof(*s->ns));
		if (s->ns == NULL)
			err(1, "samples");
	}
	s->ns[s->n++] = ns > UINT32_MAX ? UINT32_MAX : ns;
}

static int
compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

void
report_samples(FILE *f, const char *name, struct samples *s)
{
	double sum = 0;
	size_t i;

	if (s->n == 0)
		return;
	qsort(s->ns, s->n, sizeof(*s->ns), compare);
	for (i = 0; i < s->n; i++)
		sum += s->ns[i];
	fprintf(f,
	    ", \"%s\": {\"mean\": %.0f, \"p50\": %u, \"p99\": %u, "
	    "\"p99.9\": %u}",
	    name, sum / s->n, s->ns[s->n / 2], s->ns[s->n * 99 / 100],
	    s->ns[s->n * 999 / 1000]);
}

/*
 * Processor time of all threads of a process, the dead ones and those of the
 * kernel's that io_uring adds included.
 */
static uint64_t
cpu_ns(pid_t pid)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0 ||
	    clock_gettime(clock, &ts) == -1)
		errx(1, "the disk is dead");
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * Count the system calls of every thread that the disk has now.
 */
static void
start_counters(pid_t pid)
{
	static const char id[] =
	    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";
	struct perf_event_attr attr = {
	    .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr)};
	struct dirent *entry;
	unsigned long long config;
	char path[64];
	FILE *f = fopen(id, "r");
	DIR *dir;

	if (f == NULL || fscanf(f, "%llu", &config) != 1)
		err(1, "%s", id);
	fclose(f);
	attr.config = config;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' || counters == THREADS_MAX)
			continue;
		counter[counters] = syscall(
		    SYS_perf_event_open, &attr, atoi(entry->d_name), -1, -1, 0);
		if (counter[counters++] == -1)
			err(1, "perf_event_open");
	}
	if (dir != NULL)
		closedir(dir);
}

static uint64_t
read_counters(void)
{
	uint64_t sum = 0, count;

	while (counters > 0)
		if (read(counter[--counters], &count, sizeof(count)) ==
		    sizeof(count))
			sum += count;
	return sum;
}

static void
submit(uint64_t at)
{
	uint32_t type;

	if (work.flush && owed > 0) {
		owed--;
		ring_add(&ring, VIRTIO_BLK_T_FLUSH, 0, 0, at);
		return;
	}
	type = (unsigned)random() % 100 < work.reads ? VIRTIO_BLK_T_IN
						     : VIRTIO_BLK_T_OUT;
	next_block = (work.sequential ? next_block + 1 : (uint64_t)random()) %
		     work.blocks;
	ring_add(&ring, type, next_block * work.pages, work.pages, at);
}

/*
 * One interrupt: take what came back.  How many there were.
 */
static unsigned
take(void)
{
	const struct ring_request *req;
	unsigned returned = 0;
	uint64_t at;

	transport_interrupt();
	do {
		at = now();
		while ((req = ring_take(&ring)) != NULL) {
			sample(&latency, at - req->submitted);
			owed += req->type == VIRTIO_BLK_T_OUT;
			bytes += (uint64_t)req->pages * RING_PAGE;
			returned++;
		}
	} while (!ring_enable(&ring));
	return returned;
}

/*
 * One interrupt: take what came back and replace it.
 */
static void
turn(void)
{
	unsigned returned = take();
	uint64_t at;

	served += returned;
	if (work.think > 0)
		usleep(work.think);
	at = now();
	for (; returned > 0; returned--) {
		submit(at);
		if ((work.kick_each || returned == 1) && ring_kick(&ring))
			transport_kick();
	}
}

/*
 * Have the disk use every page of the guest's memory once, as after some time
 * in a guest's life: what it then maps or faults in is not to be measured.
 */
static void
touch_memory(void)
{
	unsigned i, flying = 0, left = ring.npages / RING_PAGES_MAX + 1;

	ring_enable(&ring);
	while (left > 0 || flying > 0) {
		for (i = 0; i < 8 && left > 0 && ring.nfree > 0; i++, left--) {
			ring_add(&ring, VIRTIO_BLK_T_IN, 0, RING_PAGES_MAX, 0);
			flying++;
		}
		if (ring_kick(&ring))
			transport_kick();
		flying -= take();
	}
}

static void
run_for(double seconds, uint64_t requests)
{
	uint64_t end = now() + seconds * 1e9;

	served = bytes = 0;
	while (requests != 0 ? served < requests : now() < end)
		turn();
}

/*
 * Memory that is the disk's alone, in KiB: all of it, and without what the
 * libraries bring.
 */
static void
report_memory(FILE *out, pid_t pid)
{
	unsigned long all = 0, own = 0, kib;
	char path[64], line[512];
	bool library = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "r");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		/* Each mapping begins with a line of addresses. */
		if (strchr(line, '-') != NULL && strchr(line, '-') < line + 17)
			library = strstr(line, ".so") != NULL;
		if (sscanf(line, "Private_Clean: %lu", &kib) == 1 ||
		    sscanf(line, "Private_Dirty: %lu", &kib) == 1) {
			all += kib;
			own += library ? 0 : kib;
		}
	}
	if (f != NULL)
		fclose(f);
	fprintf(
	    out, ", \"private_kib\": %lu, \"private_own_kib\": %lu", all, own);
}

static void
measure(FILE *f)
{
	pid_t pid = transport_pid();
	uint64_t begin, cpu, own;
	unsigned i;

	if (work.requests == 0)
		touch_memory();
	ring.few_pages = work.few_pages;
	for (i = 0; i < work.depth; i++)
		submit(now());
	ring_enable(&ring);
	if (ring_kick(&ring))
		transport_kick();
	if (work.requests == 0)
		run_for(work.seconds / 4, 0);
	if (work.count_calls)
		start_counters(pid);
	latency.n = 0;
	transport_reset();
	begin = now();
	cpu = cpu_ns(pid);
	own = cpu_ns(getpid());
	run_for(work.seconds, work.requests);
	cpu = cpu_ns(pid) - cpu;
	own = cpu_ns(getpid()) - own;
	begin = now() - begin;

	fprintf(f, "{\"requests\": %llu", (unsigned long long)served);
	if (work.count_calls)
		fprintf(f, ", \"syscalls\": %.4f",
		    (double)read_counters() / served);
	fprintf(f, ", \"seconds\": %.4f, \"iops\": %.1f, \"mbs\": %.2f",
	    begin / 1e9, served / (begin / 1e9), bytes / (begin / 1e3));
	fprintf(f, ", \"cpu_us\": %.3f, \"guest_cpu_us\": %.3f",
	    cpu / 1e3 / served, own / 1e3 / served);
	transport_report(f, served);
	report_samples(f, "latency_ns", &latency);
}

static void
parse(int argc, char **argv)
{
	uint64_t size = RING_PAGE, disk = 1024 * MIB;
	int c;

	while ((c = getopt(argc, argv, "+r:sfb:q:t:n:w:m:d:g:c:ekuy")) != -1) {
		switch (c) {
		case 'r':
			work.reads = atoi(optarg);
			break;
		case 's':
			work.sequential = true;
			break;
		case 'f':
			work.flush = true;
			break;
		case 'b':
			size = atoi(optarg);
			break;
		case 'q':
			work.depth = atoi(optarg);
			break;
		case 't':
			work.seconds = atof(optarg);
			break;
		case 'n':
			work.requests = atoll(optarg);
			break;
		case 'w':
			work.think = atoi(optarg);
			break;
		case 'm':
			work.ram = atoll(optarg) * MIB;
			break;
		case 'd':
			disk = atoll(optarg) * MIB;
			break;
		case 'g':
			work.guest_cpu = atoi(optarg);
			break;
		case 'c':
			work.disk_cpu = atoi(optarg);
			break;
		case 'e':
			work.kick_each = true;
			break;
		case 'k':
			work.few_pages = true;
			break;
		case 'u':
			ring.unverified = true;
			break;
		case 'y':
			work.count_calls = true;
			break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	work.pages = size / RING_PAGE;
	if (optind == argc || work.pages < 1 || work.pages > RING_PAGES_MAX ||
	    work.depth < 1 || work.depth > RING_NUM ||
	    work.ram < RING_DATA + RING_NUM * RING_PAGES_MAX * RING_PAGE ||
	    disk < size) {
		fputs(usage, stderr);
		exit(2);
	}
	work.blocks = disk / size;
}

/*
 * Run on processor 'cpu' only; -1: on any.
 */
static void
stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (cpu >= 0 && sched_setaffinity(0, sizeof(set), &set) == -1)
		err(1, "processor %d", cpu);
}

void
become(char **argv, int cpu)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	stay_on(cpu);
	execvp(argv[0], argv);
	err(127, "%s", argv[0]);
}

int
main(int argc, char **argv)
{
	pid_t pid;

	parse(argc, argv);
	alarm(TIMEOUT_S); /* the disk dies with us */
	if (work.guest_cpu >= 0)
		/* Before everybody else, which the disk inherits, as root. */
		sched_setscheduler(
		    0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
	stay_on(work.guest_cpu);
	transport_start(&ring, work.ram, argv + optind, work.disk_cpu);
	pid = transport_pid();
	measure(stdout);
	report_memory(stdout, pid);
	puts("}");
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	return 0;
}
