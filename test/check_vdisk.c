/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unmodified program, on the fake host: its arguments, what it says and how
 * it exits, and a guest that uses the disk from another process.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <linux/capability.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "asan.h"
#include "cases.h"
#include "child.h"
#include "driver.h"
#include "fake_xen.h"

#define DOMID 7
#if defined(__aarch64__)
#define BAD_IRQ "31"
#else
#define BAD_IRQ "16"
#endif
#define MIB	     (1ULL << 20)
#define RAM	     (64 * MIB)
#define DISK	     (32 * MIB)
#define SECTOR	     512

#define FEATURE(bit) (1ULL << (bit))
#define MODERN                                                                 \
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |  \
	    FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_BLK_F_FLUSH))

/* How a child is to be run otherwise than usual. */
enum {
	NO_STDOUT = 1 << 0,  /* closed */
	NO_STREAMS = 1 << 1, /* all three closed */
	NO_READER = 1 << 2,  /* stdout is a pipe that nobody reads */
	NO_POWERS = 1 << 3,  /* root that file permissions apply to */
	NO_SPACE = 1 << 4,   /* stdout is full */
	NO_DEVICES = 1 << 5, /* nothing in /dev */
	NO_TMP = 1 << 6,     /* /tmp is read-only */
	NO_HUP = 1 << 7,     /* SIGHUP is ignored */
	NO_INT = 1 << 8,     /* SIGINT is ignored */
};

static char disk[64]; /* path of the open file below, which has no other */
static int file = -1;
static struct driver drv;

static void
setup(void)
{
	file = nameless_file("/tmp", DISK, disk);
	fake_xen_start(DOMID, 2, RAM, 0);
	driver_init(&drv, BASE, FAKE_XEN_LOW, RAM);
}

/*
 * Take away what the child is to do without.
 */
static void
impair(int how)
{
	int fd[2];

	if (how & NO_READER && pipe2(fd, O_CLOEXEC) == 0)
		dup2(fd[1], STDOUT_FILENO);
	if (how & (NO_STDOUT | NO_STREAMS))
		close(STDOUT_FILENO);
	if (how & NO_STREAMS) {
		close(STDIN_FILENO);
		close(STDERR_FILENO);
	}
	if (how & NO_POWERS) {
		prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE);
		prctl(PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH);
	}
	if (how & NO_SPACE)
		dup2(open("/dev/full", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
	if (how & (NO_DEVICES | NO_TMP) &&
	    (unshare(CLONE_NEWNS) != 0 ||
		mount("/", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0))
		_exit(125);
	if (how & NO_DEVICES && mount("/dev", "/dev", "tmpfs", 0, NULL) != 0)
		_exit(125);
	if (how & NO_TMP &&
	    (mount("/tmp", "/tmp", NULL, MS_BIND, NULL) != 0 ||
		mount("/tmp", "/tmp", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY,
		    NULL) != 0))
		_exit(125);
	signal(SIGHUP, how & NO_HUP ? SIG_IGN : SIG_DFL);
	signal(SIGINT, how & NO_INT ? SIG_IGN : SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
}

/*
 * Start vdisk with the arguments in 'args', which a NULL ends.
 */
static void
start(const char *const *args, int how)
{
	if (!child_start())
		return;
	impair(how);
	child_exec(args, NULL);
}

static int
run(const char *const *args, int how)
{
	start(args, how);
	return finish();
}

/*
 * Start vdisk on the disk with an option, and wait until the guest may run.
 */
static void
serve_with(const char *option)
{
	const char *args[] = {option, "7", BASE_ARG, IRQ, disk, NULL};

	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
}

/*
 * The same without, and however it is to be run.
 */
static void
serve(int how)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};
	struct timespec ms = {.tv_nsec = 1000000};
	unsigned i;

	start(args, how);
	if (how == 0) {
		ck_assert_str_eq(output(), "ready\n");
		return;
	}
	/* It cannot say so; its channels are bound last. */
	for (i = 0; fake_xen_server_bound(0) < 2; i++) {
		ck_assert_uint_lt(i, DRIVER_TIMEOUT_MS);
		ck_assert_int_eq(waitpid(child, NULL, WNOHANG), 0);
		nanosleep(&ms, NULL);
	}
}

static void
guest(void)
{
	drv.indirect = true;
	driver_start(&drv, MODERN, 64);
}

/* One request out and in again, at 'sector': the disk at work. */
static void
exercise(uint64_t sector)
{
	uint64_t out = driver_pattern(&drv, 4096, sector),
		 in = driver_pattern(&drv, 4096, ~sector);

	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, sector, out, 4096),
	    VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, sector, out, 4096));
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_IN, sector, in, 4096),
	    VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(fake_xen_ram(in), fake_xen_ram(out), 4096);
}

static const struct {
	const char *name; /* in the message, and so is the value */
	const char *value;
	const char *args[CHILD_ARGS];
} wrong[] = {
    {"DOMID", "x", {"x", BASE_ARG, IRQ, "p"}},
    {"DOMID", "''", {"", BASE_ARG, IRQ, "p"}},
    {"DOMID", "0x", {"0x", BASE_ARG, IRQ, "p"}},
    {"DOMID", "12a", {"12a", BASE_ARG, IRQ, "p"}},
    {"DOMID", "+7", {"+7", BASE_ARG, IRQ, "p"}},
    {"DOMID", " 7", {" 7", BASE_ARG, IRQ, "p"}},
    {"DOMID", "7 ", {"7 ", BASE_ARG, IRQ, "p"}},
    {"DOMID", "-7", {"--", "-7", BASE_ARG, IRQ, "p"}},
    {"DOMID", "32752", {"32752", BASE_ARG, IRQ, "p"}},
    {"DOMID", "65543", {"65543", BASE_ARG, IRQ, "p"}},
    {"DOMID", "4294967303", {"4294967303", BASE_ARG, IRQ, "p"}},
    {"DOMID", "18446744073709551623",
	{"18446744073709551623", BASE_ARG, IRQ, "p"}},
    {"MMIO_BASE", "2000000h", {"7", "2000000h", IRQ, "p"}},
    {"MMIO_BASE", "0x200g", {"7", "0x200g", IRQ, "p"}},
    {"MMIO_BASE", "0x2000100", {"7", "0x2000100", IRQ, "p"}},
    {"MMIO_BASE", "0x2000001", {"7", "0x2000001", IRQ, "p"}},
    {"MMIO_BASE", "0xfffffffffffffe00", {"7", "0xfffffffffffffe00", IRQ, "p"}},
    {"MMIO_BASE", "0x10000000002000000",
	{"7", "0x10000000002000000", IRQ, "p"}},
    {"IRQ", "five", {"7", BASE_ARG, "five", "p"}},
    {"IRQ", "0", {"7", BASE_ARG, "0", "p"}},
    {"IRQ", BAD_IRQ, {"7", BASE_ARG, BAD_IRQ, "p"}},
    {"IRQ", "1020", {"7", BASE_ARG, "1020", "p"}},
    {"IRQ", "4294967301", {"7", BASE_ARG, "4294967301", "p"}},
    {"SERIAL", "123456789012345678901",
	{"-s", "123456789012345678901", "7", BASE_ARG, IRQ, "p"}},
    {"MAP_LIMIT", "4294967296",
	{"--map-limit=4294967296", "7", BASE_ARG, IRQ, "p"}},
    {"POLL", "10001", {"--poll=10001", "7", BASE_ARG, IRQ, "p"}},
    {"POLL", "50us", {"--poll=50us", "7", BASE_ARG, IRQ, "p"}},
    {"USER", "no one", {"-u", "no one", "7", BASE_ARG, IRQ, "p"}},
    {"USER", "''", {"-u", "", "7", BASE_ARG, IRQ, "p"}},
    {"FILE", "''", {"-p", "", "7", BASE_ARG, IRQ, "p"}},
    {"PATH", "''", {"7", BASE_ARG, IRQ, ""}},
    {"--grants", "--legacy", {"--grants", "-l", "7", BASE_ARG, IRQ, "p"}},
    {"DOMID", "\\x1b[2Jseven\\x0a", {"\033[2Jseven\n", BASE_ARG, IRQ, "p"}},
    {"usage", "DOMID", {NULL}},
    {"usage", "PATH", {"7", BASE_ARG, IRQ}},
    {"usage", "PATH", {"7", BASE_ARG, IRQ, "p", "q"}},
    {"option", "x", {"-x", "7", BASE_ARG, IRQ, "p"}},
    {"option", "bogus", {"--bogus", "7", BASE_ARG, IRQ, "p"}},
    {"option", "read-only", {"--read-only=1", "7", BASE_ARG, IRQ, "p"}},
    {"option", "s", {"7", BASE_ARG, IRQ, "p", "-s"}},
};

