/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program as it is shipped, for as long as one likes ($MINUTES): a load
 * that verifies itself, while all that can happen to a disk happens again and
 * again, at random.  One is killed and ended, and its medium exchanged, over
 * and over; the other one lives all the time, and must take no more of anything
 * in the end than after a twelfth of it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "cases.h"
#include "child.h"
#include "driver.h"
#include "fake_host.h"
#include "fake_xen.h"
#include "load.h"

#define DOMID 7
#define MIB   (1ULL << 20)
#define RAM   (8 * MIB)
#define MORE  512 /* sectors by which the disk may be larger */

#define FIRST 200 /* things happen before what it takes is counted */

/* What may be said of one thing that happens, and of a second of trouble. */
#define LINES_EACH   2

#define FEATURE(bit) (1ULL << (bit))
#define MODERN                                                                 \
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_BLK_F_DISCARD) |         \
	    FEATURE(VIRTIO_BLK_F_WRITE_ZEROES))

static char disk[64]; /* that vdisk is given: its path or "none" */
static char path[64];
static int file = -1;
static char host_path[64];
static volatile struct fake_host *host;
static struct driver drv;
static struct load load;
static uint64_t heap;
static bool mortal;
static const char *map_limit = "--map-limit=4";
static unsigned starts, happened;
static unsigned due; /* as many starts there will be for the kills so far */

