/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sandbox.c on the real kernel: children enter the sandbox and try what they
 * are told to; the parent looks at them from outside, and at how they end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <liburing.h>
#include <linux/fs.h>
#include <xenforeignmemory.h>

#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>
#include <xen/sys/privcmd.h>

#include "asan.h"
#include "cases.h"
#include "fake_log.h"
#include "fds.h"
#include "sandbox.h"

static struct fake_log logger;
static struct io_uring uring;
static int events[2]; /* a socket in the place of event channels */
static int signals;   /* the other end of it */
static int disk;      /* a file in memory */
static int other[2];  /* a pipe that is not in the sandbox */
static bool grants;   /* ... of one that has no other memory */

static void
setup(void)
{
	fake_log_init(&logger);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, events), 0);
	signals = events[1];
	ck_assert_int_eq(write(events[0], "x", 1), 1);
	disk = memfd_create("disk", 0);
	ck_assert_int_ne(disk, -1);
	ck_assert_int_eq(pipe(other), 0);
	ck_assert_int_eq(io_uring_queue_init(4, &uring, 0), 0);
}

static void
enter(const char *user)
{
	const int fd[FD_COUNT] = {[FD_EVENTS] = events[0],
	    [FD_URING] = uring.ring_fd,
	    [FD_SIGNALS] = signals,
	    [FD_DISK] = disk,
	    [FD_SYNC] = disk,
	    [FD_GRANTS] = grants ? other[0] : -1};

	if (!sandbox_enter(
		&logger.logger, user != NULL ? getpwnam(user) : NULL, fd))
		_exit(99);
}

/*
 * What the loop does.  Each must have its usual effect.
 */
static bool
loop_can(int what)
{
	struct pollfd fd[3] = {{.fd = events[0], .events = POLLIN},
	    {.fd = uring.ring_fd, .events = POLLIN}, {.fd = -1}};
	struct timespec moment = {0, 1};
	char c = 0;
	struct iovec one = {&c, 1};
	void *p;

	switch (what) {
	case 0:
		return poll(fd, 3, 0) == 1;
	case 1:
		return read(events[0], &c, 1) == 1;
	case 2: /* refused by the socket, not by the filter */
		return ioctl(events[0], IOCTL_EVTCHN_NOTIFY, 0) < 0;
	case 3:
		return ioctl(other[0], IOCTL_PRIVCMD_DM_OP, 0) < 0;
	case 4:
		return ioctl(other[0], IOCTL_PRIVCMD_MMAPBATCH_V2, 0) < 0;
	case 5:
		p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		return p != MAP_FAILED && munmap(p, 4096) == 0;
	case 6:
		io_uring_prep_nop(io_uring_get_sqe(&uring));
		return io_uring_submit(&uring) == 1;
	case 7:
		return write(STDERR_FILENO, "", 0) == 0;
	case 8:
		return write(STDOUT_FILENO, "", 0) == 0 &&
		       close(STDOUT_FILENO) == 0;
	case 9:
		return sbrk(4096) != (void *)-1 && malloc(1 << 24) != NULL;
	case 10:
		return write(events[0], &c, 1) == 1;
	case 11: /* which of the two poll() is depends on the machine */
		return ppoll(fd, 3, &moment, NULL) == 1;
	case 12: /* nor is the clock in the vDSO on all */
		return syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &moment) ==
		       0;
	case 13: /* and so it is with usleep() */
		return usleep(1) == 0 && sched_yield() == 0 &&
		       syscall(SYS_nanosleep, &moment, NULL) == 0;
	case 14:
		return pwrite(disk, "", 1, 6) == 1 &&
		       pread(disk, &c, 1, 6) == 1 &&
		       pwritev(disk, &one, 1, 6) == 1 &&
		       preadv(disk, &one, 1, 6) == 1 &&
		       lseek(disk, 0, SEEK_END) == 7 && fdatasync(disk) == 0;
	case 15:
		return read(signals, &c, 1) == 1;
	case 16: /* refused by what these are */
		return fallocate(disk, FALLOC_FL_KEEP_SIZE, 0, 1) == 0 &&
		       ioctl(disk, BLKDISCARD, 0) < 0 &&
		       io_uring_unregister_files(&uring) < 0;
	}
	return false;
}

#define LOOP_CAN 17
#define LOOP_MAP 4 /* foreign memory */

/* The same for grants. */
static const unsigned long granted[] = {IOCTL_GNTDEV_MAP_GRANT_REF,
    IOCTL_GNTDEV_UNMAP_GRANT_REF, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR,
    IOCTL_GNTDEV_GRANT_COPY};

/*
 * What it does not do.  None of it returns.
 */