START_TEST(a_wrong_argument_gets_one_line_that_names_it)
{
	ck_assert_int_eq(run(wrong[_i].args, 0), 2);
	assert_one_line(errors());
	assert_mentions(errors(), wrong[_i].name);
	assert_mentions(errors(), wrong[_i].value);
	ck_assert_str_eq(output(), "");
	ck_assert_uint_eq(fake_xen_calls(XC_DEVICEMODEL_OPEN), 0);
}
END_TEST

static void
assert_refused(const char *what)
{
	assert_one_line(errors());
	assert_mentions(errors(), what);
	ck_assert_str_eq(output(), "");
	ck_assert(!fake_xen_server_enabled(0));
}

START_TEST(a_path_that_is_no_disk_is_refused)
{
	const char *const paths[] = {"/tmp", "/nonexistent/disk", "/dev/null"};
	const char *args[] = {"7", BASE_ARG, IRQ, paths[_i], NULL};

	ck_assert_int_eq(run(args, 0), 1);
	assert_refused(paths[_i]);
}
END_TEST

START_TEST(a_name_cannot_do_anything_to_a_terminal)
{
	const char *args[] = {"7", BASE_ARG, IRQ,
	    "/nonexistent/\033[31m\r\n\t\177\302\2332J/\303\233\342\202\254",
	    NULL};

	ck_assert_int_eq(run(args, 0), 1);
	assert_refused("/nonexistent/\\x1b[31m\\x0d\\x0a\\x09\\x7f\302\\x9b2J/"
		       "\303\233\342\202\254: ");
}
END_TEST

START_TEST(of_a_long_name_the_line_tells_so_much_that_the_error_fits)
{
	char path[PATH_MAX];
	const char *args[] = {"7", BASE_ARG, IRQ, path, NULL};

	memset(path, '\n', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	ck_assert_int_eq(run(args, 0), 1);
	assert_refused("\\x0a\\x0a: File name too long\n");
}
END_TEST

START_TEST(a_pipe_as_path_is_refused_and_not_waited_for)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};
	int fd[2];

	ck_assert_int_eq(pipe2(fd, O_CLOEXEC), 0);
	snprintf(disk, sizeof(disk), "/proc/%d/fd/%d", getpid(), fd[0]);
	ck_assert_int_eq(run(args, 0), 1);
	assert_refused(disk);
}
END_TEST

START_TEST(an_empty_disk_is_refused)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};

	ck_assert_int_eq(ftruncate(file, 0), 0);
	ck_assert_int_eq(run(args, 0), 1);
	assert_refused(disk);
}
END_TEST

START_TEST(a_disk_that_may_not_be_read_is_refused)
{
	const char *args[] = {"-r", "7", BASE_ARG, IRQ, disk, NULL};

	ck_assert_int_eq(fchmod(file, 0), 0);
	ck_assert_int_eq(run(args, NO_POWERS), 1);
	assert_refused(disk);
}
END_TEST

START_TEST(a_disk_that_may_not_be_written_is_refused)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};

	ck_assert_int_eq(fchmod(file, 0400), 0);
	ck_assert_int_eq(run(args, NO_POWERS), 1);
	assert_refused(disk);
}
END_TEST

START_TEST(a_domain_that_does_not_exist_is_refused)
{
	const char *args[] = {"8", BASE_ARG, IRQ, disk, NULL};

	ck_assert_int_eq(run(args, 0), 1);
	assert_refused("no domain 8");
}
END_TEST

START_TEST(a_host_without_xen_is_refused)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};

	fake_xen_fail(XC_DEVICEMODEL_OPEN, 1, ENOENT);
	fake_xen_fail(XC_FOREIGNMEMORY_OPEN, 1, ENOENT);
	fake_xen_fail(XC_EVTCHN_OPEN, 1, ENOENT);
	ck_assert_int_eq(run(args, 0), 1);
	assert_refused("privileged command interface");
	assert_mentions(errors(), "is this dom0?");
}
END_TEST

static const struct {
	enum fake_xen_call call;
	int error;
} refusals[] = {
    {XC_RESTRICT_ALL, ENOTTY},
    {XC_CREATE_IOREQ_SERVER, ENOSPC},
    {XC_CREATE_IOREQ_SERVER, EOPNOTSUPP},
    {XC_MAP_RESOURCE, EINVAL},
    {XC_MAP_IO_RANGE, EINVAL},
    {XC_SET_IOREQ_SERVER_STATE, EPERM},
    {XC_BIND_INTERDOMAIN, EINVAL},
};

START_TEST(what_xen_refuses_is_one_line_of_error)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};

	fake_xen_fail(refusals[_i].call, 1, refusals[_i].error);
	ck_assert_int_eq(run(args, 0), 1);
	assert_refused(strerror(refusals[_i].error));
}
END_TEST

START_TEST(a_host_without_grants_is_one_line_of_error)
{
	const char *args[] = {"--grants", "7", BASE_ARG, IRQ, disk, NULL};

	fake_xen_fail(XC_GNTTAB_OPEN, 1, ENOENT);
	ck_assert_int_eq(run(args, 0), 1);
	assert_refused("xen-gntdev");
}
END_TEST

START_TEST(with_grants_it_maps_nothing_but_the_rings)
{
	drv.grants = true;
	serve_with("--grants");
	guest();
	exercise(0);
	/* That the guest gives pages back is nothing to such a vdisk. */
	driver_invalidate(&drv, 1);
	driver_end(&drv, 1);
	ck_assert_uint_le(fake_xen_grants_mapped(), 3);
	exercise(8);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), 0);
	driver_reset(&drv);
	ck_assert_uint_eq(fake_xen_grants_mapped(), 0);
	kill(child, SIGTERM);
	ck_assert_int_eq(finish(), 0);
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(a_disk_is_continued_in_the_same_way_only)
{
	const char *args[] = {
	    _i ? "--" : "--grants", "7", BASE_ARG, IRQ, disk, NULL};

	drv.grants = _i;
	serve_with(_i ? "--grants" : "--");
	guest();
	exercise(0);
	child_kill();
	ck_assert_int_eq(run(args, 0), 1);
	assert_one_line(errors());
	assert_mentions(errors(), "--grants differs");
}
END_TEST

