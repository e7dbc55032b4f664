/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The regular file or block device.  Owns how it is opened and locked, and its
 * limits as the host reports them.  Does not know what is read and written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/fs.h>
#include <linux/magic.h>

#include "disk.h"
#include "log.h"

#define LOCK_RETRIES 2000 /* ms that a predecessor may take to die */

/*
 * QEMU locks single bytes of an image: RAW_PERM_BASE + BLK_PERM_WRITE (it may
 * write) and RAW_SHARED_BASE + BLK_PERM_WRITE (others may not).
 */
#define QEMU_LOCK_WRITE	       101
#define QEMU_LOCK_SHARED_WRITE 201

/* A limit in sysfs, of a partition that of its disk; or 0. */
static uint64_t
queue_limit(dev_t dev, const char *name)
{
	unsigned long long value = 0;
	char path[80];
	FILE *f = NULL;

	for (int up = 0; up < 2 && f == NULL; up++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s",
		    major(dev), minor(dev), up ? "../" : "", name);
		f = fopen(path, "re");
	}
	if (f == NULL)
		return 0;
	(void)!fscanf(f, "%llu", &value);
	fclose(f);
	return value;
}

/*
 * The limits of a block device.  FALLOC_FL_PUNCH_HOLE on one needs write
 * zeroes, which thin volumes, for one, do not support.
 */
static bool
probe_device(struct disk *disk, dev_t dev)
{
	int alignment, read_only;

	if (ioctl(disk->fd, BLKSSZGET, &disk->logical_block) < 0 ||
	    ioctl(disk->fd, BLKPBSZGET, &disk->physical_block) < 0 ||
	    ioctl(disk->fd, BLKALIGNOFF, &alignment) < 0 ||
	    ioctl(disk->fd, BLKIOMIN, &disk->io_min) < 0 ||
	    ioctl(disk->fd, BLKIOOPT, &disk->io_opt) < 0)
		return log_error(disk->log, errno,
		    "cannot get the block sizes of %s", disk->path);
	/* open() for writing succeeds nevertheless. */
	if (!disk->read_only && ioctl(disk->fd, BLKROGET, &read_only) == 0 &&
	    read_only)
		return log_error(
		    disk->log, EROFS, "cannot write %s", disk->path);
	disk->alignment = MAX(alignment, 0); /* -1: not known */
	if (queue_limit(dev, "discard_max_bytes") > 0)
		disk->discard_granularity =
		    queue_limit(dev, "discard_granularity");
	disk->discard_only = queue_limit(dev, "write_zeroes_max_bytes") == 0;
	return true;
}

/*
 * The limits of a regular file.  It takes any sectors, but performs best with
 * blocks of its file system; those above a page matter for throughput only.
 */
