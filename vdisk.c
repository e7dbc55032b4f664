/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vdisk: one virtio disk for one Xen guest.  Owns the command line, the order
 * in which things are opened, the loop, signals and the exit status.  Knows
 * nothing of Xen's interfaces or of virtio.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <xentoollog.h>

#include "blk.h"
#include "device.h"
#include "disk.h"
#include "guest.h"
#include "ioreq.h"
#include "sandbox.h"
#include "virtio_mmio.h"

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

/* Real domains have lower numbers (DOMID_FIRST_RESERVED in Xen's xen.h). */
#define DOMID_LIMIT 0x7ff0

/* No guest-physical address has more bits. */
#define ADDRESS_LIMIT (UINT64_C(1) << 52)

#define MIB	      (UINT64_C(1) << 20)

/* Milliseconds after which a silent guest is asked whether it still exists. */
#define SILENCE 1000

/*
 * Milliseconds for which no requests are taken after guest memory was
 * forgotten.  A guest that gives up memory while it uses its disk says so for
 * nearly every page, and if each time the rings were mapped again first, that
 * would take for ever.  In a lull there is nothing to wait for or to unmap.
 */
#define LULL 5

/*
 * Microseconds of looking for more work before we sleep: what is always worth
 * it, and the most that there is.  On slow machines it is worth it for longer,
 * for as long as to fall asleep and be woken would take so many times; each time
 * it would have taken that, whoever waits for our processor gets it.
 */
#define POLL	 50
#define POLL_MAX 10000
#define WAKE_UPS 16

/*
 * How often in a row we look in vain before we do without, and how often until
 * we try again.
 */
#define VAIN  4
#define RETRY 256

/* Milliseconds for which work may keep us from signals. */
#define DEAF 10

/* In nanoseconds, as all times that we keep are. */
#define MICROSECOND UINT64_C(1000)
#define MILLISECOND UINT64_C(1000000)

struct options {
	unsigned domid;
	uint64_t base;
	unsigned irq;
	const char *path;
	const char *serial;
	const char *pidfile; /* NULL: none */
	unsigned how;	     /* DISK_*: to open it */
	int poll;	     /* microseconds; -1: what is worth it */
	uint64_t map_limit;
	const struct passwd *user;
	bool daemon;
	bool no_sandbox;
	bool legacy;
	bool verbose;
};

/* What the loop works on. */
struct vdisk {
	xentoollog_logger *log;
	struct guest *guest;
	struct ioreq_server *io;
	struct blk *blk;
	struct device *dev;
	int signals; /* signalfd; -1: we are to end */
	bool event;  /* there is one to be taken off ioreq_fd() */
	enum device_next next;
	uint64_t map_limit; /* bytes of guest memory */
	uint64_t poll;	    /* to look for what is next, at most */
	unsigned missed[3]; /* ... so often in a row, by what it is */
	uint64_t now;
	uint64_t worked;   /* when there was work */
	uint64_t yielded;  /* when others were let to our processor */
	uint64_t listened; /* when the kernel was asked for news */
	uint64_t lull_end;
};

static const char usage[] =
    "usage: vdisk [OPTION...] DOMID MMIO_BASE IRQ PATH\n";

static const char help[] =
    "Serve PATH as a virtio disk to the Xen guest DOMID.\n\n"
    "  DOMID               number of the domain\n"
    "  MMIO_BASE           guest-physical address of the device's registers\n"
    "  IRQ                 its interrupt: Arm, an SPI's INTID; x86, an ISA "
    "IRQ\n"
    "  PATH                regular file or block device, used as it is\n\n"
    "  -d, --daemon        go to the background when the guest may run\n"
    "      --direct        go past the host's page cache\n"
    "  -l, --legacy        be of version 1, for guests that know no other\n"
    "      --map-limit=MIB map no more of the guest's memory\n"
    "      --no-discard    keep the space that the guest gives back\n"
    "      --no-lock       let others use PATH at the same time\n"
    "      --no-sandbox    keep all rights, for debugging\n"
    "  -p, --pidfile=FILE  write the number of the process to FILE\n"
    "      --poll=US       microseconds to look for work before sleeping\n"
    "  -r, --read-only     refuse to write\n"
    "  -s, --serial=TEXT   the disk's serial, at most 20 characters\n"
    "  -u, --user=USER     become USER once everything is open\n"
    "  -v, --verbose       say more on stderr\n"
    "  -h, --help          print this\n"
    "  -V, --version       print the version\n\n"
    "Numbers are decimal or 0x-hexadecimal.  See vdisk(8).\n";