START_TEST(help_and_version_go_to_stdout)
{
	static const char *const args[][2] = {
	    {"-h"}, {"--help"}, {"-V"}, {"--version"}};
	const char *text;

	ck_assert_int_eq(run(args[_i], 0), 0);
	ck_assert_str_eq(errors(), "");
	text = output();
	assert_mentions(text, "vdisk");
	if (_i < 2) {
		assert_mentions(text, "DOMID");
		assert_mentions(text, "MMIO_BASE");
		assert_mentions(text, "IRQ");
		assert_mentions(text, "PATH");
		assert_mentions(text, "--map-limit");
		assert_mentions(text, "--daemon");
		assert_mentions(text, "--no-lock");
		assert_mentions(text, "--pidfile");
		assert_mentions(text, "--poll");
		assert_mentions(text, "--read-only");
		assert_mentions(text, "--serial");
		assert_mentions(text, "--user");
		assert_mentions(text, "--no-sandbox");
		assert_mentions(text, "--verbose");
		assert_mentions(text, "--version");
	} else
		assert_one_line(text);
}
END_TEST

START_TEST(what_was_asked_for_and_cannot_be_printed_is_an_error)
{
	static const char *const args[][2] = {{"-h"}, {"-V"}};

	ck_assert_int_eq(run(args[_i], NO_SPACE), 1);
	assert_one_line(errors());
	assert_mentions(errors(), strerror(ENOSPC));
}
END_TEST

START_TEST(ready_and_the_end_of_stdout_mean_that_the_guest_may_run)
{
	serve(0);
	ck_assert(fake_xen_server_enabled(0));
	ck_assert(fake_xen_server_claims(0, BASE));
	ck_assert_uint_eq(fake_xen_server_bound(0), 2);
	ck_assert_int_eq(kill(child, 0), 0);
	ck_assert_str_eq(errors(), "");
	guest();
	exercise(1);
}
END_TEST

START_TEST(numbers_may_be_decimal_or_hexadecimal)
{
	char irq[16];
	const char *args[] = {"0x7", "33554432", irq, disk, NULL};

	snprintf(irq, sizeof(irq), "0X%x", atoi(IRQ));
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	guest();
	exercise(1);
	ck_assert_uint_eq(fake_xen_irq_number(), atoi(IRQ));
}
END_TEST

START_TEST(options_are_taken_in_their_long_and_short_forms)
{
	static const char *const forms[][2] = {
	    {"-rvs", "twenty characters!!!"},
	    {"--read-only", "--serial=twenty characters!!!"},
	};
	const char *args[] = {
	    forms[_i][0], forms[_i][1], "7", BASE_ARG, IRQ, disk, NULL};
	uint64_t gpa;

	/* A disk that may only be read, without a way to write it. */
	ck_assert_int_eq(fchmod(file, 0400), 0);
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	guest();
	ck_assert(drv.offered & FEATURE(VIRTIO_BLK_F_RO));
	gpa = driver_pattern(&drv, 512, 1);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 512), VIRTIO_BLK_S_IOERR);
	ck_assert(!driver_in_file(file, 0, gpa, 512));
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_GET_ID, 0, gpa, 20), VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(fake_xen_ram(gpa), "twenty characters!!!", 20);
}
END_TEST

START_TEST(the_guest_can_do_without_the_cache)
{
	uint32_t wce =
	    VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce);

	serve(0);
	drv.indirect = true;
	driver_start(&drv, MODERN | FEATURE(VIRTIO_BLK_F_CONFIG_WCE), 64);
	exercise(1);
	driver_begin(&drv, 0, true, wce, 1, 0);
	driver_end(&drv, 0);
	ck_assert_uint_eq(driver_get(&drv, wce, 1), 0);
	exercise(2);
	ck_assert_str_eq(errors(), "");
}
END_TEST

static void
await_errors(const char *what)
{
	driver_patience(&drv);
	while (strstr(errors(), what) == NULL)
		driver_wait(&drv);
}

/*
 * The process whose number is in 'path'.
 */
static pid_t
process_in(const char *path)
{
	FILE *f = fopen(path, "r");
	int pid = 0, n = f != NULL ? fscanf(f, "%d\n", &pid) : 0;

	if (f != NULL)
		fclose(f);
	return n == 1 ? pid : 0;
}

/*
 * The only child of process 'pid', or 0 if it has none yet.
 */
static pid_t
the_child_of(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid,
	    (int)pid);
	return process_in(path);
}

/* Whether /proc/PID/status has this line for vdisk. */
static bool
has_status(const char *line)
{
	char path[32], got[256];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", child);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	while (fgets(got, sizeof(got), f) != NULL)
		found |= strcmp(got, line) == 0;
	fclose(f);
	return found;
}

START_TEST(in_the_background_it_serves_once_its_command_returns)
{
	char pidfile[64];
	const char *args[] = {
	    "-d", "-p", pidfile, "7", BASE_ARG, IRQ, disk, NULL};
	const char *longs[] = {
	    "--daemon", "--pidfile", pidfile, "7", BASE_ARG, IRQ, disk, NULL};

	/* So that it becomes a child of this process. */
	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	snprintf(pidfile, sizeof(pidfile), "/tmp/vdisk-check-%d", getpid());
	ck_assert_int_eq(run(_i ? longs : args, 0), 0);
	child = process_in(pidfile);
	unlink(pidfile);
	ck_assert_int_gt(child, 0);
	ck_assert_uint_eq(fake_xen_server_bound(0), 2);
	ck_assert_str_eq(output(), "");
	ck_assert_int_eq(getsid(child), child);
	guest();
	exercise(1);
	kill(child, SIGTERM);
	ck_assert_int_eq(finish(), 0);
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(it_keeps_nothing_of_its_parent)
{
	char path[64], to[64];
	const char *args[] = {"-d", "7", BASE_ARG, IRQ, disk, NULL};
	struct pollfd fd = {.events = POLLIN};
	int inherited[2];
	ssize_t n;

	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	ck_assert_int_eq(pipe(inherited), 0);
	ck_assert_int_eq(dup2(inherited[1], 300), 300);
	if (_i == 0) {
		ck_assert_int_eq(run(args, 0), 0);
		child = the_child_of(getpid());
		snprintf(path, sizeof(path), "/proc/%d/fd/0", child);
		n = readlink(path, to, sizeof(to) - 1);
		ck_assert_int_gt(n, 0);
		to[n] = '\0';
		ck_assert_str_eq(to, "/dev/null");
	} else {
		start(args + 1, 0);
		ck_assert_str_eq(output(), "ready\n");
	}
	close(inherited[1]);
	close(300);
	fd.fd = inherited[0];
	ck_assert_int_eq(poll(&fd, 1, 0), 1);
	ck_assert_int_eq(fd.revents, POLLHUP);
	guest();
	exercise(1);
}
END_TEST

START_TEST(what_fails_in_the_background_fails_its_command)
{
	char pidfile[64];
	const char *args[] = {
	    "-d", "-p", pidfile, "7", BASE_ARG, IRQ, "/nonexistent", NULL};
	int parent;

	snprintf(pidfile, sizeof(pidfile), "/tmp/vdisk-check-%d", getpid());
	ck_assert_int_eq(run(args, 0), 1);
	assert_refused("/nonexistent");
	ck_assert_int_eq(access(pidfile, F_OK), -1);
	/* And if it just dies. */
	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	fcntl(file, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK});
	args[6] = disk;
	start(args, 0);
	parent = child;
	do
		child = the_child_of(parent);
	while (child == 0);
	kill(child, SIGKILL);
	child = parent;
	ck_assert_int_eq(finish(), 1);
}
END_TEST

