/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unmodified program, killed: at any moment under load, and after each of
 * its stores in turn to what a successor goes by.  Each time another one is
 * started with the same arguments, and the guest, which only ever waits for
 * answers and interrupts, must find every request done once and right.
 *
 * $VDISK_KILLS is how many kills at random there are to be (200); of the tests
 * that take longest only one store in $VDISK_KILL_STRIDE (7) is tried.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
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
#include "fake_xen.h"
#include "load.h"

#define DOMID	     7
#define MIB	     (1ULL << 20)
#define RAM	     (1 * MIB)

#define FEATURE(bit) (1ULL << (bit))
#define MODERN                                                                 \
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |  \
	    FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_BLK_F_FLUSH) |   \
	    FEATURE(VIRTIO_BLK_F_DISCARD) |                                    \
	    FEATURE(VIRTIO_BLK_F_WRITE_ZEROES))

#define CONTINUING "continuing from the state of a previous vdisk"

static char disk[64];
static int file = -1;
static struct driver drv;
static struct load load;
static uint64_t heap;		   /* of the driver, before it had a queue */
static uint64_t features = MODERN; /* that the driver wants */
static uint16_t num = 64;	   /* its descriptors */
static bool memory;		   /* the disk is nowhere else */
static bool granted;		   /* the guest grants its memory */
static unsigned direct;		   /* direct I/O, by blocks of this; or 0 */
static unsigned killed;
static unsigned long start_us; /* how long it takes vdisk to start, about */

static unsigned
environment(const char *name, unsigned otherwise)
{
	const char *value = getenv(name);

	return value != NULL ? strtoul(value, NULL, 10) : otherwise;
}

/*
 * Another one.  They all write to the same file.
 */
static pid_t
spawn(void)
{
	const char *const args[] = {drv.legacy	 ? "--legacy"
				    : drv.grants ? "--grants"
				    : direct	 ? "--direct"
						 : "--",
	    "7", BASE_ARG, IRQ, disk, NULL};
	pid_t pid = child_fork();

	if (pid == 0) {
		dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
		dup2(child_err, STDERR_FILENO);
		child_exec(args, NULL);
	}
	return pid;
}

/*
 * Wait for the end of 'pid', by its own hand or killed: its wait status.
 */
static int
await(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

/*
 * Nobody is killed who was not meant to, and nobody gives up.
 */
static void
assert_killed(int status)
{
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
	    "vdisk ended by itself (%#x): %s", status, errors());
	killed++;
}

/*
 * What they say is that they continue, which some do not come to the end of, or
 * that the guest is at fault.
 */
static void
assert_calm(void)
{
	char line[256], path[32];
	FILE *all;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", child_err);
	all = fopen(path, "r");
	ck_assert_ptr_nonnull(all);
	while (fgets(line, sizeof(line), all) != NULL)
		ck_assert_msg(strstr(line, "error") == NULL &&
				  strstr(line, "critical") == NULL,
		    "vdisk said: %s", line);
	fclose(all);
}

