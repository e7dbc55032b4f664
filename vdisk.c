/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vdisk: one virtio disk for one Xen guest.  Owns the command line, the order
 * in which things are opened, readiness and the exit status.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blk.h"
#include "device.h"
#include "grant.h"
#include "guest.h"
#include "ioreq.h"
#include "log.h"
#include "loop.h"
#include "sandbox.h"
#include "virtio_mmio.h"

#define EXIT_USAGE    2	     /* wrong arguments; EXIT_FAILURE: all else */
#define DOMID_LIMIT   0x7ff0 /* of real domains: DOMID_FIRST_RESERVED */
#define ADDRESS_LIMIT (UINT64_C(1) << 52) /* of any guest-physical address */
#define MIB	      (UINT64_C(1) << 20)

struct options {
	struct ioreq_config server;
	const char *path;
	const char *serial;
	const char *pidfile; /* NULL: none */
	unsigned flags;	     /* DISK_*: to open it */
	unsigned poll;	     /* microseconds; if not given: calibrated */
	uint64_t map_limit;
	const struct passwd *user;
	bool given[UCHAR_MAX + 1]; /* by the letters of parse_option() */
};

#define USAGE "usage: vdisk [OPTION...] DOMID MMIO_BASE IRQ PATH\n"

static const char help[] = USAGE
    "Serve PATH as a virtio disk to the Xen guest DOMID.\n\n"
    "  DOMID               number of the domain\n"
    "  MMIO_BASE           guest-physical address of the device's registers\n"
    "  IRQ                 its interrupt: Arm, an SPI's INTID; x86, an ISA "
    "IRQ\n"
    "  PATH                regular file or block device; always raw;\n"
    "                      \"none\": no medium\n\n"
    "  -d, --daemon        daemonize, once the guest may run\n"
    "      --direct        use direct I/O, not the host's page cache\n"
    "      --grants        access only memory that the guest has granted\n"
    "  -l, --legacy        present a legacy (version 1) device\n"
    "      --map-limit=MIB limit of guest memory kept mapped\n"
    "      --no-discard    do not offer discard\n"
    "      --no-lock       do not lock PATH\n"
    "      --no-sandbox    keep all privileges, for debugging\n"
    "  -p, --pidfile=FILE  write the process ID to FILE\n"
    "      --poll=US       busy-poll for at most so long, in microseconds\n"
    "  -r, --read-only     serve a read-only disk\n"
    "  -s, --serial=TEXT   the disk's serial, at most 20 characters\n"
    "  -u, --user=USER     switch to USER once everything is open\n"
    "  -v, --verbose       log more to stderr\n"
    "  -h, --help          print this\n"
    "  -V, --version       print the version\n\n"
    "Numbers are decimal or 0x-hexadecimal.  See vdisk(8).\n";

/* Exit with 'status' and a message, see log_error(), before there is a log. */
static _Noreturn void __attribute__((format(printf, 3, 4)))
fail(int status, int error, const char *format, ...)
{
	struct log log;
	va_list args;

	log_init(&log, XTL_NOTICE);
	va_start(args, format);
	xtl_logv(&log.logger, XTL_ERROR, error, "vdisk", format, args);
	exit(status);
}

static _Noreturn void
usage_error(const char *name, const char *value, const char *why)
{
	fail(EXIT_USAGE, -1, "%s '%s': %s", name, value, why);
}

static _Noreturn void
print(const char *text)
{
	if (fputs(text, stdout) < 0 || fflush(stdout) != 0)
		fail(EXIT_FAILURE, errno, "cannot write to stdout");
	exit(0);
}

/* Parse the number in argument 'name', which must be below 'limit'. */
static uint64_t
parse_number(const char *name, const char *text, uint64_t limit)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *digits = hex ? text + 2 : text;
	size_t n =
	    strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
	uint64_t value;

	if (n == 0 || digits[n] != '\0')
		usage_error(
		    name, text, "not a decimal or 0x-hexadecimal number");
	errno = 0;
	value = strtoull(digits, NULL, hex ? 16 : 10);
	if (errno != 0 || value >= limit)
		usage_error(name, text, "too large");
	return value;
}

/* Handle option 'c', with its argument in 'optarg'. */
static void
parse_option(struct options *o, int c)
{
	o->given[c] = true;
	switch (c) {
	case 'h':
		print(help);
	case 'M':
		o->map_limit = MIB * parse_number("MAP_LIMIT", optarg,
					 ADDRESS_LIMIT / MIB);
		break;
	case 'p':
		o->pidfile = optarg;
		if (optarg[0] == '\0')
			usage_error("FILE", optarg, "empty");
		break;
	case 'P':
		o->poll = parse_number("POLL", optarg, POLL_US_MAX + 1);
		break;
	case 's':
		o->serial = optarg;
		break;
	case 'u':
		if ((o->user = getpwnam(optarg)) == NULL)
			usage_error("USER", optarg, "no such user");
		break;
	case 'V':
		print("vdisk " VDISK_VERSION "\n");
	case '?': /* getopt has logged it */
		exit(EXIT_USAGE);
	}
}

