/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vdisk@.service as a real systemd runs it, with vdisk on the fake host: the
 * test is hypervisor, guest and administrator.  systemd.sh starts it, in a
 * container whose first process is systemd.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <check.h>
#include <linux/virtio_mmio.h>

#include "cases.h"
#include "driver.h"
#include "fake_xen.h"

#define DOMID	7
#define BASE	0x2000000ULL
#define MIB	(1ULL << 20)
#define MAGIC	0x74726976
#define DISK	"/run/vdisk-test.img"
#define PIDFILE "/run/vdisk-web-0.pid"
#if defined(__aarch64__)
#define IRQ	"33"
#define BAD_IRQ "31"
#else
#define IRQ	"5"
#define BAD_IRQ "16"
#endif

static struct driver drv;

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void put(const char *path, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * Exit status of a command.
 */
static int
run(const char *format, ...)
{
	char command[512];
	va_list ap;
	int status;

	va_start(ap, format);
	vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	status = system(command);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void
put(const char *path, const char *format, ...)
{
	FILE *f = fopen(path, "we");
	va_list ap;

	ck_assert_ptr_nonnull(f);
	va_start(ap, format);
	vfprintf(f, format, ap);
	va_end(ap);
	ck_assert_int_eq(fclose(f), 0);
}

/*
 * What systemd says of a property of the instance.
 */
static const char *
property(const char *name)
{
	static char value[128];
	char command[128];
	FILE *f;

	snprintf(command, sizeof(command),
	    "systemctl show --value -p %s vdisk@web-0", name);
	f = popen(command, "re");
	ck_assert_ptr_nonnull(f);
	if (fgets(value, sizeof(value), f) == NULL)
		value[0] = '\0';
	pclose(f);
	value[strcspn(value, "\n")] = '\0';
	return value;
}

static void
sleep_ms(long ms)
{
	const struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

/*
 * Wait until a property has a value.
 */
static void
expect(const char *name, const char *value)
{
	for (int i = 0; i < 300 && strcmp(property(name), value) != 0; i++)
		sleep_ms(100);
	ck_assert_str_eq(property(name), value);
}

static void
describe(const char *domain, const char *irq)
{
	put("/etc/vdisk/web-0",
	    "DOMAIN=%s\nMMIO_BASE=0x2000000\nIRQ=%s\nDISK=" DISK
	    "\nOPTIONS=-v --no-discard\n",
	    domain, irq);
}

static void
make_guest(uint16_t domid)
{
	fake_xen_start(domid, 2, 64 * MIB, 0);
	put("/run/fake-xen", "FAKE_XEN=%s\n", fake_xen_path());
	driver_init(&drv, BASE, FAKE_XEN_LOW, 64 * MIB);
}

static void
setup(void)
{
	int fd = open(DISK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_eq(ftruncate(fd, 8 * MIB), 0);
	close(fd);
	mkdir("/etc/vdisk", 0755);
	describe("7", IRQ);
	make_guest(DOMID);
}

static void
teardown(void)
{
	run("systemctl stop vdisk@web-0 xendomains 2>/dev/null");
	run("systemctl reset-failed vdisk@web-0 2>/dev/null");
	unlink("/etc/vdisk/web-0");
}

static pid_t
main_process(void)
{
	return atoi(property("MainPID"));
}

/*
 * That the guest can use its disk; of which vdisk is told by its register.
 */
static void
exercise(void)
{
	uint64_t gpa = driver_pattern(&drv, 4096, 1);

	ck_assert_uint_eq(driver_io(&drv, 1, 8, gpa, 4096), 0);
	ck_assert_uint_eq(driver_io(&drv, 0, 8, gpa, 4096), 0);
}

static void
start(void)
{
	ck_assert_int_eq(run("systemctl start vdisk@web-0"), 0);
	ck_assert_str_eq(property("ActiveState"), "active");
	driver_start(&drv, ~0ULL, 64);
	exercise();
}

START_TEST(the_guest_may_run_when_the_command_returns)
{
	ck_assert_int_eq(run("systemctl start vdisk@web-0"), 0);
	ck_assert(fake_xen_server_enabled(0));
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
	ck_assert_int_gt(main_process(), 1);
	ck_assert_int_eq(access(PIDFILE, F_OK), 0);
}
END_TEST

START_TEST(a_guest_may_be_named)
{
	describe("web", IRQ);
	ck_assert_int_eq(run("systemctl start vdisk@web-0"), 0);
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
}
END_TEST

START_TEST(however_it_ends_another_one_continues)
{
	static const int signals[] = {SIGKILL, SIGSEGV, SIGTERM, SIGHUP};
	pid_t pid;

	start();
	for (unsigned i = 0; i < 4; i++) {
		pid = main_process();
		ck_assert_int_gt(pid, 1);
		ck_assert_int_eq(kill(pid, signals[i]), 0);
		/* The guest only waits. */
		ck_assert_uint_eq(
		    driver_read(&drv, VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
		exercise();
		/* Its parent may not have exited yet. */
		expect("ActiveState", "active");
		ck_assert_int_ne(main_process(), pid);
	}
}
END_TEST

START_TEST(an_instance_that_is_stopped_stays_so)
{
	start();
	ck_assert_int_eq(run("systemctl stop vdisk@web-0"), 0);
	sleep_ms(2500);
	ck_assert_str_eq(property("ActiveState"), "inactive");
	ck_assert_str_eq(property("NRestarts"), "0");
	ck_assert_int_eq(fake_xen_server_bound(0), 0);
	/* An upgrade is this. */
	ck_assert_int_eq(run("systemctl start vdisk@web-0"), 0);
	exercise();
}
END_TEST

START_TEST(wrong_arguments_are_an_error_until_they_are_mended)
{
	describe("7", BAD_IRQ);
	ck_assert_int_ne(run("systemctl start vdisk@web-0 2>/dev/null"), 0);
	describe("7", IRQ);
	expect("ActiveState", "active");
	ck_assert_uint_eq(driver_read(&drv, VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
}
END_TEST

START_TEST(a_domain_that_is_not_there_yet_is_tried_again)
{
	describe("8", IRQ);
	ck_assert_int_ne(run("systemctl start vdisk@web-0 2>/dev/null"), 0);
	/* More often than systemd's default limit of 5 times has it. */
	for (int i = 0; i < 300 && atoi(property("NRestarts")) < 6; i++)
		sleep_ms(100);
	ck_assert_int_ge(atoi(property("NRestarts")), 6);
	make_guest(8);
	expect("ActiveState", "active");
	driver_start(&drv, ~0ULL, 64);
	exercise();
}
END_TEST

START_TEST(a_disk_that_nobody_described_is_an_error)
{
	unlink("/etc/vdisk/web-0");
	ck_assert_int_ne(run("systemctl start vdisk@web-0 2>/dev/null"), 0);
	ck_assert_str_eq(property("ActiveState"), "inactive");
}
END_TEST

START_TEST(guests_are_shut_down_before_their_disks)
{
	/* Started the other way round, as guests may be at any time. */
	ck_assert_int_eq(run("systemctl start host.target xendomains"), 0);
	start();
	unlink("/run/at-shutdown");
	/* All at once, as at the shutdown of the host. */
	ck_assert_int_eq(run("systemctl stop host.target"), 0);
	expect("ActiveState", "inactive");
	for (int i = 0; i < 50 && access("/run/at-shutdown", F_OK) != 0; i++)
		sleep_ms(100);
	ck_assert_int_eq(run("grep -qx active /run/at-shutdown"), 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("systemd");
	TCase *tc = cases_add(s, "unit", setup, teardown);

	tcase_add_test(tc, the_guest_may_run_when_the_command_returns);
	tcase_add_test(tc, a_guest_may_be_named);
	tcase_add_test(tc, however_it_ends_another_one_continues);
	tcase_add_test(tc, an_instance_that_is_stopped_stays_so);
	tcase_add_test(tc, wrong_arguments_are_an_error_until_they_are_mended);
	tcase_add_test(tc, a_domain_that_is_not_there_yet_is_tried_again);
	tcase_add_test(tc, a_disk_that_nobody_described_is_an_error);
	tcase_add_test(tc, guests_are_shut_down_before_their_disks);
	return cases_run(s);
}