static void
probe_file(struct disk *disk, uint32_t block, bool direct)
{
	struct statfs fs;

	if (block < SECTOR || !powerof2(block))
		block = SECTOR;
	disk->logical_block = SECTOR;
	disk->physical_block = disk->io_min = MIN(block, 4096);
	disk->io_opt = block > 4096 ? block : 0;
	/* Probed beyond the end of file; a shortage is not for ever. */
	if (fallocate(disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		disk->size, block) == 0 ||
	    errno == ENOSPC || errno == EDQUOT || errno == ENOMEM ||
	    errno == EINTR)
		disk->discard_granularity = disk->physical_block;
	disk->on_tmpfs =
	    !direct && fstatfs(disk->fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/*
 * Lock the file against any conflicting vdisk or QEMU.  Open file description
 * locks are released with the last reference, which a last write may have.
 */
static int
lock(int fd, bool read_only)
{
	struct flock all = {F_WRLCK, SEEK_SET, 0, 0, 0};
	struct flock reader = {F_RDLCK, SEEK_SET, QEMU_LOCK_SHARED_WRITE, 1, 0};
	struct flock writer = {F_WRLCK, SEEK_SET, QEMU_LOCK_WRITE, 1, 0};

	if (!read_only)
		return fcntl(fd, F_OFD_SETLK, &all);
	if (fcntl(fd, F_OFD_SETLK, &reader) < 0 ||
	    fcntl(fd, F_OFD_GETLK, &writer) < 0)
		return -1;
	errno = EAGAIN;
	return writer.l_type == F_UNLCK ? 0 : -1;
}

/*
 * 'sync' is opened before a predecessor has died: a writeback error that it did
 * not learn of is reported to those that had the file open by then.
 */
static bool
open_file(struct disk *disk, int oflags, bool exclusive)
{
	xentoollog_logger *log = disk->log;
	bool read_only = disk->read_only;
	unsigned tries = 0;

	do {
		if (disk->sync < 0)
			disk->sync = open(disk->path, oflags);
		/* O_EXCL also excludes mounts of a block device. */
		if (!disk->device || !exclusive || read_only)
			disk->fd = disk->sync;
		else if (disk->fd < 0)
			disk->fd = open(disk->path, oflags | O_EXCL);
		if (disk->fd >= 0 &&
		    (!exclusive || lock(disk->fd, read_only) == 0))
			return true;
	} while ((errno == EAGAIN || errno == EBUSY) &&
		 tries++ < LOCK_RETRIES && usleep(1000) == 0);
	if (errno == EAGAIN || errno == EBUSY)
		return log_error(log, -1,
		    "%s is in use by another vdisk or another program",
		    disk->path);
	if (disk->fd >= 0)
		return log_error(log, errno, "cannot lock %s", disk->path);
	return log_error(log, errno,
	    read_only ? "cannot read %s" : "cannot write %s", disk->path);
}

/*
 * No medium, and an empty memfd in its place.  Features are negotiated once, so
 * those are offered that most media will have.
 */
static bool
open_empty(struct disk *disk, unsigned flags)
{
	disk->empty = true;
	disk->logical_block = disk->physical_block = disk->io_min = SECTOR;
	disk->discard_granularity = flags & DISK_NO_DISCARD ? 0 : 4096;
	disk->discard_only = true; /* the least of what can be discarded */
	disk->fd = disk->sync = memfd_create(DISK_NONE, MFD_CLOEXEC);
	return disk->fd >= 0 || log_error(disk->log, errno,
				    "cannot get memory for %s", disk->path);
}

bool
disk_open(struct disk *disk, struct xentoollog_logger *log, const char *path,
    unsigned flags)
{
	int oflags = (flags & DISK_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	char opened[32];
	struct stat st;

	*disk = (struct disk){
	    .log = log, .path = path, .fd = -1, .sync = -1, .direct = -1};
	disk->read_only = flags & DISK_READ_ONLY;
	if (strcmp(path, DISK_NONE) == 0)
		return open_empty(disk, flags);
	/* To open anything else may block or have side effects. */
	if (stat(path, &st) < 0)
		return log_error(log, errno, "cannot find %s", path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return log_error(log, -1,
		    "%s is neither a regular file nor a block device", path);
	disk->device = S_ISBLK(st.st_mode);
	if (!open_file(disk, oflags, !(flags & DISK_NO_LOCK)) ||
	    !disk_update_size(disk))
		return false;
	if (!disk->device)
		probe_file(disk, st.st_blksize, flags & DISK_DIRECT);
	else if (!probe_device(disk, st.st_rdev))
		return false;
	if (flags & DISK_NO_DISCARD)
		disk->discard_granularity = 0;
	if (!(flags & DISK_DIRECT))
		return true;
	snprintf(opened, sizeof(opened), "/proc/self/fd/%d", disk->fd);
	disk->direct = open(opened, oflags | O_DIRECT);
	return disk->direct >= 0 ||
	       log_error(log, errno, "cannot do direct I/O on %s", path);
}

bool
disk_update_size(struct disk *disk)
{
	/* Works for block devices, too, and in the sandbox. */
	off_t size = lseek(disk->fd, 0, SEEK_END);

	if (size < 0)
		return log_error(
		    disk->log, errno, "cannot get the size of %s", disk->path);
	if (size < SECTOR && !disk->empty)
		return log_error(disk->log, -1,
		    "%s is smaller than one sector of 512 bytes", disk->path);
	if (size % SECTOR != 0)
		log_msg(disk->log, XTL_WARN, -1,
		    "the last %u bytes of %s are not a whole sector and are "
		    "ignored",
		    (unsigned)(size % SECTOR), disk->path);
	disk->size = size;
	return true;
}
