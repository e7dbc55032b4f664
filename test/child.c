/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program as a child process: how it is started, ends, and what it says.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_mmio.h>

#include "child.h"
#include "driver.h"
#include "fake_xen.h"

volatile pid_t child;
int child_out = -1, child_err = -1;

static const char *
environment(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value != NULL ? value : otherwise;
}

int
nameless_file(const char *directory, off_t size, char path[64])
{
	char name[64];
	int fd;

	if (directory == NULL) {
		fd = memfd_create("file", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	} else {
		snprintf(
		    name, sizeof(name), "%s/vdisk-check-XXXXXX", directory);
		fd = mkostemp(name, O_CLOEXEC);
		unlink(name);
	}
	ck_assert_int_ne(fd, -1);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	snprintf(path, 64, "/proc/%d/fd/%d", getpid(), fd);
	return fd;
}

pid_t
child_fork(void)
{
	pid_t pid;

	setenv("FAKE_XEN", fake_xen_path(), 1);
	pid = fork();
	ck_assert_int_ne(pid, -1);
	return pid;
}

bool
child_start(void)
{
	int out[2];

	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	child_err = memfd_create("stderr", MFD_CLOEXEC);
	child = child_fork();
	if (child == 0) {
		dup2(out[1], STDOUT_FILENO);
		dup2(child_err, STDERR_FILENO);
		return true;
	}
	close(out[1]);
	child_out = out[0];
	return false;
}

void
child_exec(const char *const *args, const char *preload)
{
	const char *libs = environment("FAKE_XEN_LIBS", "build/test/lib");
	const char *argv[CHILD_ARGS + 2] = {"vdisk"};
	char path[512];

	for (unsigned i = 0; args[i] != NULL; i++) {
		if (i == CHILD_ARGS)
			_exit(126);
		argv[i + 1] = args[i];
	}
	/* Nothing of a test that fails stays behind. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("LD_LIBRARY_PATH", libs, 1);
	if (preload != NULL) {
		snprintf(path, sizeof(path), "%s/%s", libs, preload);
		setenv("LD_PRELOAD", path, 1);
		/* If it has sanitizers: they like to be the first. */
		setenv("ASAN_OPTIONS",
		    "detect_leaks=0:verify_asan_link_order=0", 1);
	}
	execv(environment("VDISK", "./vdisk"), (char **)argv);
	_exit(127);
}

void
child_kill(void)
{
	if (child > 0 && kill(child, SIGKILL) == 0)
		waitpid(child, NULL, 0);
}

int
finish(void)
{
	int pidfd = syscall(SYS_pidfd_open, child, 0), status;
	struct pollfd fd = {.fd = pidfd, .events = POLLIN};

	ck_assert_int_ne(pidfd, -1);
	ck_assert_msg(
	    poll(&fd, 1, DRIVER_TIMEOUT_MS) == 1, "vdisk does not exit");
	close(pidfd);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	child = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

const char *
output(void)
{
	static char text[8192];
	size_t len = 0;
	ssize_t n;

	while ((n = read(child_out, text + len, sizeof(text) - 1 - len)) > 0)
		len += n;
	text[len] = '\0';
	return text;
}

const char *
errors(void)
{
	static char text[8192];
	const off_t most = sizeof(text) - 1;
	struct stat st;
	ssize_t n;

	ck_assert_int_eq(fstat(child_err, &st), 0);
	n = pread(
	    child_err, text, most, st.st_size > most ? st.st_size - most : 0);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

void
assert_one_line(const char *text)
{
	const char *end = strchr(text, '\n');

	ck_assert_msg(end != NULL && end != text && end[1] == '\0',
	    "not one line: '%s'", text);
}

void
assert_mentions(const char *text, const char *what)
{
	ck_assert_msg(
	    strstr(text, what) != NULL, "'%s' is not in: %s", what, text);
}

const char *
loop_device(const char *path, unsigned block)
{
	static char name[64];
	char command[128];
	FILE *losetup;
	int users;

	snprintf(command, sizeof(command),
	    "losetup -b %u --show -f %s 2>/dev/null", block, path);
	losetup = popen(command, "r");
	if (losetup == NULL || fgets(name, sizeof(name), losetup) == NULL)
		name[0] = '\0';
	if (losetup != NULL)
		pclose(losetup);
	name[strcspn(name, "\n")] = '\0';
	if (name[0] == '\0') {
		fputs("no loop device to be had\n", stderr);
		return NULL;
	}
	users = open(name, O_RDWR | O_CLOEXEC);
	snprintf(command, sizeof(command), "losetup -d %s", name);
	return system(command) == 0 && users != -1 ? name : NULL;
}

static uint64_t
clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

uint64_t
child_busy(unsigned ms)
{
	struct timespec moment = {.tv_nsec = ms * 1000000};
	uint64_t from, busy;
	clockid_t cpu;

	ck_assert_int_eq(clock_getcpuclockid(child, &cpu), 0);
	from = clock_ns(CLOCK_MONOTONIC);
	busy = clock_ns(cpu);
	nanosleep(&moment, NULL);
	busy = clock_ns(cpu) - busy;
	/* We may have slept longer, on a host that is busy. */
	return busy * moment.tv_nsec / (clock_ns(CLOCK_MONOTONIC) - from);
}