static void
try_to(int what)
{
	static char *const arguments[] = {"/bin/true", NULL};
	struct io_uring_params params = {0};
	char c = 0;
	struct iovec one = {&c, 1};

	switch (what) {
	case 0:
		open("/etc/passwd", O_RDONLY);
		break;
	case 1:
		socket(AF_UNIX, SOCK_STREAM, 0);
		break;
	case 2:
		execv(arguments[0], arguments);
		break;
	case 3:
		fork();
		break;
	case 4:
		(void)!read(other[0], &c, 1);
		break;
	case 5:
		(void)!write(other[1], &c, 1);
		break;
	case 6:
		ioctl(events[0], IOCTL_EVTCHN_BIND_INTERDOMAIN, 0);
		break;
	case 7:
		ioctl(other[0], IOCTL_PRIVCMD_HYPERCALL, 0);
		break;
	case 8:
		mmap(NULL, 4096, PROT_READ | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		break;
	case 9:
		mprotect(&uring, 4096, PROT_READ);
		break;
	case 10:
		syscall(__NR_io_uring_setup, 4, &params);
		break;
	case 11:
		io_uring_register(uring.ring_fd, IORING_REGISTER_PROBE, 0, 0);
		break;
	case 12:
		syscall(__NR_io_uring_enter, other[0], 0, 0, 0, NULL, 0);
		break;
	case 13:
		kill(getppid(), 0);
		break;
	case 14:
		prctl(PR_SET_DUMPABLE, 1);
		break;
	case 15:
		(void)!dup(other[0]);
		break;
	case 16:
		ioctl(other[0], IOCTL_EVTCHN_NOTIFY, 0);
		break;
	case 17:
		close(other[0]);
		break;
	case 18:
		(void)!preadv(other[0], &one, 1, 0);
		break;
	case 19:
		(void)!pwritev(other[1], &one, 1, 0);
		break;
	case 20:
		lseek(other[0], 0, SEEK_END);
		break;
	case 21:
		fdatasync(other[0]);
		break;
	case 22:
		(void)!writev(other[1], &one, 1);
		break;
	case 23:
		(void)!pread(other[0], &c, 1, 0);
		break;
	case 24:
		(void)!pwrite(other[1], "", 1, 0);
		break;
	case 25:
		io_uring_register_files_update(&uring, 0, &disk, 1);
		break;
	case 26:
		fallocate(other[1], FALLOC_FL_KEEP_SIZE, 0, 1);
		break;
	case 27:
		ioctl(other[1], BLKDISCARD, 0);
		break;
	case 28:
		(void)!writev(STDERR_FILENO, &one, 1);
		break;
	case 29:
		ioctl(other[0], IOCTL_GNTDEV_SET_UNMAP_NOTIFY, 0);
		break;
	case 30: /* of the two ways to memory, the other one */
		if (grants)
			ioctl(other[0], IOCTL_PRIVCMD_MMAPBATCH_V2, 0);
		else
			ioctl(other[0], IOCTL_GNTDEV_GRANT_COPY, 0);
		break;
	}
}

#define TRIES 31

START_TEST(what_the_loop_does_works)
{
	int status;

	ck_assert_int_eq(write(events[1], "x", 1), 1);
	if (fork() == 0) {
		enter(NULL);
		_exit(loop_can(_i) ? 0 : 98);
	}
	wait(&status);
	ck_assert_msg(WIFEXITED(status), "killed by %d", WTERMSIG(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

START_TEST(with_grants_it_has_those_and_no_foreign_memory)
{
	int status;

	grants = true;
	if (fork() == 0) {
		enter(NULL);
		for (int i = 0; i < COUNT(granted); i++)
			if (ioctl(other[0], granted[i], 0) != -1)
				_exit(98);
		_exit(loop_can(LOOP_MAP) ? 0 : 98);
	}
	wait(&status);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSYS);
	if (fork() == 0) {
		enter(NULL);
		for (int i = 0; i < COUNT(granted); i++)
			if (ioctl(other[0], granted[i], 0) != -1)
				_exit(98);
		_exit(0);
	}
	wait(&status);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

START_TEST(what_it_does_not_do_is_its_end)
{
	int status;

	grants = _i % 2;
	ck_assert_int_eq(write(other[1], "x", 1), 1);
	if (fork() == 0) {
		enter(NULL);
		try_to(_i / 2);
		_exit(0);
	}
	wait(&status);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSYS);
}
END_TEST

/*
 * Whether a line of /proc/PID/FILE is exactly 'line'.
 */
static bool
says(pid_t pid, const char *file, const char *line)
{
	char path[64], got[256];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	while (fgets(got, sizeof(got), f) != NULL) {
		got[strcspn(got, "\n")] = '\0';
		found |= strcmp(got, line) == 0;
	}
	fclose(f);
	return found;
}

static bool
has_limit(pid_t pid, const char *name, unsigned value, const char *unit)
{
	char line[128];

	snprintf(line, sizeof(line), "%-25s %-20u %-20u %-10s", name, value,
	    value, unit);
	return says(pid, "limits", line);
}

/*
 * Become an ordinary user, whose processes leave cores.
 */
static void
become(const char *user)
{
	const struct passwd *p = getpwnam(user);

	if (setgid(p->pw_gid) != 0 || setuid(p->pw_uid) != 0 ||
	    prctl(PR_SET_DUMPABLE, 1) != 0)
		_exit(97);
}

/*
 * A child, of user 'from' if that is not NULL, that has entered the sandbox,
 * where it is to become 'user', and stays there.
 */
static pid_t
child_inside(const char *from, const char *user)
{
	static const gid_t groups[] = {1, 2};
	pid_t pid = fork();
	unsigned i;

	if (pid == 0) {
		struct pollfd fd = {.fd = -1};

		setgroups(2, groups); /* to have some to lose */
		if (from != NULL)
			become(from);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		enter(user);
		for (;;)
			poll(&fd, 1, 1000);
	}
	/* The filter applies to the child. */
	for (i = 0; !says(pid, "status", "Seccomp:\t2"); i++) {
		ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
		ck_assert_uint_lt(i, 1000);
		usleep(20000);
	}
	return pid;
}

START_TEST(no_rights_are_left)
{
	pid_t pid = child_inside(NULL, _i == 0 ? NULL : "nobody");

	ck_assert(says(pid, "status", "CapInh:\t0000000000000000"));
	ck_assert(says(pid, "status", "CapPrm:\t0000000000000000"));
	ck_assert(says(pid, "status", "CapEff:\t0000000000000000"));
	ck_assert(says(pid, "status", "CapBnd:\t0000000000000000"));
	ck_assert(says(pid, "status", "CapAmb:\t0000000000000000"));
	ck_assert(says(pid, "status", "NoNewPrivs:\t1"));
	ck_assert(has_limit(pid, "Max open files", 3, "files"));
	kill(pid, SIGKILL);
}
END_TEST

START_TEST(who_has_no_rights_can_enter_too)
{
	int status;

	if (fork() == 0) {
		become("nobody");
		enter(NULL);
		try_to(0);
		_exit(0);
	}
	wait(&status);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSYS);
}
END_TEST

/* What is in /proc of a process that leaves none is root's. */
START_TEST(it_leaves_no_core_whatever_takes_it)
{
	char path[64];
	struct stat st;
	pid_t pid =
	    child_inside(_i == 0 ? "nobody" : NULL, _i == 1 ? "nobody" : NULL);

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_uid, 0);
	kill(pid, SIGKILL);
}
END_TEST

START_TEST(the_root_directory_is_empty_and_stays_so)
{
	char path[64];
	struct dirent *entry;
	DIR *root;
	pid_t pid = child_inside(NULL, NULL);

	/* Even with all privileges there is nothing in it. */
	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	root = opendir(path);
	ck_assert_ptr_nonnull(root);
	while ((entry = readdir(root)) != NULL)
		ck_assert_int_eq(entry->d_name[0], '.');
	ck_assert_int_eq(openat(dirfd(root), "x", O_CREAT, 0600), -1);
	ck_assert_int_eq(errno, EROFS);
	snprintf(path, sizeof(path), "/proc/%d/cwd/x", pid);
	ck_assert_int_eq(open(path, O_CREAT, 0600), -1);
	ck_assert_int_eq(errno, EROFS);
	closedir(root);
	kill(pid, SIGKILL);
}
END_TEST

START_TEST(it_becomes_the_user_that_it_is_given)
{
	pid_t pid = child_inside(NULL, "nobody");

	ck_assert(says(pid, "status", "Uid:\t65534\t65534\t65534\t65534"));
	ck_assert(says(pid, "status", "Gid:\t65534\t65534\t65534\t65534"));
	ck_assert(says(pid, "status", "Groups:\t "));
	kill(pid, SIGKILL);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("sandbox");
	TCase *tc = cases_add(s, "sandbox", setup, NULL);

#if !ASAN /* which makes system calls of its own */
	tcase_add_loop_test(tc, what_the_loop_does_works, 0, LOOP_CAN);
	tcase_add_test(tc, with_grants_it_has_those_and_no_foreign_memory);
#else
	(void)what_the_loop_does_works;
	(void)with_grants_it_has_those_and_no_foreign_memory;
#endif
	tcase_add_loop_test(tc, what_it_does_not_do_is_its_end, 0, 2 * TRIES);
	if (geteuid() == 0) {
		tcase_add_loop_test(tc, no_rights_are_left, 0, 2);
		tcase_add_test(tc, who_has_no_rights_can_enter_too);
		tcase_add_loop_test(
		    tc, it_leaves_no_core_whatever_takes_it, 0, 3);
		tcase_add_test(tc, the_root_directory_is_empty_and_stays_so);
		tcase_add_test(tc, it_becomes_the_user_that_it_is_given);
	}
	return cases_run(s);
}