static unsigned
minutes(void)
{
	const char *value = getenv("MINUTES");

	return value != NULL ? strtoul(value, NULL, 10) : 3;
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void
spawn(void)
{
	const char *const args[] = {map_limit, "7", BASE_ARG, IRQ, disk, NULL};
	pid_t pid = child_fork();

	if (pid == 0) {
		dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
		dup2(child_err, STDERR_FILENO);
		setenv(FAKE_HOST, host_path, 1);
		child_exec(args, "fake_host.so");
	}
	child = pid;
	starts++;
}

/*
 * The last of what was said.
 */
static const char *
last_words(void)
{
	const char *all = errors();
	size_t len = strlen(all);

	return all + (len > 500 ? len - 500 : 0);
}

/*
 * While the guest waits: replace a child that has ended, and sleep.
 */
static void
attend(void)
{
	uint32_t seen = fake_xen_events();
	int status;

	if (waitpid(child, &status, WNOHANG) == child) {
		ck_assert_msg(
		    mortal &&
			(WIFEXITED(status) ? WEXITSTATUS(status) == 0
					   : WTERMSIG(status) == SIGKILL ||
						 WTERMSIG(status) == SIGTERM),
		    "vdisk ended (%#x): %s", status, last_words());
		spawn();
	}
	fake_xen_sleep(seen, 1);
}

static void
bring_up(void)
{
	static const uint64_t rings[] = {0, FEATURE(VIRTIO_RING_F_EVENT_IDX),
	    FEATURE(VIRTIO_RING_F_INDIRECT_DESC),
	    FEATURE(VIRTIO_RING_F_EVENT_IDX) |
		FEATURE(VIRTIO_RING_F_INDIRECT_DESC)};
	uint64_t features = MODERN | rings[load_random(&load, 4)];

	if (load_random(&load, 4) > 0)
		features |= FEATURE(VIRTIO_BLK_F_FLUSH);
	drv.heap = heap;
	memset(fake_xen_ram(heap), 0, FAKE_XEN_LOW + RAM - heap);
	driver_start(&drv, features, 64 << load_random(&load, 3));
}

static void
take_down(void)
{
	driver_reset(&drv);
	load_reset(&load);
}

static void
setup_as(bool killed)
{
	int fd = nameless_file(NULL, sizeof(*host), host_path);

	mortal = killed;
	file = nameless_file("/var/tmp", 0, path);
	memcpy(disk, path, sizeof(disk));
	host = mmap(
	    NULL, sizeof(*host), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne((void *)host, MAP_FAILED);
	/* A flush that has failed stays so until the disk is ejected. */
	host->spare = !mortal;
	fake_xen_start(DOMID, 2, RAM, 0);
	driver_init(&drv, BASE, FAKE_XEN_LOW, RAM);
	load_init(&load, &drv, file, getpid());
	load.may_fail = true;
	heap = drv.heap;
	child_err = memfd_create("stderr", MFD_CLOEXEC);
	fcntl(child_err, F_SETFL, O_APPEND);
	spawn();
	drv.step = attend;
	driver_patience(&drv);
	while (fake_xen_server_bound(0) < 2)
		driver_wait(&drv);
#if defined(__x86_64__)
	/* It is being migrated all the time. */
	fake_xen_copy(true);
	load.copied = true;
#endif
	bring_up();
}

static void
setup_killed(void)
{
	setup_as(true);
}

static void
setup_living(void)
{
	setup_as(false);
}

/* What happens. */

static void
a_kill(void)
{
	static const char *const limits[] = {
	    "--", "--map-limit=0", "--map-limit=2", "--map-limit=4"};

	map_limit = limits[load_random(&load, 4)];
	kill(child, mortal ? SIGKILL : SIGUSR2);
	due = starts + mortal;
}

static void
an_end(void)
{
	kill(child, mortal ? SIGTERM : SIGUSR2);
	due = starts + mortal;
}

/*
 * Wait until one serves, which takes signals for what they mean.
 */
static void
until_one_serves(void)
{
	driver_patience(&drv);
	while (starts < due)
		driver_wait(&drv);
	driver_read(&drv, VIRTIO_MMIO_STATUS);
}

static void
a_report(void)
{
	until_one_serves();
	kill(child, SIGUSR2);
}

static void
until_it_has(uint64_t sectors)
{
	driver_patience(&drv);
	while (driver_get(&drv, VIRTIO_MMIO_CONFIG, 8) != sectors)
		driver_wait(&drv);
}

static void
another_size(void)
{
	uint64_t sectors = LOAD_SECTORS + load_random(&load, MORE);

	/* Who starts does not take a smaller one. */
	until_one_serves();
	ck_assert_int_eq(ftruncate(file, sectors * 512), 0);
	kill(child, SIGUSR1);
	until_it_has(sectors);
}

static void
an_eject(void)
{
	struct stat st;

	if (!mortal)
		return;
	load_drain(&load);
	ck_assert_int_eq(fstat(file, &st), 0);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(disk, sizeof(disk), "%s", i == 0 ? "none" : path);
		kill(child, SIGTERM);
		until_it_has(i == 0 ? 0 : st.st_size / 512);
	}
}

static void
pages_exchanged(void)
{
	struct load_slot *s = &load.slot[load_random(&load, LOAD_SLOTS)];

	if (s->head < 0)
		fake_xen_take_page(s->gpa);
	driver_invalidate(&drv, 1);
	driver_end(&drv, 1);
	if (s->head < 0)
		fake_xen_give_page(s->gpa);
}

static void
a_reset(void)
{
	take_down();
	bring_up();
}

static void
a_fault(void)
{
	driver_add_wrong(&drv);
	driver_patience(&drv);
	while (!(driver_read(&drv, VIRTIO_MMIO_STATUS) &
		 VIRTIO_CONFIG_S_NEEDS_RESET))
		driver_wait(&drv);
	a_reset();
}

/* The host's troubles, each over after a while.  False: it may finish nothing. */
static bool
trouble(void)
{
	static const int errors_of_disks[] = {
	    EIO, ENOSPC, EFBIG, EINTR, EAGAIN, ENOMEM};

	switch (load_random(&load, 6)) {
	case 0: /* slow */
		host->hold = true;
		return false;
	case 1: /* little at a time */
		host->limit = 512 << load_random(&load, 3);
		break;
	case 2: /* failing, full, short of memory */
		host->error = errors_of_disks[load_random(&load, 6)];
		host->fail = 1 + load_random(&load, 20);
		break;
	case 3: /* with no room for what is submitted */
		host->error = EAGAIN;
		host->refuse = 1 + load_random(&load, 20);
		break;
	case 4: /* with no room, or a little, for more of the guest's memory */
		fake_xen_set_room(
		    fake_xen_foreign() + load_random(&load, 2) * 4);
		return false;
	case 5: /* with no memory for tables of what is mapped */
		fake_xen_starve(load_random(&load, 2) ? ENOENT : ENOMEM);
		return false;
	}
	return true;
}

static void
well_again(void)
{
	host->hold = host->limit = host->fail = host->refuse = 0;
	fake_xen_set_room(UINT64_MAX);
	fake_xen_starve(0);
}

static void
work(unsigned rounds)
{
	while (rounds-- > 0) {
		for (unsigned n = 1 + load_random(&load, LOAD_SLOTS); n > 0;
		     n--)
			load_any(&load);
		driver_kick(&drv);
		if (load_random(&load, 4) > 0)
			load_some(&load);
		else
			load_drain(&load);
	}
}

static void (*const acts[])(void) = {a_kill, a_kill, an_end, a_report,
    another_size, an_eject, pages_exchanged, pages_exchanged, a_reset, a_fault};
#define ACTS (sizeof(acts) / sizeof(acts[0]))

static void
something_happens(void)
{
	if (load_random(&load, 3) == 0) {
		bool finishes = trouble();

		/* What is held back would be waited for. */
		for (unsigned n = load_random(&load, LOAD_SLOTS); n > 0; n--)
			load_any(&load);
		driver_kick(&drv);
		usleep(load_random(&load, 20000));
		if (finishes)
			work(1 + load_random(&load, 4));
		well_again();
	} else {
		acts[load_random(&load, ACTS)]();
	}
	happened++;
	work(1 + load_random(&load, 8));
}

/* What it takes. */

struct need {
	unsigned descriptors, mappings;
	unsigned long kib; /* of memory of its own, but for the stack */
};

static unsigned
count_in(const char *what)
{
	char name[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(name, sizeof(name), "/proc/%d/%s", child, what);
	dir = opendir(name);
	ck_assert_ptr_nonnull(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n - 2;
}

/*
 * A rare call may be the first to use a page of the stack.
 */
static unsigned long
kib_without_stack(void)
{
	unsigned long sum = 0, kib, start, end;
	char name[64], line[256];
	bool stack = false;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%d/smaps", child);
	f = fopen(name, "r");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			stack = strstr(line, "[stack]") != NULL;
		if (!stack && sscanf(line, "Anonymous: %lu", &kib) == 1)
			sum += kib;
	}
	fclose(f);
	return sum;
}

/*
 * Of the one that lives, at rest, with no memory of the guest mapped.
 */
static struct need
need(void)
{
	struct need need;

	load_drain(&load);
	take_down();
	driver_invalidate(&drv, 1);
	driver_end(&drv, 1);
	usleep(100000);
	need.descriptors = count_in("fd");
	need.mappings = count_in("map_files");
	need.kib = kib_without_stack();
	printf(
	    "soak: after %u requests: %u descriptors, %u mappings, %lu KiB\n",
	    load.completed, need.descriptors, need.mappings, need.kib);
	fflush(stdout);
	bring_up();
	return need;
}

static unsigned
lines_said(void)
{
	char name[32];
	unsigned n = 0;
	FILE *f;
	int c;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", child_err);
	f = fopen(name, "r");
	ck_assert_ptr_nonnull(f);
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

static void
all_is_well(void)
{
	well_again();
	an_eject();
	load_drain(&load);
	a_reset();
	load.may_fail = false;
	work(100);
	load_drain(&load);
	ck_assert_int_eq(fsync(file), 0);
	load_verify(&load, file);
}

START_TEST(it_loses_nothing_and_takes_nothing)
{
	double begin = now(), end = begin + minutes() * 60, lasted;
	struct need before, after;
	unsigned lines;

	/* At a shortage it looks at all its requests, whose memory is its own then. */
	driver_invalidate(&drv, 1);
	driver_end(&drv, 1);
	fake_xen_set_room(0);
	load_any(&load);
	driver_kick(&drv);
	driver_patience(&drv);
	while (lines_said() == 0) /* that there is no room */
		driver_wait(&drv);
	well_again();
	/* The processor may be busy with all else. */
	while (now() < begin + minutes() * 5 || happened < FIRST)
		something_happens();
	before = need();
	while (now() < end)
		something_happens();
	after = need();
	all_is_well();
	lasted = now() - begin;
	lines = lines_said();
	printf("soak: %.0f s, %u things happened to %u vdisks, %u requests of "
	       "which %u failed, %u lines said\n",
	    lasted, happened, starts, load.completed, load.failed, lines);
	ck_assert_uint_le(lines, LINES_EACH * (happened + starts + lasted));
	if (!mortal) {
		ck_assert_uint_eq(starts, 1);
		ck_assert_uint_le(after.descriptors, before.descriptors);
		ck_assert_uint_le(after.mappings, before.mappings);
		ck_assert_uint_le(after.kib, before.kib);
	}
	/* Check has no number for how long that was, if it has to count. */
	fflush(stdout);
	child_kill();
	exit(0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("soak");
	TCase *tc;

	tc = cases_add(s, "killed", setup_killed, child_kill);
	tcase_set_timeout(tc, 0);
	tcase_add_exit_test(tc, it_loses_nothing_and_takes_nothing, 0);
	tc = cases_add(s, "living", setup_living, child_kill);
	tcase_set_timeout(tc, 0);
	tcase_add_exit_test(tc, it_loses_nothing_and_takes_nothing, 0);
	return cases_run(s);
}