START_TEST(a_pid_file_that_cannot_be_written_is_named)
{
	static const char *const paths[] = {"/nonexistent/pid", "/dev/full"};
	const char *args[] = {"-p", paths[_i], "7", BASE_ARG, IRQ, disk, NULL};

	ck_assert_int_eq(run(args, 0), 1);
	assert_one_line(errors());
	assert_mentions(errors(), paths[_i]);
	ck_assert_str_eq(output(), "");
}
END_TEST

START_TEST(a_pid_file_is_one_line)
{
	char pidfile[64], line[32], text[32] = "";
	const char *args[] = {"-p", pidfile, "7", BASE_ARG, IRQ, disk, NULL};
	int fd = nameless_file(NULL, 0, pidfile);

	ck_assert_int_eq(pwrite(fd, "1234567890\n\n", 12, 0), 12);
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	ck_assert_int_ge(pread(fd, text, sizeof(text) - 1, 0), 0);
	snprintf(line, sizeof(line), "%d\n", child);
	ck_assert_str_eq(text, line);
}
END_TEST

START_TEST(a_second_one_leaves_the_pid_file_of_the_first)
{
	char pidfile[64];
	const char *args[] = {
	    "--no-lock", "-p", pidfile, "7", BASE_ARG, IRQ, disk, NULL};
	pid_t first;

	/* Whether the disk is locked or not. */
	if (_i == 0)
		args[0] = "-v";
	snprintf(pidfile, sizeof(pidfile), "/tmp/vdisk-check-%d", getpid());
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	first = child;
	ck_assert_int_eq(process_in(pidfile), first);
	ck_assert_int_eq(run(args, 0), 1);
	ck_assert_int_eq(process_in(pidfile), first);
	unlink(pidfile);
	child = first;
}
END_TEST

START_TEST(on_sigusr1_a_new_size_is_signalled_to_the_guest)
{
	serve(0);
	guest();
	exercise(1);
	ck_assert_int_eq(ftruncate(file, 2 * DISK), 0);
	kill(child, SIGUSR1);
	await_errors("131072 sectors, previously 65536");
	assert_one_line(errors());
	ck_assert_uint_eq(
	    driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), 2 * DISK / SECTOR);
	ck_assert_uint_eq(driver_interrupt(&drv) & VIRTIO_MMIO_INT_CONFIG,
	    VIRTIO_MMIO_INT_CONFIG);
	exercise(2 * DISK / SECTOR - 8);
}
END_TEST

#if defined(__aarch64__)
#define EDGE IRQ
#else
#define EDGE "7"
#endif

START_TEST(an_edge_comes_again_for_what_was_not_acknowledged)
{
	const char *args[] = {"7", BASE_ARG, EDGE, disk, NULL};
	int head;

	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	guest();
	head = driver_request(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	driver_kick(&drv);
	driver_patience(&drv);
	while (!fake_xen_irq_up())
		driver_wait(&drv);
	/* The driver's handler runs while the disk grows. */
	fake_xen_irq_take();
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS),
	    VIRTIO_MMIO_INT_VRING);
	ck_assert_int_eq(ftruncate(file, 2 * DISK), 0);
	kill(child, SIGUSR1);
	await_errors("131072 sectors");
	driver_write(&drv, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	ck_assert(driver_take(&drv));
	ck_assert(drv.done[head]);
	*driver_used_event(&drv) = drv.used_idx;
	ck_assert_uint_eq(driver_interrupt(&drv), VIRTIO_MMIO_INT_CONFIG);
	exercise(1);
	ck_assert_uint_eq(drv.spurious, 0);
}
END_TEST

START_TEST(there_may_be_no_disk_and_then_one)
{
	const char *none[] = {"-v", "7", BASE_ARG, IRQ, "none", NULL};

	start(none, 0);
	ck_assert_str_eq(output(), "ready\n");
	driver_start(&drv, MODERN, 16);
	ck_assert_uint_eq(driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), 0);
	ck_assert_int_eq(kill(child, SIGTERM), 0);
	ck_assert_int_eq(finish(), 0);
	serve(0);
	driver_patience(&drv);
	while (!(driver_interrupt(&drv) & VIRTIO_MMIO_INT_CONFIG))
		driver_wait(&drv);
	ck_assert_uint_eq(
	    driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), DISK / SECTOR);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, 0,
			      driver_pattern(&drv, 512, 1), 512),
	    VIRTIO_BLK_S_OK);
	ck_assert_int_eq(kill(child, SIGUSR1), 0);
	ck_assert_int_eq(kill(child, SIGKILL), 0);
	finish();
	start(none, 0);
	ck_assert_str_eq(output(), "ready\n");
	ck_assert_uint_eq(driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), 0);
	ck_assert_int_eq(kill(child, SIGUSR1), 0);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(a_file_may_be_called_none)
{
	const char *args[] = {"7", BASE_ARG, IRQ, "./none", NULL};
	char dir[] = "/tmp/vdisk-none-XXXXXX";
	int fd;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(chdir(dir), 0);
	fd = open("none", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(fd, DISK), 0);
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	unlink("none");
	rmdir(dir);
	driver_start(&drv, MODERN, 16);
	ck_assert_uint_eq(
	    driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), DISK / SECTOR);
}
END_TEST

START_TEST(it_may_be_told_of_5_tib)
{
	const uint64_t sectors = UINT64_C(5) << 31;

	serve(0);
	guest();
	ck_assert_int_eq(ftruncate(file, sectors * SECTOR), 0);
	kill(child, SIGUSR1);
	await_errors("10737418240 sectors, previously 65536");
	ck_assert_uint_eq(driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), sectors);
	ck_assert_uint_eq(
	    driver_get(&drv, VIRTIO_MMIO_CONFIG + 4, 4), sectors >> 32);
	exercise(sectors - 8);
}
END_TEST