static void
fresh_errors(void)
{
	if (child_err != -1)
		close(child_err);
	child_err = memfd_create("stderr", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	/* Every vdisk writes after what the last one wrote. */
	fcntl(child_err, F_SETFL, O_APPEND);
}

static void
bring_up(void)
{
	drv.heap = heap;
	memset(fake_xen_ram(heap), 0, FAKE_XEN_LOW + RAM - heap);
	driver_start(&drv, features, num);
}

static void
take_down(void)
{
	driver_reset(&drv);
	load_reset(&load);
}

/*
 * Make a device of the file, if that is possible here.
 */
static void
put_on_device(void)
{
	const char *device;

	ck_assert_int_eq(ftruncate(file, LOAD_SECTORS * 512), 0);
	device = loop_device(disk, direct);
	if (device == NULL)
		return;
	snprintf(disk, sizeof(disk), "%s", device);
	file = open(disk, O_RDWR | O_CLOEXEC);
	ck_assert_int_ne(file, -1);
}

static void
setup_as(bool legacy)
{
	/* Of which the second may be in memory, too. */
	const char *directory = direct ? "/var/tmp" : "/tmp";

	file = nameless_file(memory ? NULL : directory, 0, disk);
	if (direct)
		put_on_device();
	fake_xen_start(DOMID, 2, RAM, 0);
	driver_init(&drv, BASE, FAKE_XEN_LOW, RAM);
	drv.legacy = legacy;
	drv.grants = granted;
	load_init(&load, &drv, file, 1);
	load.no_discard = direct > 512;
#if defined(__x86_64__)
	/* It is being migrated all the time. */
	fake_xen_copy(true);
	load.copied = true;
#endif
	heap = drv.heap;
	fresh_errors();
	child = spawn();
	for (start_us = 0; fake_xen_server_bound(0) < 2; start_us += 200) {
		ck_assert_msg(waitpid(child, NULL, WNOHANG) == 0,
		    "vdisk does not start: %s", errors());
		usleep(200);
	}
	bring_up();
	/* As of a device of which there is no sysfs to ask. */
	if (!(drv.offered & 1ULL << VIRTIO_BLK_F_DISCARD))
		load.no_discard = true;
}

static void
setup(void)
{
	setup_as(false);
}

static void
setup_legacy(void)
{
	setup_as(true);
}

static void
setup_grants(void)
{
	granted = true;
	setup_as(false);
}

static void
setup_memory(void)
{
	memory = true;
	setup_as(false);
}

static void
setup_direct(void)
{
	direct = 512;
	setup_as(false);
}

/* One request at a time, and flags to tell each other whether to notify. */
static void
setup_small(void)
{
	features &= ~(FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
		      FEATURE(VIRTIO_RING_F_EVENT_IDX));
	num = 4;
	setup_as(false);
}

/* Of a block the load mostly writes a part, and sometimes all. */
static void
setup_direct_4096(void)
{
	direct = 4096;
	setup_as(false);
}

/*
 * At random.  The moment of the next kill is set when a vdisk is started, so
 * some do not come further than that.  On a busy machine none would: the more
 * die one after the other with nothing done, the longer the next may live.
 */

static timer_t timer;
static unsigned in_vain; /* died since a request was completed */
static unsigned done;	 /* requests, when the last one died */
static pid_t heir;	 /* started while 'child' lives, to wait for its end */

static void
shoot(int sig)
{
	(void)sig;
	kill(child, SIGKILL);
}

static void
aim(void)
{
	unsigned most_us = (1 + in_vain / 4) * (2 * start_us + 8000);
	/* An heir waits for two seconds. */
	unsigned us = 1 + load_random(&load, MIN(most_us, 1000000));
	struct itimerspec when = {.it_value.tv_sec = us / 1000000,
	    .it_value.tv_nsec = us % 1000000 * 1000};

	ck_assert_int_eq(timer_settime(timer, 0, &when, NULL), 0);
}

/*
 * While the guest waits: see whether vdisk still lives, and sleep.
 */
static void
survive(void)
{
	uint32_t seen = fake_xen_events();
	int status;

	if (waitpid(child, &status, WNOHANG) == child) {
		assert_killed(status);
		in_vain = load.completed == done ? in_vain + 1 : 0;
		done = load.completed;
		child = heir != 0 ? heir : spawn();
		heir = 0;
		aim();
	} else if (heir == 0 && load_random(&load, 64) == 0) {
		heir = spawn();
	}
	/* What happened just before 'seen' costs one turn. */
	fake_xen_sleep(seen, 1);
}

static void
look_at_registers(void)
{
	drv.vcpu = 1;
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS), 15);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_QUEUE_READY), 1);
	ck_assert_uint_eq(
	    driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), LOAD_SECTORS);
	drv.vcpu = 0;
}

/*
 * The guest gives a page back that nothing is in flight for, and gets another.
 */
static void
exchange_page(void)
{
	struct load_slot *s = &load.slot[load_random(&load, LOAD_SLOTS)];

	if (s->head >= 0)
		return;
	fake_xen_take_page(s->gpa);
	driver_invalidate(&drv, 1);
	driver_end(&drv, 1);
	fake_xen_give_page(s->gpa);
}

static void
random_load(void)
{
	unsigned n = 1 + load_random(&load, LOAD_SLOTS);

	while (n-- > 0)
		load_any(&load);
	driver_kick(&drv);
	if (load_random(&load, 4) == 0)
		look_at_registers();
	if (load_random(&load, 8) == 0)
		exchange_page();
	if (load_random(&load, 40) == 0) {
		take_down();
		bring_up();
	}
	if (load_random(&load, 8) == 0)
		load_drain(&load);
	else
		load_some(&load);
}