/*
 * Refuse the command line: argument 'name' with 'value' is no good.
 */
static _Noreturn void
refuse(const char *name, const char *value, const char *why)
{
	fprintf(stderr, "vdisk: %s '%s': %s\n", name, value, why);
	exit(EXIT_USAGE);
}

/*
 * The number in argument 'name', which must be below 'limit'.
 */
static uint64_t
number(const char *name, const char *text, uint64_t limit)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *digits = hex ? text + 2 : text;
	size_t n =
	    strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
	uint64_t value;

	if (n == 0 || digits[n] != '\0')
		refuse(name, text, "not a decimal or 0x-hexadecimal number");
	errno = 0;
	value = strtoull(digits, NULL, hex ? 16 : 10);
	if (errno != 0 || value >= limit)
		refuse(name, text, "too large");
	return value;
}

/*
 * Option 'c', with its argument in 'optarg'.
 */
static void
take_option(struct options *o, int c)
{
	switch (c) {
	case 'd':
		o->daemon = true;
		break;
	case 'D':
		o->how |= DISK_DIRECT;
		break;
	case 'H':
		o->how |= DISK_NO_HOLES;
		break;
	case 'h':
		printf("%s%s", usage, help);
		exit(0);
	case 'l':
		o->legacy = true;
		break;
	case 'L':
		o->how |= DISK_NO_LOCK;
		break;
	case 'M':
		o->map_limit =
		    MIB * number("MAP_LIMIT", optarg, ADDRESS_LIMIT / MIB);
		break;
	case 'N':
		o->no_sandbox = true;
		break;
	case 'p':
		o->pidfile = optarg;
		break;
	case 'P':
		o->poll = number("POLL", optarg, POLL_MAX + 1);
		break;
	case 'r':
		o->how |= DISK_READ_ONLY;
		break;
	case 's':
		o->serial = optarg;
		break;
	case 'u':
		o->user = getpwnam(optarg);
		if (o->user == NULL)
			refuse("USER", optarg, "no such user");
		break;
	case 'v':
		o->verbose = true;
		break;
	case 'V':
		printf("vdisk %s\n", VDISK_VERSION);
		exit(0);
	default: /* getopt has said why */
		exit(EXIT_USAGE);
	}
}

static struct options
parse(int argc, char **argv)
{
	static const struct option longs[] = {
	    {"daemon", no_argument, NULL, 'd'},
	    {"direct", no_argument, NULL, 'D'},
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
	struct options o = {.serial = "", .poll = -1, .map_limit = UINT64_MAX};
	const char *why;
	int c;

	while ((c = getopt_long(argc, argv, "dhlp:rs:u:Vv", longs, NULL)) != -1)
		take_option(&o, c);
	if (argc - optind != 4) {
		fputs(usage, stderr);
		exit(EXIT_USAGE);
	}
	argv += optind;
	o.domid = number("DOMID", argv[0], DOMID_LIMIT);
	o.base = number("MMIO_BASE", argv[1], ADDRESS_LIMIT);
	if (o.base % VIRTIO_MMIO_SIZE != 0)
		refuse("MMIO_BASE", argv[1], "not a multiple of 0x200");
	o.irq = number("IRQ", argv[2], UINT32_MAX);
	if ((why = ioreq_irq_invalid(o.irq)) != NULL)
		refuse("IRQ", argv[2], why);
	o.path = argv[3];
	if (strlen(o.serial) > VIRTIO_BLK_ID_BYTES)
		refuse("SERIAL", o.serial, "longer than 20 characters");
	return o;
}

/*
 * Make sure that 0, 1 and 2 are open, so that no file of ours is taken for
 * stdout or stderr.
 */
static void
open_standard_streams(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0)
			exit(EXIT_REFUSED);
	} while (fd <= STDERR_FILENO);
	close(fd);
}

/*
 * Go on in the background.  The process that was started waits for us to be
 * ready and exits with 0, or with EXIT_REFUSED if it does not come to that.
 */
static void
go_to_background(void)
{
	int ready[2];
	pid_t pid;
	char c;

	if (pipe(ready) < 0 || (pid = fork()) < 0) {
		fprintf(stderr, "vdisk: cannot go to the background: %s\n",
		    strerror(errno));
		exit(EXIT_REFUSED);
	}
	if (pid == 0) {
		setsid();
		/* tell_ready() closes it, and nobody has the other. */
		dup2(ready[1], STDOUT_FILENO);
		close(ready[0]);
		close(ready[1]);
		return;
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) == 1)
		exit(0);
	waitpid(pid, NULL, 0);
	exit(EXIT_REFUSED);
}