static struct options
parse_arguments(int argc, char **argv)
{
	static const struct option long_options[] = {
	    {"daemon", no_argument, NULL, 'd'},
	    {"direct", no_argument, NULL, 'D'},
	    {"grants", no_argument, NULL, 'G'},
	    {"help", no_argument, NULL, 'h'},
	    {"legacy", no_argument, NULL, 'l'},
	    {"map-limit", required_argument, NULL, 'M'},
	    {"no-discard", no_argument, NULL, 'H'},
	    {"no-lock", no_argument, NULL, 'L'},
	    {"no-sandbox", no_argument, NULL, 'N'},
	    {"pidfile", required_argument, NULL, 'p'},
	    {"poll", required_argument, NULL, 'P'},
	    {"read-only", no_argument, NULL, 'r'},
	    {"serial", required_argument, NULL, 's'},
	    {"user", required_argument, NULL, 'u'},
	    {"verbose", no_argument, NULL, 'v'},
	    {"version", no_argument, NULL, 'V'},
	    {NULL, 0, NULL, 0},
	};
	struct options o = {.serial = "",
	    .map_limit = GUEST_LIMIT_DEFAULT,
	    .server = {.size = VIRTIO_MMIO_SIZE,
		.state_size = VIRTIO_MMIO_STATE_SIZE,
		.state_version = VIRTIO_MMIO_STATE_VERSION}};
	const char *why;
	int c;

	while ((c = getopt_long(
		    argc, argv, "dhlp:rs:u:Vv", long_options, NULL)) != -1)
		parse_option(&o, c);
	if (argc - optind != 4) {
		fputs(USAGE, stderr);
		exit(EXIT_USAGE);
	}
	argv += optind;
	if (o.given['G'] && o.given['l'])
		fail(EXIT_USAGE, -1, "--grants: not with --legacy");
	o.flags = (o.given['r'] ? DISK_READ_ONLY : 0) |
		  (o.given['D'] ? DISK_DIRECT : 0) |
		  (o.given['H'] ? DISK_NO_DISCARD : 0) |
		  (o.given['L'] ? DISK_NO_LOCK : 0);
	o.server.domid = parse_number("DOMID", argv[0], DOMID_LIMIT);
	o.server.base = parse_number("MMIO_BASE", argv[1], ADDRESS_LIMIT);
	if (o.server.base % VIRTIO_MMIO_SIZE != 0)
		usage_error("MMIO_BASE", argv[1], "not a multiple of 0x200");
	o.server.irq = parse_number("IRQ", argv[2], UINT32_MAX);
	if ((why = ioreq_irq_invalid(o.server.irq)) != NULL)
		usage_error("IRQ", argv[2], why);
	o.path = argv[3];
	if (o.path[0] == '\0')
		usage_error("PATH", o.path, "empty");
	if (strlen(o.serial) > VIRTIO_BLK_ID_BYTES)
		usage_error("SERIAL", o.serial, "longer than 20 characters");
	return o;
}

/* Not every host has /dev/null. */
static int
open_nothing(void)
{
	int fd = open("/dev/null", O_RDWR);

	return fd >= 0 ? fd : open("/", O_PATH);
}

/*
 * Have 0, 1 and 2 open, so that no file of ours becomes stdout or stderr.
 * Close all others, which the sandbox would leave, and our parent may wait for.
 */
static void
open_standard_streams(void)
{
	int fd;

	while ((fd = open_nothing()) >= 0 && fd <= STDERR_FILENO)
		;
	if (fd < 0)
		fail(EXIT_FAILURE, errno, "cannot open /dev/null");
	/* Our io_uring needs a later kernel, but a filter may deny this. */
	if (syscall(SYS_close_range, STDERR_FILENO + 1, UINT_MAX, 0) < 0)
		for (fd = sysconf(_SC_OPEN_MAX); fd > STDERR_FILENO; fd--)
			close(fd);
}

/*
 * Continue in a child process.  The parent exits with 0 once the child is
 * ready, or with EXIT_FAILURE if it fails first.
 */