START_TEST(on_sigusr2_statistics_are_logged)
{
	char rung[64];

	serve(0);
	guest();
	exercise(1);
	driver_io(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	driver_write(&drv, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	driver_write(&drv, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	kill(child, SIGUSR2);
	await_errors("\n");
	assert_one_line(errors());
	assert_mentions(errors(), "requests 3, failed 0, flushes 1, ");
	assert_mentions(errors(), "bytes read 4096, written 4096, ");
	snprintf(rung, sizeof(rung), " doorbells %u, interrupts %u, ",
	    drv.kicks + 2, fake_xen_irq_raised());
	assert_mentions(errors(), rung);
	assert_mentions(errors(), "guest memory mapped 2097152\n");
	kill(child, SIGUSR2);
	exercise(2);
}
END_TEST

START_TEST(the_disk_keeps_what_the_guest_writes)
{
	enum { N = 300, LEN = 65536 };
	uint64_t gpa;
	unsigned i;

	serve(0);
	guest();
	gpa = driver_pattern(&drv, LEN * 64, 1);
	for (i = 0; i < N; i++) {
		while (driver_request(&drv, VIRTIO_BLK_T_OUT,
			   i * (LEN / SECTOR), gpa + i % 64 * LEN, LEN) < 0) {
			driver_kick(&drv);
			driver_drain(&drv);
		}
		if (i % 3 == 0)
			driver_kick(&drv);
	}
	driver_kick(&drv);
	driver_drain(&drv);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	for (i = 0; i < N; i++)
		ck_assert(driver_in_file(
		    file, i * (LEN / SECTOR), gpa + i % 64 * LEN, LEN));
	ck_assert_uint_eq(drv.spurious, 0);
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(a_guest_may_have_128_vcpus)
{
	fake_xen_start(DOMID, 128, RAM, 0);
	serve(0);
	guest();
	drv.vcpu = 127;
	exercise(1);
	ck_assert_uint_eq(fake_xen_server_bound(0), 128);
	assert_one_line(errors());
	assert_mentions(errors(), "so many vCPUs");
}
END_TEST

START_TEST(pages_given_back_are_unmapped)
{
	uint64_t gpa;

	serve(0);
	guest();
	gpa = driver_pattern(&drv, 16 * MIB, 1);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 16 * MIB), 0);
	ck_assert_uint_ge(fake_xen_mapped(child), 4096);
	gpa = (gpa + 4095) / 4096 * 4096;
	fake_xen_take_page(gpa);
	driver_invalidate(&drv, 0);
	driver_end(&drv, 0);
	/* The rings are in use, so what is near them is mapped again. */
	ck_assert_uint_le(fake_xen_mapped(child), 1024);
	fake_xen_give_page(gpa);
	memset(fake_xen_ram(gpa), 0x5a, 4096);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 4096), 0);
	ck_assert(driver_in_file(file, 0, gpa, 4096));
}
END_TEST

START_TEST(ballooning_page_by_page_is_not_delayed)
{
	enum { PAGES = 400 };
	unsigned i, maps;
	uint64_t gpa;
	long from;
	int head;

	serve(0);
	guest();
	gpa = driver_pattern(&drv, 4096, 1);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, 0, gpa, 4096), 0);
	maps = fake_xen_calls(XC_MAP2);
	from = milliseconds();
	head = driver_request(&drv, VIRTIO_BLK_T_OUT, 8, gpa, 4096);
	driver_kick(&drv);
	for (i = 0; i < PAGES; i++) {
		driver_invalidate(&drv, 0);
		driver_end(&drv, 0);
	}
	/* The rings and the buffer may be mapped once in five milliseconds. */
	maps = fake_xen_calls(XC_MAP2) - maps;
	ck_assert_int_le(maps, 2 * ((milliseconds() - from) / 5 + 2));
	driver_until(&drv, head);
	ck_assert_uint_eq(driver_status(&drv, head), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 8, gpa, 4096));
}
END_TEST

START_TEST(it_serves_in_its_sandbox_and_goes_on_there_when_killed)
{
	const char *args[] = {"-u", "nobody", "7", BASE_ARG, IRQ, disk, NULL};
	unsigned i;

	for (i = 0; i < 3; i++) {
		start(geteuid() == 0 ? args : args + 2, 0);
		ck_assert_str_eq(output(), "ready\n");
#if !ASAN
		ck_assert(has_status("Seccomp:\t2\n"));
#endif
		ck_assert(has_status("CapEff:\t0000000000000000\n"));
		if (geteuid() == 0)
			ck_assert(
			    has_status("Uid:\t65534\t65534\t65534\t65534\n"));
		if (i == 0)
			guest();
		exercise(i);
		ck_assert_int_eq(kill(child, SIGKILL), 0);
		ck_assert_int_eq(finish(), -1);
	}
}
END_TEST

START_TEST(without_a_sandbox_it_says_so)
{
	const char *args[] = {"--no-sandbox", "7", BASE_ARG, IRQ, disk, NULL};

	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	ck_assert(has_status("Seccomp:\t0\n"));
	assert_one_line(errors());
	assert_mentions(errors(), "sandbox");
	guest();
	exercise(0);
}
END_TEST

START_TEST(no_more_guest_memory_is_mapped_than_the_limit_and_what_is_in_use)
{
	uint64_t gpa;
	unsigned most = 0;

	serve_with(_i == 0 ? "--map-limit=8" : "--map-limit=0");
	guest();
	gpa = driver_pattern(&drv, 48 * MIB, 1);
	for (unsigned i = 0; i < 48; i++) {
		ck_assert_uint_eq(
		    driver_io(&drv, VIRTIO_BLK_T_OUT, i % 32 * (MIB / SECTOR),
			gpa + i * MIB, MIB),
		    VIRTIO_BLK_S_OK);
		if (fake_xen_mapped(child) > most)
			most = fake_xen_mapped(child);
		ck_assert(driver_in_file(
		    file, i % 32 * (MIB / SECTOR), gpa + i * MIB, MIB));
	}
	/* Beyond the limit: rings, request and data, of two chunks at most. */
	ck_assert_uint_le(most, ((_i == 0 ? 8 : 0) + 3 * 2 * 2) * MIB / 4096);
}
END_TEST

START_TEST(two_disks_of_a_guest_are_two_processes)
{
	const char *args[] = {"--no-lock", "7", "0x2000200", "7", disk, NULL};
	pid_t first, second;

	args[3] = atoi(IRQ) > 15 ? "34" : "7";
	serve(0);
	first = child;
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	ck_assert(fake_xen_server_enabled(1));
	guest();
	exercise(1);
	drv.base += 0x200;
	driver_probe(&drv);
	second = child;
	child = first;
	kill(child, SIGTERM);
	ck_assert_int_eq(finish(), 0);
	child = second;
	/* It does not mind. */
	driver_probe(&drv);
}
END_TEST