static bool
write_pid(struct vdisk *v, const char *path)
{
	FILE *f = fopen(path, "we");

	if (f != NULL && fprintf(f, "%d\n", (int)getpid()) > 0 &&
	    fclose(f) == 0)
		return true;
	xtl_log(v->log, XTL_ERROR, errno, "vdisk", "cannot write %s", path);
	return false;
}

/*
 * Block the signals that are for us, and get them from a descriptor instead.
 */
static int
open_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* EFBIG will do */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/*
 * Open everything: the disk first, since it is what a user gets wrong, and the
 * IOREQ server last, since from then on the guest depends on us.
 */
static bool
open_all(struct vdisk *v, const struct options *o)
{
	const struct ioreq_config server = {
	    .domid = o->domid,
	    .irq = o->irq,
	    .base = o->base,
	    .size = VIRTIO_MMIO_SIZE,
	    .state_size = VIRTIO_MMIO_STATE_SIZE,
	    .state_version = VIRTIO_MMIO_STATE_VERSION,
	};

	v->signals = open_signals();
	if (v->signals < 0) {
		xtl_log(v->log, XTL_ERROR, errno, "vdisk",
		    "cannot open a signal descriptor");
		return false;
	}
	v->blk = blk_open(v->log, o->path, o->how, o->serial);
	if (v->blk == NULL)
		return false;
	/* Now that nobody else is at the disk, who may have a pid file. */
	if (o->pidfile != NULL && !write_pid(v, o->pidfile))
		return false;
	v->guest = guest_open(v->log, o->domid);
	if (v->guest == NULL)
		return false;
	v->io = ioreq_open(v->log, &server);
	return v->io != NULL;
}

/*
 * Give up what is not needed any more.
 */
static bool
drop_rights(struct vdisk *v, const struct options *o)
{
	const struct sandbox sandbox = {
	    .user = o->user,
	    .events = ioreq_fd(v->io),
	    .uring = blk_fd(v->blk),
	    .disk = blk_disk_fd(v->blk),
	    .signals = v->signals,
	};

	if (!o->no_sandbox)
		return sandbox_enter(v->log, &sandbox);
	xtl_log(v->log, XTL_WARN, -1, "vdisk", "there is no sandbox");
	return true;
}

/*
 * Tell whoever started us that the guest may run.  It may not care.
 */
static void
tell_ready(void)
{
	static const char ready[] = "ready\n";

	/* Not by stdio, which makes more system calls than are left. */
	(void)!write(STDOUT_FILENO, ready, sizeof(ready) - 1);
	close(STDOUT_FILENO);
}

/*
 * Carry out one access.  False: it must wait until nothing is in flight.
 */
static bool
serve(struct vdisk *v, struct access *a)
{
	if (a->kind != ACCESS_INVALIDATE)
		return device_access(v->dev, a);
	if (!device_idle(v->dev))
		return false;
	guest_forget(v->guest);
	/* The lull is not prolonged: requests get their turn, too. */
	if (v->now >= v->lull_end)
		v->lull_end = v->now + LULL * MILLISECOND;
	return true;
}

static uint64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

/*
 * For how long it is worth it on this machine to look for more work: by the
 * quickest of some goes, since others may be at work just now.
 */
static uint64_t
worthwhile(void)
{
	enum { GOES = 4 };
	static const struct timespec moment = {.tv_nsec = 1};
	uint64_t quickest = POLL_MAX * MICROSECOND / GOES, begin, time;

	prctl(PR_SET_TIMERSLACK, 1); /* or Linux adds 50 us */
	for (int go = 0; go < GOES; go++) {
		begin = now();
		for (int i = 0; i < WAKE_UPS / GOES; i++)
			nanosleep(&moment, NULL);
		time = now() - begin;
		quickest = MIN(quickest, time);
	}
	return MAX(POLL * MICROSECOND, GOES * quickest);
}

/*
 * Whether to look for more work instead of sleeping, there having been some
 * ('worked') or not.  To be woken costs us, and a vCPU that waits, more than to
 * look for a while; but not for what mostly takes longer to come.  Once we
 * sleep, it seems to take longer than it does, by as much as that costs: so we
 * cannot tell that it would pay again, and try now and then.
 */
