/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Least privilege.  Owns the giving up of rights, and the list of the system
 * calls that the loop makes, itself and by the libraries under it.  Knows
 * nothing of what they are for.
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
#include <xentoollog.h>

#include <xen/sys/evtchn.h>
#include <xen/sys/privcmd.h>

#include "sandbox.h"

static bool
refused(xentoollog_logger *log, const char *what, int error)
{
	xtl_log(log, XTL_ERROR, error, "vdisk", "cannot %s", what);
	return false;
}

/*
 * Move into an empty file system that nobody can put anything into, since it is
 * mounted for reading only, and nowhere.
 */
static bool
leave_files(xentoollog_logger *log)
{
	int fs = syscall(SYS_fsopen, "tmpfs", 0), root;

	if (fs < 0 ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return refused(log, "make an empty file system", errno);
	root = syscall(SYS_fsmount, fs, 0, MOUNT_ATTR_RDONLY);
	if (root < 0 || fchdir(root) < 0 || chroot(".") < 0)
		return refused(log, "move into an empty file system", errno);
	close(fs);
	close(root);
	return true;
}

/*
 * Keep nothing of what a user may do; that nothing is to be had again comes with
 * the filter (PR_SET_NO_NEW_PRIVS), and that there are no new processes, too,
 * since a limit would count io_uring's workers.
 */
static bool
drop_rights(xentoollog_logger *log, const struct passwd *user)
{
	struct __user_cap_header_struct header = {
	    .version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
	const struct rlimit three = {3, 3}; /* what poll() may be given */

	/* Refused to whoever has no rights to give up. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap);
	if (user != NULL &&
	    (setgroups(0, NULL) < 0 ||
		setresgid(user->pw_gid, user->pw_gid, user->pw_gid) < 0 ||
		setresuid(user->pw_uid, user->pw_uid, user->pw_uid) < 0))
		return refused(log, "become another user", errno);
	if (syscall(SYS_capset, &header, none) < 0)
		return refused(log, "drop capabilities", errno);
	/* Becoming another user may have allowed cores, which no limit keeps
	   from a program that takes them (core_pattern). */
	if (setrlimit(RLIMIT_NOFILE, &three) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0) < 0)
		return refused(log, "set limits", errno);
	return true;
}

/*
 * Conditions: argument n has this value, of 32 bits as the kernel takes it; it
 * has none of these bits.
 */
#define IS(n, value)                                                           \
	SCMP_CMP(n, SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint32_t)(value))
#define HAS_NOT(n, bits) SCMP_CMP(n, SCMP_CMP_MASKED_EQ, bits, 0)

/* Allow a system call if all conditions hold. */
#define ALLOW(call, ...)                                                       \
	(e = e < 0 ? e                                                         \
		   : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(call),     \
			 sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) /        \
			     sizeof(struct scmp_arg_cmp),                      \
			 ##__VA_ARGS__))

static bool
filter(xentoollog_logger *log, const struct sandbox *sandbox)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int e = ctx == NULL ? -ENOMEM : 0;

	/* Event channels: */
	ALLOW(read, IS(0, sandbox->events));
	ALLOW(write, IS(0, sandbox->events));
	ALLOW(ioctl, IS(0, sandbox->events), IS(1, IOCTL_EVTCHN_NOTIFY));
	/* The disk: */
	ALLOW(io_uring_enter, IS(0, sandbox->uring));
	ALLOW(io_uring_register, IS(0, sandbox->uring),
	    IS(1, IORING_UNREGISTER_FILES));
	ALLOW(fdatasync, IS(0, sandbox->sync));
	ALLOW(lseek, IS(0, sandbox->disk));
	ALLOW(pread64, IS(0, sandbox->disk));
	ALLOW(pwrite64, IS(0, sandbox->disk));
	ALLOW(preadv, IS(0, sandbox->disk));
	ALLOW(pwritev, IS(0, sandbox->disk));
	ALLOW(ioctl, IS(0, sandbox->disk), IS(1, BLKDISCARD));
	ALLOW(fallocate, IS(0, sandbox->disk));
	/* What we are told: */
	ALLOW(read, IS(0, sandbox->signals));
	/* Interrupts, and whether the guest exists: */
	ALLOW(ioctl, IS(1, IOCTL_PRIVCMD_DM_OP));
	/* Guest memory, for which Xen may want us to wait, and ours: */
	ALLOW(ioctl, IS(1, IOCTL_PRIVCMD_MMAPBATCH_V2));
	ALLOW(mmap, HAS_NOT(2, PROT_EXEC));
	ALLOW(munmap);
	ALLOW(brk);
	ALLOW(clock_nanosleep);
	/* To wait; there is no poll on Arm: */
#ifdef SYS_poll
	ALLOW(poll);
#endif
	ALLOW(ppoll);
	ALLOW(restart_syscall);
	ALLOW(sched_yield);
	/* To be ready, to log, to end; not all clocks are in the vDSO: */
	ALLOW(close, IS(0, STDOUT_FILENO));
	ALLOW(write, IS(0, STDOUT_FILENO));
	ALLOW(write, IS(0, STDERR_FILENO));
	ALLOW(clock_gettime);
	ALLOW(exit_group);
	/* What musl does to wait for Xen: */
	ALLOW(nanosleep);
	if (e == 0)
		e = seccomp_load(ctx);
	seccomp_release(ctx);
	return e == 0 || refused(log, "load a filter of system calls", -e);
}

bool
sandbox_enter(struct xentoollog_logger *log, const struct sandbox *sandbox)
{
	/* Who is not root cannot, and could not open much in there either. */
	if (geteuid() == 0 && !leave_files(log))
		return false;
	return drop_rights(log, sandbox->user) && filter(log, sandbox);
}