START_TEST(a_signal_ends_it_when_what_is_in_flight_is_finished)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
	enum { N = 60, LEN = 256 << 10 };
	int head[N];
	uint64_t gpa[N], zeros;
	unsigned i, done = 0;

	serve(0);
	guest();
	zeros = driver_alloc(&drv, LEN, 1);
	for (i = 0; i < N; i++) {
		gpa[i] = driver_pattern(&drv, LEN, i);
		head[i] = driver_request(
		    &drv, VIRTIO_BLK_T_OUT, i * (LEN / SECTOR), gpa[i], LEN);
		ck_assert_int_ge(head[i], 0);
	}
	driver_kick(&drv);
	driver_patience(&drv);
	while (__atomic_load_n(&driver_used(&drv)->idx, __ATOMIC_ACQUIRE) <=
	       4 * _i)
		driver_wait(&drv);
	kill(child, signals[_i % 3]);
	ck_assert_int_eq(finish(), 0);
	/* All or nothing of each, and what was done the guest was told. */
	while (driver_take(&drv))
		done++;
	for (i = 0; i < N; i++) {
		if (drv.done[head[i]]) {
			ck_assert_uint_eq(driver_status(&drv, head[i]), 0);
			ck_assert(driver_in_file(
			    file, i * (LEN / SECTOR), gpa[i], LEN));
		} else
			ck_assert(driver_in_file(
			    file, i * (LEN / SECTOR), zeros, LEN));
	}
	ck_assert_uint_gt(done, 0);
	ck_assert_uint_gt(fake_xen_irq_raised(), 0);
	/* A vCPU may wait in the server, so it must stay. */
	ck_assert(fake_xen_server_exists(0));
	ck_assert(fake_xen_server_enabled(0));
	ck_assert_uint_eq(fake_xen_calls(XC_DESTROY_IOREQ_SERVER), 0);
	ck_assert_uint_eq(fake_xen_server_bound(0), 0);
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(a_signal_ends_it_though_the_guest_goes_on)
{
	struct pollfd fd = {.events = POLLIN};

	serve(0);
	guest();
	driver_request(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	driver_kick(&drv);
	fd.fd = syscall(SYS_pidfd_open, child, 0);
	kill(child, SIGTERM);
	driver_patience(&drv);
	/* There is always a flush waiting, and none is done at once. */
	while (poll(&fd, 1, 0) == 0) {
		if (driver_request(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0) < 0 &&
		    !driver_take(&drv))
			driver_wait(&drv);
	}
	ck_assert_int_eq(finish(), 0);
}
END_TEST

START_TEST(a_signal_ends_it_though_accesses_have_no_end)
{
	struct pollfd fd = {.events = POLLIN};
	uint64_t data;

	serve_with("--poll=10000");
	fd.fd = syscall(SYS_pidfd_open, child, 0);
	for (unsigned i = 0; i < 100; i++)
		driver_read(&drv, VIRTIO_MMIO_STATUS);
	kill(child, SIGTERM);
	driver_patience(&drv);
	driver_begin(&drv, 0, false, VIRTIO_MMIO_STATUS, 4, 0);
	while (poll(&fd, 1, 0) == 0)
		if (fake_xen_answered(0, &data))
			driver_begin(&drv, 0, false, VIRTIO_MMIO_STATUS, 4, 0);
		else
			driver_wait(&drv);
	ck_assert_int_eq(finish(), 0);
}
END_TEST

START_TEST(a_signal_before_the_guest_ran_ends_it)
{
	serve(0);
	kill(child, SIGTERM);
	ck_assert_int_eq(finish(), 0);
	ck_assert(fake_xen_server_exists(0));
}
END_TEST

START_TEST(a_signal_during_the_start_ends_it_and_it_is_never_ready)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};

	/* It waits for this lock, and has opened its signals before. */
	fcntl(file, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK});
	start(args, 0);
	driver_patience(&drv);
	while (!has_status("SigBlk:\t0000000000004a03\n"))
		driver_wait(&drv);
	kill(child, SIGTERM);
	fcntl(file, F_OFD_SETLK, &(struct flock){.l_type = F_UNLCK});
	ck_assert_int_eq(finish(), 0);
	ck_assert_str_eq(output(), "");
	ck_assert_str_eq(errors(), "");
}
END_TEST

START_TEST(a_signal_that_was_ignored_when_it_was_started_stays_so)
{
	static const int signals[] = {SIGHUP, SIGINT};
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};

	start(args, _i == 0 ? NO_HUP : NO_INT);
	ck_assert_str_eq(output(), "ready\n");
	guest();
	kill(child, signals[_i]);
	exercise(1);
	kill(child, SIGUSR2);
	await_errors("requests 2");
	ck_assert_int_eq(waitpid(child, NULL, WNOHANG), 0);
	kill(child, signals[1 - _i]);
	ck_assert_int_eq(finish(), 0);
}
END_TEST

START_TEST(a_killed_one_leaves_its_server_and_no_channels)
{
	serve(0);
	guest();
	exercise(1);
	kill(child, SIGKILL);
	ck_assert_int_eq(finish(), -1);
	ck_assert(fake_xen_server_enabled(0));
	/* The ring has them a little longer. */
	for (unsigned i = 0; fake_xen_server_bound(0) > 0; i++) {
		ck_assert_uint_lt(i, 1000);
		usleep(1000);
	}
}
END_TEST

START_TEST(when_the_guest_is_destroyed_it_exits_and_maps_nothing_more)
{
	unsigned maps;
	long from;

	serve(0);
	guest();
	exercise(1);
	ck_assert_uint_gt(fake_xen_mapped(child), 0);
	maps = fake_xen_calls(XC_MAP2);
	from = milliseconds();
	fake_xen_set_life(_i == 0 ? FAKE_XEN_DYING : FAKE_XEN_DEAD);
	ck_assert_int_eq(finish(), 0);
	/* 2 seconds are allowed, and some for a machine that is busy. */
	ck_assert_int_lt(milliseconds() - from, 20000);
	ck_assert_uint_eq(fake_xen_calls(XC_MAP2), maps);
	ck_assert_uint_eq(fake_xen_calls(XC_DESTROY_IOREQ_SERVER), 0);
}
END_TEST

START_TEST(missing_streams_do_no_harm_to_the_disk)
{
	static const int how[] = {NO_STDOUT, NO_STREAMS, NO_READER};
	uint64_t zeros;

	serve(how[_i]);
	guest();
	zeros = driver_alloc(&drv, 4096, 1);
	ck_assert(driver_in_file(file, 0, zeros, 4096));
	exercise(1);
	kill(child, SIGTERM);
	ck_assert_int_eq(finish(), 0);
}
END_TEST

START_TEST(a_host_may_have_no_devices_and_nothing_to_write_to)
{
	const char *args[] = {"-d", "7", BASE_ARG, IRQ, disk, NULL};
	static const int how[] = {
	    NO_DEVICES, NO_DEVICES | NO_STREAMS, NO_DEVICES | NO_TMP, NO_TMP};

	if (geteuid() != 0)
		return; /* who could take nothing away */
	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	ck_assert_int_eq(run(args, how[_i]), 0);
	child = the_child_of(getpid());
	ck_assert_str_eq(errors(), "");
	guest();
	exercise(1);
	kill(child, SIGTERM);
	ck_assert_int_eq(finish(), 0);
}
END_TEST

/*
 * Fill 'fd' until it takes no more, and leave it as it was.
 */
static void
fill_up(int fd)
{
	static const char page[4096];
	int flags = fcntl(fd, F_GETFL);

	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	/* A terminal moves on for a moment. */
	for (unsigned i = 0; i < 100; i++, usleep(2000))
		for (size_t n = sizeof(page); n > 0; n /= 2)
			while (write(fd, page, n) > 0)
				i = 0;
	fcntl(fd, F_SETFL, flags);
}

static void
drain(int fd)
{
	char page[4096];
	struct pollfd readable = {.fd = fd, .events = POLLIN};

	while (poll(&readable, 1, 100) == 1 && read(fd, page, sizeof(page)) > 0)
		;
}

/*
 * Two ends of what stderr may be: fd[1] is written to.
 */
static void
open_reader(int kind, int fd[2])
{
	if (kind == 0)
		ck_assert_int_eq(pipe2(fd, O_CLOEXEC), 0);
	else if (kind == 1)
		ck_assert_int_eq(
		    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	else {
		fd[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
		ck_assert_int_eq(grantpt(fd[0]), 0);
		ck_assert_int_eq(unlockpt(fd[0]), 0);
		fd[1] = open(ptsname(fd[0]), O_RDWR | O_NOCTTY | O_CLOEXEC);
		ck_assert_int_ne(fd[1], -1);
	}
}

/* It has taken the signal when this returns. */
static void
ask_for_report(void)
{
	kill(child, SIGUSR2);
	while (!has_status("SigPnd:\t0000000000000000\n") ||
	       !has_status("ShdPnd:\t0000000000000000\n"))
		usleep(1000);
}

START_TEST(messages_that_nobody_reads_are_dropped_and_counted)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};
	char text[1024] = "";
	int fd[2];

	open_reader(_i, fd);
	if (child_start()) {
		dup2(fd[1], STDERR_FILENO);
		child_exec(args, NULL);
	}
	ck_assert_str_eq(output(), "ready\n");
	guest();
	fill_up(fd[1]);
	for (unsigned i = 0; i < 3; i++) {
		ask_for_report();
		exercise(i); /* and after that it was dropped */
	}
	/* Others write as they did. */
	ck_assert_int_eq(fcntl(fd[1], F_GETFL) & O_NONBLOCK, 0);
	drain(fd[0]);
	ask_for_report();
	exercise(4);
	ck_assert_int_gt(read(fd[0], text, sizeof(text) - 1), 0);
	assert_mentions(text, "messages dropped, since nobody read them: 3");
	assert_mentions(text, "requests 6, ");
	fill_up(fd[1]);
	kill(child, SIGTERM);
	ck_assert_int_eq(finish(), 0);
}
END_TEST