static bool
look_on(struct vdisk *v, bool worked)
{
	unsigned *missed = &v->missed[v->next];
	uint64_t gap;

	/* A disk at work may need our processor. */
	if (!worked && (*missed >= VAIN || v->next == DEVICE_DISK))
		return false;
	v->now = now();
	gap = v->now - v->worked;
	if (worked) {
		*missed = gap < v->poll ? 0 : (*missed + 1) % RETRY;
		v->worked = v->now;
		v->next = device_next(v->dev);
	} else if (gap >= v->poll) {
		return false;
	} else if (v->now - v->yielded >= v->poll / WAKE_UPS) {
		sched_yield();
		v->yielded = v->now;
	}
	return true;
}

/*
 * A signal: two of them ask for something, all others for our end.
 */
static void
take_signal(struct vdisk *v)
{
	struct signalfd_siginfo signal = {.ssi_signo = 0};

	if (read(v->signals, &signal, sizeof(signal)) < 0)
		return;
	if (signal.ssi_signo == SIGUSR1)
		device_resize(v->dev);
	else if (signal.ssi_signo == SIGUSR2)
		device_report(v->dev);
	else
		v->signals = -1;
}

/*
 * Take the news that the kernel has for us, for which we sleep 'timeout'
 * milliseconds at most.  The exit status if it is that we are to end, or -1.
 */
static int
take_news(struct vdisk *v, int timeout)
{
	struct pollfd fd[] = {
	    {.fd = ioreq_fd(v->io), .events = POLLIN},
	    {.fd = blk_fd(v->blk), .events = POLLIN},
	    {.fd = v->signals, .events = POLLIN},
	};
	int n;

	/*
	 * A vCPU that caused the event was looked for before this.  As long as
	 * it is not taken off, no other one interrupts us.
	 */
	if (timeout > 0 && v->event && ioreq_wake(v->io) < 0)
		return EXIT_REFUSED;
	n = poll(fd, 3, timeout);
	v->event = n > 0 && fd[0].revents != 0;
	if (n == 0 && timeout == SILENCE && !ioreq_alive(v->io)) {
		xtl_log(v->log, XTL_NOTICE, -1, "vdisk", "the guest is gone");
		return 0;
	}
	if (n > 0 && fd[2].revents != 0)
		take_signal(v);
	v->now = v->listened = now();
	return -1;
}

/*
 * The loop.  Accesses come first, since a vCPU stands still meanwhile; while
 * one of them waits for the requests in flight, or we are to end, no further
 * requests are taken.  Returns the exit status.
 */
static int
run(struct vdisk *v)
{
	int status = -1;

	while (status < 0) {
		struct access a;
		bool worked = false, waiting = false, lull, full, hold, awake;

		while (ioreq_next(v->io, &a)) {
			if (serve(v, &a)) {
				ioreq_done(v->io, &a);
				worked = true;
			} else {
				waiting = true;
			}
		}
		lull = v->now < v->lull_end;
		full = guest_mapped(v->guest) > v->map_limit;
		hold = waiting || lull || full || v->signals < 0;
		worked |= device_run(v->dev, hold);
		if (v->signals < 0 && device_idle(v->dev))
			return 0;
		if (waiting && device_idle(v->dev))
			continue; /* what it waited for is over */
		if (full && device_idle(v->dev)) {
			guest_forget(v->guest);
			continue;
		}

		awake = look_on(v, worked);
		if (awake && v->now - v->listened < DEAF * MILLISECOND)
			continue;
		if (!awake && !hold)
			awake = device_await(v->dev);
		status = take_news(v, awake ? 0 : lull ? LULL : SILENCE);
	}
	return status;
}

int
main(int argc, char **argv)
{
	struct options o;
	struct vdisk v = {.now = 0};

	open_standard_streams();
	o = parse(argc, argv);
	if (o.daemon)
		go_to_background();
	v.log = (xentoollog_logger *)xtl_createlogger_stdiostream(
	    stderr, o.verbose ? XTL_DEBUG : XTL_NOTICE, 0);
	v.map_limit = o.map_limit;
	v.poll = o.poll < 0 ? worthwhile() : o.poll * MICROSECOND;
	if (v.log == NULL || !open_all(&v, &o) || !drop_rights(&v, &o))
		return EXIT_REFUSED;
	/* From here on the guest is listened to. */
	v.dev = device_open(v.log, v.io, v.guest, v.blk, o.legacy);
	if (v.dev == NULL)
		return EXIT_REFUSED;
	tell_ready();
	return run(&v);
}