START_TEST(killed_at_random_under_load_it_loses_nothing)
{
	unsigned wanted = environment("VDISK_KILLS", 200);
	struct sigevent event = {
	    .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct sigaction action = {.sa_handler = shoot, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &action, NULL);
	ck_assert_int_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	drv.step = survive;
	aim();
	while (killed < wanted)
		random_load();
	load_drain(&load);
	ck_assert_uint_eq(fake_xen_calls(XC_CREATE_IOREQ_SERVER), 1);
	timer_delete(timer);
	if (heir != 0) {
		kill(heir, SIGKILL);
		await(heir);
	}
	load_verify(&load, file);
	assert_calm();
	printf("kill: %u kills, %u requests\n", killed, load.completed);
}
END_TEST

/*
 * After each store to what is shared with a successor or the guest.  Each
 * generation has a number of stores to live.
 */

#define GENERATIONS 64

static unsigned plan[GENERATIONS]; /* stores after which; 0: lives */
static unsigned generation;	   /* how many of them are dead */

/*
 * While the guest waits: see whether vdisk still lives, and sleep.
 */
static void
succeed(void)
{
	uint32_t seen = fake_xen_events();
	int status;

	if (waitpid(child, &status, WNOHANG) == child) {
		assert_killed(status);
		ck_assert_uint_lt(++generation, GENERATIONS);
		fake_xen_kill_after(plan[generation]);
		child = spawn();
	}
	/* What happened just before 'seen' costs one turn. */
	fake_xen_sleep(seen, 1);
}

/*
 * Watch what the guest looks at: used ring, and the pages with the status
 * bytes.  False: that is not possible here.
 */
static bool
watch_pages(void)
{
	unsigned i;

	if (!fake_xen_watch(drv.used))
		return false;
	for (i = 0; i < LOAD_SLOTS; i++)
		fake_xen_watch(drv.requests + i * DRIVER_REQUEST_BYTES);
	/* By the next one, that is. */
	kill(child, SIGKILL);
	await(child);
	child = spawn();
	return true;
}

/* What the guest does meanwhile. */

static void
one_write(void)
{
	load_request(&load, VIRTIO_BLK_T_OUT, 3, 2);
	driver_kick(&drv);
	load_drain(&load);
}

static void
a_batch(void)
{
	load_request(&load, VIRTIO_BLK_T_OUT, 8, 8);
	load_request(&load, VIRTIO_BLK_T_IN, 100, 1);
	load_request(&load, VIRTIO_BLK_T_FLUSH, 0, 0);
	load_request(&load, VIRTIO_BLK_T_OUT, 200, 3);
	driver_kick(&drv);
	load_drain(&load);
}

static void
a_reset_in_flight(void)
{
	load_request(&load, VIRTIO_BLK_T_OUT, 40, 8);
	load_request(&load, VIRTIO_BLK_T_IN, 50, 8);
	driver_kick(&drv);
	take_down();
	fake_xen_kill_after(0); /* a start is another act */
	bring_up();
}

static void
pages_given_back_in_flight(void)
{
	load_request(&load, VIRTIO_BLK_T_OUT, 60, 8);
	load_request(&load, VIRTIO_BLK_T_IN, 70, 8);
	driver_invalidate(&drv, 1);
	driver_kick(&drv);
	driver_end(&drv, 1);
	load_drain(&load);
}

static void
two_vcpus(void)
{
	driver_begin(&drv, 1, false, VIRTIO_MMIO_CONFIG, 8, 0);
	one_write();
	ck_assert_uint_eq(driver_end(&drv, 1), LOAD_SECTORS);
}

/* It may find a request done before it is told, and use its descriptors. */
static void
a_guest_that_does_not_wait(void)
{
	unsigned i;

	for (i = 0; i < 3; i++) {
		load_request(&load, VIRTIO_BLK_T_OUT, 80 + i, 1);
		driver_kick(&drv);
		load_poll(&load);
	}
	driver_interrupt(&drv);
}

static void
a_fault(void)
{
	driver_add_wrong(&drv);
	driver_patience(&drv);
	while (!(driver_interrupt(&drv) & VIRTIO_MMIO_INT_CONFIG))
		driver_wait(&drv);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS),
	    (drv.legacy ? 7 : 15) | VIRTIO_CONFIG_S_NEEDS_RESET);
	fake_xen_kill_after(0);
	take_down();
	bring_up();
}