START_TEST(a_stdout_that_is_full_does_not_keep_it_from_the_guest)
{
	const char *args[] = {"7", BASE_ARG, IRQ, disk, NULL};
	int fd[2];

	open_reader(_i, fd);
	fill_up(fd[1]);
	if (child_start()) {
		dup2(fd[1], STDOUT_FILENO);
		child_exec(args, NULL);
	}
	driver_patience(&drv);
	while (fake_xen_server_bound(0) < 2)
		driver_wait(&drv);
	guest();
	exercise(1);
}
END_TEST

START_TEST(a_reset_is_answered_as_soon_as_nothing_is_in_flight)
{
	unsigned i, n, silences;

	/* Flushes are never done at once, and here not slow either. */
	nameless_file(NULL, DISK, disk);
	serve(0);
	for (i = 0; i < 60; i++) {
		guest();
		for (n = 0; n <= i; n++)
			driver_request(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
		driver_kick(&drv);
		/*
		 * It checks for the domain after an idle second, which there is
		 * only if it sleeps over the reset.
		 */
		silences = fake_xen_calls(XC_GET_IOREQ_SERVER_INFO);
		driver_reset(&drv);
		ck_assert_uint_eq(
		    fake_xen_calls(XC_GET_IOREQ_SERVER_INFO), silences);
		fake_xen_irq_take();
		drv.heap = FAKE_XEN_LOW;
	}
}
END_TEST

/* The guest may have become another one, by kexec, that has not come to us. */
START_TEST(an_idle_guests_rings_are_left_alone)
{
	uint8_t *rings;
	unsigned seconds;
	uint64_t len;

	serve(0);
	guest();
	exercise(1);
	seconds = fake_xen_calls(XC_GET_IOREQ_SERVER_INFO);
	driver_patience(&drv);
	while (fake_xen_calls(XC_GET_IOREQ_SERVER_INFO) == seconds)
		driver_wait(&drv);
	rings = fake_xen_ram(drv.desc);
	len = drv.heap - drv.desc;
	memset(rings, 0xee, len);
	driver_patience(&drv);
	while (fake_xen_calls(XC_GET_IOREQ_SERVER_INFO) < seconds + 3)
		driver_wait(&drv);
	ck_assert(rings[0] == 0xee && memcmp(rings, rings + 1, len - 1) == 0);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_STATUS), 15);
	driver_reset(&drv);
	memset(rings, 0, len);
	guest();
	exercise(1);
}
END_TEST

/* Its pages take room, and hold up Xen when the guest is destroyed. */
START_TEST(nothing_of_an_idle_guest_stays_mapped)
{
	unsigned seconds;

	serve(0);
	guest();
	exercise(1);
	kill(child, SIGUSR2);
	await_errors("guest memory mapped 2097152\n");
	seconds = fake_xen_calls(XC_GET_IOREQ_SERVER_INFO);
	driver_patience(&drv);
	while (fake_xen_calls(XC_GET_IOREQ_SERVER_INFO) < seconds + 2)
		driver_wait(&drv);
	kill(child, SIGUSR2);
	await_errors("guest memory mapped 0\n");
	exercise(2);
}
END_TEST

START_TEST(a_block_device_is_a_disk)
{
	const char *args[] = {"7", BASE_ARG, IRQ, loop_device(disk, 512), NULL};
	uint64_t gpa;

	if (args[3] == NULL)
		return;
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	guest();
	ck_assert_uint_eq(
	    driver_get(&drv, VIRTIO_MMIO_CONFIG, 8), DISK / SECTOR);
	gpa = driver_pattern(&drv, 512, 1);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 3, gpa, 512), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	ck_assert(driver_in_file(file, 3, gpa, 512));
}
END_TEST

/* A field of the configuration. */
#define CONFIG(field)                                                          \
	driver_get(&drv,                                                       \
	    VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, field),    \
	    sizeof(((struct virtio_blk_config *)0)->field))

/* Whether the kernel can punch holes in a device. */
static bool
can_discard(const char *device)
{
	char path[128], line[32] = "0";
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/%s/queue/discard_max_bytes",
	    strrchr(device, '/') + 1);
	f = fopen(path, "r");
	if (f == NULL)
		return false; /* no sysfs, as where packages are built */
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), f));
	fclose(f);
	return strcmp(line, "0\n") != 0;
}

START_TEST(a_device_with_blocks_of_4096_bytes_says_so_and_gives_them_back)
{
	const char *args[] = {
	    "7", BASE_ARG, IRQ, loop_device(disk, 4096), NULL};
	struct virtio_blk_discard_write_zeroes *range;
	struct stat before, after;
	uint64_t gpa, zeros;

	if (args[3] == NULL)
		return;
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	drv.indirect = true;
	driver_start(&drv, MODERN | FEATURE(VIRTIO_BLK_F_DISCARD), 64);
	ck_assert_uint_eq(CONFIG(capacity), DISK / SECTOR);
	ck_assert_uint_eq(CONFIG(blk_size), 4096);
	ck_assert_uint_eq(CONFIG(physical_block_exp), 0);
	ck_assert_uint_eq(CONFIG(min_io_size), 1);
	gpa = driver_pattern(&drv, MIB, 1);
	zeros = driver_alloc(&drv, MIB, 1);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, 8, gpa, MIB), 0);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	ck_assert(driver_in_file(file, 8, gpa, MIB));
	ck_assert_int_eq((drv.features & FEATURE(VIRTIO_BLK_F_DISCARD)) != 0,
	    can_discard(args[3]));
	if (!can_discard(args[3]))
		return; /* the file system of /tmp cannot do it */
	ck_assert_uint_ge(CONFIG(discard_sector_alignment), 4096 / SECTOR);
	ck_assert_int_eq(fstat(file, &before), 0);
	gpa = driver_alloc(&drv, sizeof(*range), 16);
	range = fake_xen_ram(gpa);
	*range = (struct virtio_blk_discard_write_zeroes){
	    .sector = 8, .num_sectors = MIB / SECTOR};
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_DISCARD, 0, gpa, sizeof(*range)), 0);
	ck_assert(driver_in_file(file, 8, zeros, MIB));
	ck_assert_int_eq(fstat(file, &after), 0);
	ck_assert_int_le(
	    after.st_blocks, before.st_blocks - (blkcnt_t)(MIB / 512));
}
END_TEST

