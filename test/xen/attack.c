/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a compromised vdisk could try, preloaded into one on real Xen: with its
 * own handles, after it dropped its privileges.  $ATTACK is one of the attacks
 * below, $OTHER the domain to attack.  Says what came of it and exits, with 0
 * if it worked; the kernel may end it before that.
 *
 * With $LENIENT nothing was restricted, so that it is seen that each attack
 * works where nothing refuses it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define __XEN_TOOLS__ 1
#include <liburing.h>
#include <xenforeignmemory.h>

#include <xen/hvm/dm_op.h>
#include <xen/sys/privcmd.h>
#include <xen/version.h>

/* Higher than any descriptor of vdisk's. */
#define DESCRIPTORS 32

/* A page that every guest has. */
#ifdef __aarch64__
#define RAM_GFN 0x40000
#else
#define RAM_GFN 0x100
#endif

/* The function that is being stood in front of. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define PRELOADED  __attribute__((visibility("default")))

/* Of this process, as long as it is good. */
static struct io_uring *ring;

PRELOADED int
xentoolcore_restrict_all(domid_t domid)
{
	int (*restrict_all)(domid_t);

	*(void **)&restrict_all = dlsym(RTLD_NEXT, "xentoolcore_restrict_all");
	return getenv("LENIENT") != NULL ? 0 : restrict_all(domid);
}

PRELOADED int
io_uring_register(unsigned fd, unsigned opcode, const void *arg, unsigned n)
{
	if (opcode == IORING_REGISTER_RESTRICTIONS && getenv("LENIENT") != NULL)
		return 0;
	return REAL(io_uring_register)(fd, opcode, arg, n);
}

PRELOADED int
io_uring_register_files(struct io_uring *uring, const int *files, unsigned n)
{
	ring = uring;
	return REAL(io_uring_register_files)(uring, files, n);
}

/*
 * Tell what an attack came to; 'error' is 0 if it worked.
 */
static _Noreturn void
end(int error)
{
	char text[80];
	int n = snprintf(text, sizeof(text), "attack: %s\n",
	    error == 0 ? "it worked" : strerror(error));

	if (write(STDERR_FILENO, text, n) < 0)
		_exit(2);
	_exit(error != 0);
}

/*
 * Get an IOREQ server in the other domain.
 */
static int
dm_op(int fd, domid_t other)
{
	struct xen_dm_op op = {.op = XEN_DMOP_create_ioreq_server};
	privcmd_dm_op_buf_t buf = {.uptr = &op, .size = sizeof(op)};
	privcmd_dm_op_t arg = {.dom = other, .num = 1, .ubufs = &buf};

	return ioctl(fd, IOCTL_PRIVCMD_DM_OP, &arg) < 0 ? errno : 0;
}

/*
 * Read the other domain's memory.
 */
static int
map(int fd, domid_t other)
{
	xen_pfn_t gfn = RAM_GFN;
	int err = 0;
	void *at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	privcmd_mmapbatch_v2_t arg = {.num = 1,
	    .dom = other,
	    .addr = (uintptr_t)at,
	    .arr = &gfn,
	    .err = &err};

	if (at == MAP_FAILED)
		return ENOTTY;
	if (ioctl(fd, IOCTL_PRIVCMD_MMAPBATCH_V2, &arg) < 0)
		return errno;
	if (err == 0)
		err = *(volatile char *)at & 0; /* it is there */
	return -err;
}

/*
 * Ask Xen for its version, as one may ask it anything.
 */
static int
hypercall(int fd, domid_t other)
{
	privcmd_hypercall_t arg = {
	    .op = __HYPERVISOR_xen_version, .arg = {XENVER_version}};

	(void)other;
	return ioctl(fd, IOCTL_PRIVCMD_HYPERCALL, &arg) < 0 ? errno : 0;
}

/*
 * Try each descriptor there is: one that is good for it is enough.
 */
static _Noreturn void
by_any(int (*attack)(int, domid_t), domid_t other)
{
	int fd, error, refusal = ENOTTY;

	for (fd = STDERR_FILENO + 1; fd < DESCRIPTORS; fd++) {
		error = attack(fd, other);
		if (error == 0)
			end(0);
		if (error == EPERM)
			refusal = EPERM;
	}
	end(refusal);
}

/*
 * Let the ring do an operation.
 */
static _Noreturn void
by_ring(const char *what)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;

	if (strcmp(what, "ring-open") == 0)
		io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	else if (strcmp(what, "ring-socket") == 0)
		io_uring_prep_socket(sqe, AF_UNIX, SOCK_STREAM, 0, 0);
	else
		io_uring_prep_write(sqe, STDERR_FILENO, "!", 1, 0);
	if (io_uring_submit_and_wait(ring, 1) < 0 ||
	    io_uring_peek_cqe(ring, &cqe) < 0)
		end(EIO);
	end(cqe->res < 0 ? -cqe->res : 0);
}

static _Noreturn void
attack(const char *what, domid_t other)
{
	static char *const shell[] = {
	    "/bin/sh", "-c", "echo 'attack: it worked' >&2", NULL};
	bool failed = true;

	if (strcmp(what, "dm-op") == 0)
		by_any(dm_op, other);
	if (strcmp(what, "map") == 0)
		by_any(map, other);
	if (strcmp(what, "hypercall") == 0)
		by_any(hypercall, other);
	if (strncmp(what, "ring-", 5) == 0)
		by_ring(what);
	if (strcmp(what, "open") == 0)
		failed = open("/etc/passwd", O_RDONLY) < 0;
	if (strcmp(what, "run") == 0)
		failed = execv(shell[0], shell) < 0;
	if (strcmp(what, "fork") == 0)
		failed = fork() < 0;
	if (strcmp(what, "socket") == 0)
		failed = socket(AF_UNIX, SOCK_STREAM, 0) < 0;
	if (strcmp(what, "signal") == 0)
		failed = kill(getppid(), 0) < 0;
	end(failed ? errno : 0);
}

/*
 * vdisk closes its standard output when it is ready.
 */
PRELOADED int
close(int fd)
{
	const char *what = getenv("ATTACK"), *other = getenv("OTHER");

	if (fd == STDOUT_FILENO && what != NULL && other != NULL)
		attack(what, atoi(other));
	return REAL(close)(fd);
}