/* Positions start from 0 again, without a reset. */
static void
a_queue_anew(void)
{
	uint32_t offset =
	    drv.legacy ? VIRTIO_MMIO_QUEUE_PFN : VIRTIO_MMIO_QUEUE_READY;
	uint32_t ready = driver_read(&drv, offset);

	one_write();
	driver_write(&drv, offset, 0);
	ck_assert_uint_eq(driver_read(&drv, offset), 0);
	memset(driver_avail(&drv), 0, 6 + 2 * drv.num);
	memset(driver_used(&drv), 0, 6 + 8 * drv.num);
	drv.avail_idx = drv.used_idx = drv.kicked = 0;
	driver_write(&drv, offset, ready);
	one_write();
}

/*
 * One ends, as it does unless it is killed before, and another one follows it
 * with another disk.
 */
static void
exchange(const char *with)
{
	int status;

	kill(child, SIGTERM);
	status = await(child);
	if (!WIFEXITED(status)) {
		assert_killed(status);
		ck_assert_uint_lt(++generation, GENERATIONS);
		fake_xen_kill_after(plan[generation]);
	}
	snprintf(disk, sizeof(disk), "%s", with);
	child = spawn();
}

static void
until_told_of(uint64_t sectors)
{
	driver_patience(&drv);
	while (!(driver_interrupt(&drv) & VIRTIO_MMIO_INT_CONFIG))
		driver_wait(&drv);
	ck_assert_uint_eq(driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), sectors);
}

static void
an_eject(void)
{
	char was[sizeof(disk)];

	memcpy(was, disk, sizeof(was));
	one_write();
	exchange("none");
	until_told_of(0);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_IN, 0,
			      driver_alloc(&drv, 512, 512), 512),
	    VIRTIO_BLK_S_IOERR);
	exchange(was);
	until_told_of(LOAD_SECTORS);
	one_write();
}

static void
the_start(void)
{
	take_down();
	bring_up();
}

static const struct {
	void (*act)(void);
	const char *name;
} acts[] = {
    {one_write, "a write"},
    {a_batch, "a batch"},
    {two_vcpus, "two vCPUs"},
    {pages_given_back_in_flight, "INVALIDATE"},
    {a_guest_that_does_not_wait, "polling"},
    {a_reset_in_flight, "a reset"},
    {a_queue_anew, "a queue made ready again"},
    {a_fault, "a fault"},
    {an_eject, "an eject"},
    {the_start, "a start"},
};

/*
 * A device at rest wants to know of the next chain.  It would find it sooner or
 * later, by chance, but no guest should have to wait for that.
 */
static void
wait_until_it_listens(void)
{
	bool event_idx = drv.features & FEATURE(VIRTIO_RING_F_EVENT_IDX);

	driver_patience(&drv);
	while (event_idx ? *driver_avail_event(&drv) != drv.avail_idx
			 : driver_used(&drv)->flags != 0)
		driver_wait(&drv);
}

/*
 * Do it while generations are killed as planned, and tell how many were.  Then
 * all must be well.
 */
static unsigned
act_and_die(unsigned what)
{
	/* Rings at rest, and at the same positions each time. */
	drv.step = NULL;
	take_down();
	bring_up();
	generation = 0;
	drv.step = succeed;
	fake_xen_kill_after(plan[0]);
	driver_read(&drv, VIRTIO_MMIO_STATUS); /* it notifies */
	acts[what].act();
	fake_xen_kill_after(0);
	memset(&plan[generation + 1], 0,
	    sizeof(plan) - (generation + 1) * sizeof(plan[0]));
	wait_until_it_listens();
	a_batch();
	ck_assert_uint_eq(drv.used_idx, drv.avail_idx);
	load_verify(&load, file);
	return generation;
}