START_TEST(with_direct_io_a_device_takes_whole_blocks_and_parts)
{
	const char *args[] = {
	    "--direct", "7", BASE_ARG, IRQ, loop_device(disk, 4096), NULL};
	uint64_t gpa, back;

	if (args[4] == NULL)
		return;
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	guest();
	gpa = driver_pattern(&drv, MIB, 1);
	back = driver_alloc(&drv, MIB, 1);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_OUT, 8, gpa, MIB), 0);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 3, gpa + 512, 512), 0);
	ck_assert_uint_eq(
	    driver_io(&drv, VIRTIO_BLK_T_OUT, 17, gpa + 9 * 512, 512), 0);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_IN, 8, back, MIB), 0);
	ck_assert_mem_eq(fake_xen_ram(back), fake_xen_ram(gpa), MIB);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_IN, 3, back, 512), 0);
	ck_assert_mem_eq(fake_xen_ram(back), fake_xen_ram(gpa + 512), 512);
	ck_assert_uint_eq(driver_io(&drv, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	ck_assert(driver_in_file(file, 8, gpa, MIB));
	ck_assert(driver_in_file(file, 3, gpa + 512, 512));
}
END_TEST

START_TEST(a_block_device_in_use_is_refused_to_writers)
{
	const char *args[] = {
	    "-r", "7", BASE_ARG, IRQ, loop_device(disk, 512), NULL};

	if (args[4] == NULL)
		return;
	/* As mount(8) and volume managers do. */
	ck_assert_int_ge(open(args[4], O_RDWR | O_EXCL | O_CLOEXEC), 0);
	ck_assert_int_eq(run(args + 1, 0), 1);
	assert_refused(args[4]);
	assert_mentions(errors(), "in use");
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
}
END_TEST

START_TEST(a_block_device_is_not_for_others_meanwhile)
{
	const char *args[] = {"7", BASE_ARG, IRQ, loop_device(disk, 512), NULL};

	if (args[3] == NULL)
		return;
	start(args, 0);
	ck_assert_str_eq(output(), "ready\n");
	ck_assert_int_eq(open(args[3], O_RDWR | O_EXCL | O_CLOEXEC), -1);
	ck_assert_int_eq(errno, EBUSY);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vdisk");
	TCase *tc = cases_add(s, "vdisk", setup, child_kill);

	tcase_add_loop_test(
	    tc, a_wrong_argument_gets_one_line_that_names_it, 0, COUNT(wrong));
	tcase_add_loop_test(tc, a_path_that_is_no_disk_is_refused, 0, 3);
	tcase_add_test(tc, a_name_cannot_do_anything_to_a_terminal);
	tcase_add_test(
	    tc, of_a_long_name_the_line_tells_so_much_that_the_error_fits);
	tcase_add_test(tc, a_pipe_as_path_is_refused_and_not_waited_for);
	tcase_add_test(tc, an_empty_disk_is_refused);
	tcase_add_test(tc, a_disk_that_may_not_be_read_is_refused);
	tcase_add_test(tc, a_disk_that_may_not_be_written_is_refused);
	tcase_add_test(tc, a_domain_that_does_not_exist_is_refused);
	tcase_add_test(tc, a_host_without_xen_is_refused);
	tcase_add_loop_test(
	    tc, what_xen_refuses_is_one_line_of_error, 0, COUNT(refusals));
	tcase_add_test(tc, a_host_without_grants_is_one_line_of_error);
	tcase_add_test(tc, with_grants_it_maps_nothing_but_the_rings);
	tcase_add_loop_test(tc, a_disk_is_continued_in_the_same_way_only, 0, 2);
	tcase_add_loop_test(tc, help_and_version_go_to_stdout, 0, 4);
	tcase_add_loop_test(
	    tc, what_was_asked_for_and_cannot_be_printed_is_an_error, 0, 2);
	tcase_add_test(
	    tc, ready_and_the_end_of_stdout_mean_that_the_guest_may_run);
	tcase_add_test(tc, numbers_may_be_decimal_or_hexadecimal);
	tcase_add_loop_test(
	    tc, options_are_taken_in_their_long_and_short_forms, 0, 2);
	tcase_add_test(tc, the_guest_can_do_without_the_cache);
	tcase_add_loop_test(
	    tc, in_the_background_it_serves_once_its_command_returns, 0, 2);
	tcase_add_loop_test(tc, it_keeps_nothing_of_its_parent, 0, 2);
	tcase_add_test(tc, what_fails_in_the_background_fails_its_command);
	tcase_add_loop_test(
	    tc, a_pid_file_that_cannot_be_written_is_named, 0, 2);
	tcase_add_test(tc, a_pid_file_is_one_line);
	tcase_add_loop_test(
	    tc, a_second_one_leaves_the_pid_file_of_the_first, 0, 2);
	tcase_add_test(tc, on_sigusr1_a_new_size_is_signalled_to_the_guest);
	tcase_add_test(tc, an_edge_comes_again_for_what_was_not_acknowledged);
	tcase_add_test(tc, there_may_be_no_disk_and_then_one);
	tcase_add_test(tc, a_file_may_be_called_none);
	tcase_add_test(tc, it_may_be_told_of_5_tib);
	tcase_add_test(tc, on_sigusr2_statistics_are_logged);
	tcase_add_test(tc, the_disk_keeps_what_the_guest_writes);
	tcase_add_test(tc, a_guest_may_have_128_vcpus);
	tcase_add_test(tc, pages_given_back_are_unmapped);
	tcase_add_test(tc, ballooning_page_by_page_is_not_delayed);
	tcase_add_test(
	    tc, it_serves_in_its_sandbox_and_goes_on_there_when_killed);
	tcase_add_test(tc, without_a_sandbox_it_says_so);
	tcase_add_loop_test(tc,
	    no_more_guest_memory_is_mapped_than_the_limit_and_what_is_in_use, 0,
	    2);
	tcase_add_test(tc, two_disks_of_a_guest_are_two_processes);
	tcase_add_loop_test(
	    tc, a_signal_ends_it_when_what_is_in_flight_is_finished, 0, 12);
	tcase_add_test(tc, a_signal_ends_it_though_the_guest_goes_on);
	tcase_add_test(tc, a_signal_ends_it_though_accesses_have_no_end);
	tcase_add_test(tc, a_signal_before_the_guest_ran_ends_it);
	tcase_add_test(
	    tc, a_signal_during_the_start_ends_it_and_it_is_never_ready);
	tcase_add_loop_test(
	    tc, a_signal_that_was_ignored_when_it_was_started_stays_so, 0, 2);
	tcase_add_test(tc, a_killed_one_leaves_its_server_and_no_channels);
	tcase_add_loop_test(tc,
	    when_the_guest_is_destroyed_it_exits_and_maps_nothing_more, 0, 2);
	tcase_add_loop_test(tc, missing_streams_do_no_harm_to_the_disk, 0, 3);
	tcase_add_loop_test(
	    tc, a_host_may_have_no_devices_and_nothing_to_write_to, 0, 4);
	tcase_add_loop_test(
	    tc, messages_that_nobody_reads_are_dropped_and_counted, 0, 3);
	tcase_add_loop_test(
	    tc, a_stdout_that_is_full_does_not_keep_it_from_the_guest, 0, 3);
	tcase_add_test(tc, a_reset_is_answered_as_soon_as_nothing_is_in_flight);
	tcase_add_test(tc, an_idle_guests_rings_are_left_alone);
	tcase_add_test(tc, nothing_of_an_idle_guest_stays_mapped);
	tcase_add_test(tc, a_block_device_is_a_disk);
	tcase_add_test(
	    tc, a_device_with_blocks_of_4096_bytes_says_so_and_gives_them_back);
	tcase_add_test(
	    tc, with_direct_io_a_device_takes_whole_blocks_and_parts);
	tcase_add_test(tc, a_block_device_in_use_is_refused_to_writers);
	tcase_add_test(tc, a_block_device_is_not_for_others_meanwhile);
	return cases_run(s);
}