static void
daemonize(void)
{
	int ready[2];
	pid_t pid;
	char c;

	if (pipe(ready) < 0 || (pid = fork()) < 0)
		fail(EXIT_FAILURE, errno, "cannot daemonize");
	if (pid == 0) {
		setsid();
		close(STDIN_FILENO);
		open_nothing(); /* in its place */
		/* notify_ready() closes the one copy that is left. */
		dup2(ready[1], STDOUT_FILENO);
		close(ready[0]);
		close(ready[1]);
		return;
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) == 1)
		exit(0);
	waitpid(pid, NULL, 0);
	exit(EXIT_FAILURE);
}

/* Receive our signals by a signalfd, but none that nohup(1) has ignored. */
static int
open_signals(void)
{
	static const int ours[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
	struct sigaction action;
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* EFBIG will do */
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (sigaction(ours[i], NULL, &action) == 0 &&
		    action.sa_handler != SIG_IGN)
			sigaddset(&set, ours[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/*
 * The disk comes first, since user errors are found there, and the IOREQ server
 * last: from then on the guest's accesses block until we complete them.
 */
static bool
open_all(struct loop_config *v, const struct options *o)
{
	uint16_t domid = o->server.domid;
	struct grants *grants = NULL;
	int pidfile = -1, len;

	if ((v->fd[FD_SIGNALS] = open_signals()) < 0)
		return log_error(v->log, errno, "cannot create a signalfd");
	if (o->given['G'] && (grants = grant_new(v->log, domid)) == NULL)
		return false;
	v->blk = blk_open(v->log, o->path, o->flags, o->serial, grants);
	if (v->blk == NULL)
		return false;
	if (o->pidfile != NULL &&
	    (pidfile = open(o->pidfile, O_WRONLY | O_CREAT, 0644)) < 0)
		return log_error(v->log, errno, "cannot write %s", o->pidfile);
	v->guest = guest_open(v->log, domid, o->map_limit, grants);
	if (v->guest == NULL)
		return false;
	v->io = ioreq_open(v->log, &o->server);
	/* Event channels that are free mean that nothing is in flight. */
	if (v->io == NULL || !engine_retain(v->blk->engine, ioreq_fd(v->io)))
		return false;
	v->fd[FD_GRANTS] = grants == NULL ? -1 : grant_open(grants);
	if (grants != NULL && v->fd[FD_GRANTS] < 0)
		return false;
	v->fd[FD_EVENTS] = ioreq_fd(v->io);
	v->fd[FD_URING] = engine_fd(v->blk->engine);
	v->fd[FD_DISK] = v->blk->disk.fd;
	v->fd[FD_SYNC] = v->blk->disk.sync;
	if (pidfile < 0)
		return true;
	/* Nobody else serves the disk now, so it is ours; it is never empty. */
	if ((len = dprintf(pidfile, "%d\n", (int)getpid())) < 0)
		return log_error(v->log, errno, "cannot write %s", o->pidfile);
	(void)!ftruncate(pidfile, len); /* a device has no length */
	close(pidfile);
	return true;
}

/* Readiness notification: the guest may run.  There may be no reader. */
static void
notify_ready(void)
{
	struct pollfd fd = {.fd = STDOUT_FILENO, .events = POLLOUT};

	/* Not by stdio, which makes system calls that the sandbox denies. */
	if (poll(&fd, 1, 0) == 1)
		(void)!write(STDOUT_FILENO, "ready\n", 6);
	close(STDOUT_FILENO);
}

/* Serve the guest until the end.  Returns the exit status. */
static int
serve_guest(struct loop_config *v, const struct options *o)
{
	if (o->given['N'])
		log_msg(v->log, XTL_WARN, -1, "running without a sandbox");
	else if (!sandbox_enter(v->log, o->user, v->fd))
		return EXIT_FAILURE;
	v->dev = device_open(v->log, v->io, v->guest, v->blk, o->given['l']);
	if (v->dev == NULL)
		return EXIT_FAILURE;
	v->terminating = loop_signals(v);
	if (!v->terminating)
		notify_ready();
	return loop_run(v);
}

int
main(int argc, char **argv)
{
	struct options o;
	struct loop_config v = {.blk = NULL};
	struct log log;
	int status;

	open_standard_streams();
	o = parse_arguments(argc, argv);
	if (o.given['d'])
		daemonize();
	log_init(&log, o.given['v'] ? XTL_DEBUG : XTL_NOTICE);
	v.log = &log.logger;
	loop_calibrate(&v);
	if (o.given['P'])
		v.poll_ns = o.poll * UINT64_C(1000);
	status = open_all(&v, &o) ? serve_guest(&v, &o) : EXIT_FAILURE;
	if (v.blk != NULL)
		engine_close(v.blk->engine);
	return status;
}