static void
report(const char *how, const char *what)
{
	printf("kill: %s in %s: %u kills, after %u stores\n", how, what, killed,
	    fake_xen_stores());
	ck_assert_uint_gt(killed, 0);
	assert_calm();
}

/*
 * Numbers of stores to die after: each, or one in so many, beginning with
 * another one if 'shift' is another.
 */
static unsigned
stride(void)
{
	return environment("VDISK_KILL_STRIDE", 7);
}

static unsigned
start_at(unsigned shift)
{
	return 1 + shift % stride();
}

START_TEST(killed_after_any_store_it_loses_nothing)
{
	/* All of them, normally, but a start is long and repeats itself. */
	unsigned step = acts[_i].act == the_start ? stride() : 1 + stride() / 8;
	unsigned n = 1;

	if (!watch_pages())
		return;
	memset(plan, 0, sizeof(plan));
	for (plan[0] = n; act_and_die(_i) == 1; plan[0] = n)
		n += step;
	ck_assert_uint_gt(n, 5);
	report("once", acts[_i].name);
}
END_TEST

START_TEST(killed_again_and_again_it_loses_nothing)
{
	unsigned i, n = start_at(_i);

	if (!watch_pages())
		return;
	do {
		memset(plan, 0, sizeof(plan));
		for (i = 0; i < 8; i++)
			plan[i] = n;
		n += stride();
	} while (act_and_die(_i) > 0);
	report("8 times", acts[_i].name);
}
END_TEST

START_TEST(killed_while_it_continues_it_loses_nothing)
{
	unsigned first = start_at(_i), second, died;

	if (!watch_pages())
		return;
	do {
		second = start_at(first);
		do {
			memset(plan, 0, sizeof(plan));
			plan[0] = first;
			plan[1] = second;
			died = act_and_die(_i);
			second += stride();
		} while (died == 2);
		first += stride();
	} while (died > 0);
	report("twice", acts[_i].name);
}
END_TEST

/*
 * One lives, and one only.
 */

static void
set_up_nobody(void)
{
	setup();
	kill(child, SIGKILL);
	await(child);
	child = 0;
	fresh_errors();
}

static void
assert_gave_up(int status)
{
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1,
	    "status %#x", status);
	assert_one_line(errors());
	assert_mentions(errors(), "in use by another vdisk");
}

START_TEST(of_two_successors_one_serves_and_one_gives_up)
{
	pid_t one, other, ended;
	int status;

	one = spawn();
	other = spawn();
	ended = waitpid(-1, &status, 0);
	ck_assert(ended == one || ended == other);
	child = ended == one ? other : one;
	ck_assert_uint_eq(fake_xen_server_bound(0), 2);
	a_batch();
	ck_assert_int_eq(kill(child, SIGKILL), 0);
	await(child);
	child = 0;
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1,
	    "status %#x", status);
	assert_mentions(errors(), CONTINUING);
	assert_mentions(errors(), "in use by another vdisk");
	ck_assert_uint_eq(fake_xen_calls(XC_CREATE_IOREQ_SERVER), 1);
}
END_TEST

START_TEST(of_two_that_start_a_new_disk_one_serves_and_one_gives_up)
{
	pid_t one, other, ended;
	int status;

	fake_xen_start(DOMID, 2, RAM, 0);
	one = spawn();
	other = spawn();
	ended = waitpid(-1, &status, 0);
	ck_assert(ended == one || ended == other);
	child = ended == one ? other : one;
	assert_gave_up(status);
	ck_assert_uint_eq(fake_xen_server_bound(0), 2);
	ck_assert_uint_eq(fake_xen_calls(XC_CREATE_IOREQ_SERVER), 1);
	kill(child, SIGKILL);
	await(child);
	child = 0;
}
END_TEST

START_TEST(while_one_lives_another_gives_up_and_disturbs_nothing)
{
	ioreq_t before[FAKE_XEN_PAGE / sizeof(ioreq_t)];
	unsigned raised;
	pid_t other;
	int status;

	a_batch();
	/* Answered when the last interrupt is raised. */
	driver_read(&drv, VIRTIO_MMIO_STATUS);
	driver_interrupt(&drv);
	memcpy(before, fake_xen_server_page(0), sizeof(before));
	raised = fake_xen_irq_raised();
	other = spawn();
	status = await(other);
	assert_gave_up(status);
	ck_assert_mem_eq(before, fake_xen_server_page(0), sizeof(before));
	ck_assert_uint_eq(fake_xen_irq_raised(), raised);
	ck_assert_uint_eq(fake_xen_server_bound(0), 2);
	ck_assert_uint_eq(fake_xen_calls(XC_CREATE_IOREQ_SERVER), 1);
	a_batch();
	load_verify(&load, file);
}
END_TEST

