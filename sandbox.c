/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Least privilege.  Owns the dropping of privileges and the list of system
 * calls that the event loop makes, itself and through its libraries.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/mount.h>
#include <seccomp.h>
#include <xenforeignmemory.h>

#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>
#include <xen/sys/privcmd.h>

#include "fds.h"
#include "log.h"
#include "sandbox.h"

/* Enter an empty file system, which is read-only and mounted nowhere. */
static bool
enter_empty_root(xentoollog_logger *log)
{
	int fs = syscall(SYS_fsopen, "tmpfs", 0), root;

	if (fs < 0 ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return log_error(
		    log, errno, "cannot make an empty file system");
	root = syscall(SYS_fsmount, fs, 0, MOUNT_ATTR_RDONLY);
	if (root < 0 || fchdir(root) < 0 || chroot(".") < 0)
		return log_error(
		    log, errno, "cannot move into an empty file system");
	close(fs);
	close(root);
	return true;
}

/* No RLIMIT_NPROC, which counts io_uring's workers: the filter denies fork. */
static bool
drop_privileges(xentoollog_logger *log, const struct passwd *user)
{
	struct __user_cap_header_struct v3 = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
	/* poll() fails with more than that. */
	const struct rlimit max_fds = {FD_POLLED, FD_POLLED};

	/* Fails without CAP_SETPCAP, harmlessly. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap);
	if (user != NULL &&
	    (setgroups(0, NULL) < 0 ||
		setresgid(user->pw_gid, user->pw_gid, user->pw_gid) < 0 ||
		setresuid(user->pw_uid, user->pw_uid, user->pw_uid) < 0))
		return log_error(log, errno, "cannot become another user");
	if (syscall(SYS_capset, &v3, none) < 0)
		return log_error(log, errno, "cannot drop capabilities");
	/* After setuid.  RLIMIT_CORE does not apply to a core_pattern pipe. */
	if (setrlimit(RLIMIT_NOFILE, &max_fds) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0) < 0)
		return log_error(log, errno, "cannot set limits");
	return true;
}

/* Argument n, of 32 bits for the kernel, equals a value; has no such bits. */
#define ARG_EQ(n, value)                                                       \
	SCMP_CMP(n, SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint32_t)(value))
#define ARG_CLEAR(n, bits) SCMP_CMP(n, SCMP_CMP_MASKED_EQ, bits, 0)

/* Allow a system call if all conditions hold. */
#define ALLOW(call, ...)                                                       \
	(e = e < 0 ? e                                                         \
		   : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(call),     \
			 sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) /        \
			     sizeof(struct scmp_arg_cmp),                      \
			 ##__VA_ARGS__))

static bool
load_filter(xentoollog_logger *log, const int *fd)
{
	static const unsigned long grants[] = {IOCTL_GNTDEV_GRANT_COPY,
	    IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF,
	    IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR};
	unsigned n = fd[FD_GRANTS] < 0 ? 0 : sizeof(grants) / sizeof(grants[0]);
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int e = ctx == NULL ? -ENOMEM : 0;

	/* Signals and event channels: */
	ALLOW(read, ARG_EQ(0, fd[FD_SIGNALS]));
	ALLOW(read, ARG_EQ(0, fd[FD_EVENTS]));
	ALLOW(write, ARG_EQ(0, fd[FD_EVENTS]));
	ALLOW(ioctl, ARG_EQ(0, fd[FD_EVENTS]), ARG_EQ(1, IOCTL_EVTCHN_NOTIFY));
	/* The disk: */
	ALLOW(io_uring_enter, ARG_EQ(0, fd[FD_URING]));
	ALLOW(io_uring_register, ARG_EQ(0, fd[FD_URING]),
	    ARG_EQ(1, IORING_UNREGISTER_FILES));
	ALLOW(fdatasync, ARG_EQ(0, fd[FD_SYNC]));
	ALLOW(lseek, ARG_EQ(0, fd[FD_DISK]));
	ALLOW(pread64, ARG_EQ(0, fd[FD_DISK]));
	ALLOW(pwrite64, ARG_EQ(0, fd[FD_DISK]));
	ALLOW(preadv, ARG_EQ(0, fd[FD_DISK]));
	ALLOW(pwritev, ARG_EQ(0, fd[FD_DISK]));
	ALLOW(ioctl, ARG_EQ(0, fd[FD_DISK]), ARG_EQ(1, BLKDISCARD));
	ALLOW(fallocate, ARG_EQ(0, fd[FD_DISK]));
	/* Interrupts, and whether the domain exists: */
	ALLOW(ioctl, ARG_EQ(1, IOCTL_PRIVCMD_DM_OP));
	/* Guest memory, with sleeps while Xen pages it in, and our heap: */
	for (unsigned i = 0; i < n; i++)
		ALLOW(ioctl, ARG_EQ(0, fd[FD_GRANTS]), ARG_EQ(1, grants[i]));
	if (n == 0)
		ALLOW(ioctl, ARG_EQ(1, IOCTL_PRIVCMD_MMAPBATCH_V2));
	ALLOW(mmap, ARG_CLEAR(2, PROT_EXEC));
	ALLOW(munmap);
	ALLOW(brk);
	ALLOW(nanosleep); /* musl's */
	ALLOW(clock_nanosleep);
	/* Waiting; for arm64, which has no poll, that is ignored: */
	ALLOW(poll);
	ALLOW(ppoll);
	ALLOW(restart_syscall);
	ALLOW(sched_yield);
	/* Readiness, logging, exit; not all clocks are in the vDSO: */
	ALLOW(close, ARG_EQ(0, STDOUT_FILENO));
	ALLOW(write, ARG_EQ(0, STDOUT_FILENO));
	ALLOW(write, ARG_EQ(0, STDERR_FILENO));
	ALLOW(clock_gettime);
	ALLOW(exit_group);
	if (e == 0)
		e = seccomp_load(ctx);
	seccomp_release(ctx);
	return e == 0 || log_error(log, -e, "cannot load the seccomp filter");
}

bool
sandbox_enter(xentoollog_logger *log, const struct passwd *user, const int *fd)
{
	/* Only root can chroot. */
	return (geteuid() != 0 || enter_empty_root(log)) &&
	       drop_privileges(log, user) && load_filter(log, fd);
}