START_TEST(ended_and_started_again_it_is_an_upgrade)
{
	unsigned i, n;
	int status;

	for (i = 0; i < 20; i++) {
		for (n = 0; n < LOAD_SLOTS; n++)
			load_any(&load);
		driver_kick(&drv);
		kill(child, i % 2 == 0 ? SIGTERM : SIGHUP);
		status = await(child);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
		    "status %#x", status);
		child = spawn();
		load_drain(&load);
	}
	load_verify(&load, file);
	assert_calm();
}
END_TEST

static TCase *
add_case(Suite *s, const char *name, SFun before)
{
	TCase *tc = cases_add(s, name, before, child_kill);

	tcase_set_timeout(tc, 3600);
	return tc;
}

int
main(void)
{
	Suite *s = suite_create("kill");
	TCase *tc;

	tc = add_case(s, "random", setup);
	tcase_add_test(tc, killed_at_random_under_load_it_loses_nothing);

	tc = add_case(s, "memory", setup_memory);
	tcase_add_test(tc, killed_at_random_under_load_it_loses_nothing);
	tcase_add_loop_test(tc, killed_after_any_store_it_loses_nothing, 1, 2);
	/* Of others the kernel takes back too late what they had locked. */
	if (geteuid() == 0) {
		tc = add_case(s, "direct", setup_direct);
		tcase_add_test(
		    tc, killed_at_random_under_load_it_loses_nothing);
		tcase_add_loop_test(
		    tc, killed_after_any_store_it_loses_nothing, 1, 2);
		tc = add_case(s, "direct 4096", setup_direct_4096);
		tcase_add_test(
		    tc, killed_at_random_under_load_it_loses_nothing);
	} else {
		fprintf(stderr, "skipped: direct I/O: only root may lock as "
				"much memory as is needed\n");
	}

	/* Those in which it matters what they tell each other. */
	tc = add_case(s, "small", setup_small);
	tcase_add_loop_test(tc, killed_after_any_store_it_loses_nothing, 0, 1);
	tcase_add_loop_test(tc, killed_after_any_store_it_loses_nothing, 4, 7);

	tc = add_case(s, "stores", setup);
	tcase_add_loop_test(
	    tc, killed_after_any_store_it_loses_nothing, 0, COUNT(acts));

	/* From resets on, what version 1 has a way of its own for. */
	tc = add_case(s, "legacy", setup_legacy);
	tcase_add_loop_test(
	    tc, killed_after_any_store_it_loses_nothing, 5, COUNT(acts));

	tc = add_case(s, "grants", setup_grants);
	tcase_add_test(tc, killed_at_random_under_load_it_loses_nothing);
	tcase_add_loop_test(
	    tc, killed_after_any_store_it_loses_nothing, 0, COUNT(acts));
	tcase_add_loop_test(
	    tc, killed_while_it_continues_it_loses_nothing, 0, 2);

	tc = add_case(s, "generations", setup);
	tcase_add_loop_test(
	    tc, killed_again_and_again_it_loses_nothing, 0, COUNT(acts));

	tc = add_case(s, "pairs", setup);
	/* All but a start. */
	tcase_add_loop_test(
	    tc, killed_while_it_continues_it_loses_nothing, 0, COUNT(acts) - 1);

	tc = add_case(s, "one", setup);
	tcase_add_test(
	    tc, while_one_lives_another_gives_up_and_disturbs_nothing);
	tcase_add_test(tc, ended_and_started_again_it_is_an_upgrade);

	tc = add_case(s, "two", set_up_nobody);
	tcase_add_loop_test(
	    tc, of_two_successors_one_serves_and_one_gives_up, 0, 2);
	tcase_add_loop_test(
	    tc, of_two_that_start_a_new_disk_one_serves_and_one_gives_up, 0, 2);
	return cases_run(s);
}
