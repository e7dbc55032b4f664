/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The regular file or block device that holds the disk's bytes.  Owns how it is
 * found, opened and locked, and what the host tells of it.  Does not know what
 * is read and written, or by whom.
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
#include <xentoollog.h>

#include "disk.h"

/* How long a predecessor may take to die, in hundredths of a second. */
#define PATIENCE 200

/*
 * QEMU locks single bytes of an image.  One tells that somebody writes, the
 * other that somebody relies on nobody else writing.
 */
#define WRITER	   101
#define NO_WRITERS 201

static bool
cannot(const struct disk *disk, const char *what)
{
	xtl_log(disk->log, XTL_ERROR, errno, "vdisk", "cannot %s %s", what,
	    disk->path);
	return false;
}

static bool
unfit(const struct disk *disk, const char *why)
{
	xtl_log(disk->log, XTL_ERROR, -1, "vdisk", "%s %s", disk->path, why);
	return false;
}

/*
 * What sysfs says of the queue of the device, or of the one that it is a
 * partition of; 0 if it says nothing.
 */
static uint64_t
queue_limit(dev_t dev, const char *name)
{
	static const char *const places[] = {"", "../"};
	unsigned long long value = 0;
	char path[80];
	FILE *f = NULL;

	for (unsigned i = 0; i < 2 && f == NULL; i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s",
		    major(dev), minor(dev), places[i], name);
		f = fopen(path, "re");
	}
	if (f == NULL)
		return 0;
	if (fscanf(f, "%llu", &value) != 1)
		value = 0;
	fclose(f);
	return value;
}

/*
 * What a device likes.  Linux makes holes in one by telling it to write zeros,
 * which many cannot: thin volumes, for one.
 */
static bool
describe_device(struct disk *disk, dev_t dev)
{
	int logical, alignment, read_only;

	if (ioctl(disk->fd, BLKSSZGET, &logical) < 0 ||
	    ioctl(disk->fd, BLKPBSZGET, &disk->physical) < 0 ||
	    ioctl(disk->fd, BLKALIGNOFF, &alignment) < 0 ||
	    ioctl(disk->fd, BLKIOMIN, &disk->io_min) < 0 ||
	    ioctl(disk->fd, BLKIOOPT, &disk->io_opt) < 0)
		return cannot(disk, "get the block sizes of");
	/* Which can be opened for writing all the same. */
	if (!disk->read_only && ioctl(disk->fd, BLKROGET, &read_only) == 0 &&
	    read_only) {
		errno = EROFS;
		return cannot(disk, "write");
	}
	disk->logical = logical;
	disk->alignment = MAX(alignment, 0); /* -1: not known */
	if (queue_limit(dev, "discard_max_bytes") > 0)
		disk->hole = queue_limit(dev, "discard_granularity");
	disk->discard_only = queue_limit(dev, "write_zeroes_max_bytes") == 0;
	return true;
}

/*
 * What a file likes.  It can be read and written by sectors, but does that best
 * by the blocks of its file system; those above a page are a matter of
 * throughput only.
 */
static void
describe_file(struct disk *disk, uint32_t block, bool direct)
{
	struct statfs fs;

	if (block < SECTOR || !powerof2(block))
		block = SECTOR;
	disk->logical = SECTOR;
	disk->physical = MIN(block, 4096);
	disk->io_min = MIN(block, 4096);
	disk->io_opt = block > 4096 ? block : 0;
	/* Whether it can have holes is tried out behind the end. */
	if (fallocate(disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		disk->size, block) == 0)
		disk->hole = disk->physical;
	disk->in_memory =
	    !direct && fstatfs(disk->fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/*
 * Lock the file against any other vdisk and any QEMU that could do harm: these
 * are locks of the open file, which end when its last user does, and that is
 * the kernel doing our last write.
 */
static int
lock(int fd, bool read_only)
{
	struct flock all = {.l_type = F_WRLCK};
	struct flock reader = {
	    .l_type = F_RDLCK, .l_start = NO_WRITERS, .l_len = 1};
	struct flock writer = {
	    .l_type = F_WRLCK, .l_start = WRITER, .l_len = 1};

	if (!read_only)
		return fcntl(fd, F_OFD_SETLK, &all);
	if (fcntl(fd, F_OFD_SETLK, &reader) < 0 ||
	    fcntl(fd, F_OFD_GETLK, &writer) < 0)
		return -1;
	errno = EAGAIN;
	return writer.l_type == F_UNLCK ? 0 : -1;
}

/*
 * Open the file, alone if need be.  It is opened before a predecessor has died,
 * too: what Linux tells that one in vain, of data that could not be written, it
 * tells whoever had the file open by then.
 */
static bool
open_file(struct disk *disk, unsigned how)
{
	bool read_only = disk->read_only, alone = !(how & DISK_NO_LOCK);
	int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	unsigned tries = 0;

	do {
		if (disk->sync < 0)
			disk->sync = open(disk->path, flags);
		/* A device is also ours against mounts and the like. */
		if (!disk->device || !alone || read_only)
			disk->fd = disk->sync;
		else if (disk->fd < 0)
			disk->fd = open(disk->path, flags | O_EXCL);
		if (disk->fd >= 0 && (!alone || lock(disk->fd, read_only) == 0))
			return true;
	} while ((errno == EAGAIN || errno == EBUSY) && tries++ < PATIENCE &&
		 usleep(10000) == 0);
	if (errno == EAGAIN || errno == EBUSY)
		return unfit(
		    disk, "is in use by another vdisk or another program");
	if (disk->fd >= 0)
		return cannot(disk, "lock");
	return cannot(disk, read_only ? "read" : "write");
}

/*
 * Open it once more, for I/O without the page cache.
 */
static bool
open_direct(struct disk *disk)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", disk->fd);
	disk->direct = open(
	    path, (disk->read_only ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC);
	return disk->direct >= 0 || cannot(disk, "do direct I/O on");
}

/*
 * No medium, and a descriptor that has nothing behind it.  A driver chooses once
 * from what is offered, so all is offered that most media will have.
 */
static bool
open_empty(struct disk *disk, unsigned how)
{
	disk->empty = true;
	disk->logical = disk->physical = disk->io_min = SECTOR;
	disk->hole = how & DISK_NO_HOLES ? 0 : 4096;
	disk->discard_only = true; /* the least of what can be discarded */
	disk->fd = disk->sync = memfd_create(DISK_NONE, MFD_CLOEXEC);
	return disk->fd >= 0 || cannot(disk, "get memory for");
}

bool
disk_open(struct disk *disk, struct xentoollog_logger *log, const char *path,
    unsigned how)
{
	struct stat st;

	*disk = (struct disk){
	    .log = log, .path = path, .fd = -1, .sync = -1, .direct = -1};
	disk->read_only = how & DISK_READ_ONLY;
	if (strcmp(path, DISK_NONE) == 0)
		return open_empty(disk, how);
	/* Merely to open something else can block or have effects. */
	if (stat(path, &st) < 0)
		return cannot(disk, "find");
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return unfit(
		    disk, "is neither a regular file nor a block device");
	disk->device = S_ISBLK(st.st_mode);
	if (!open_file(disk, how) || !disk_measure(disk))
		return false;
	if (!disk->device)
		describe_file(disk, st.st_blksize, how & DISK_DIRECT);
	else if (!describe_device(disk, st.st_rdev))
		return false;
	if (how & DISK_NO_HOLES)
		disk->hole = 0;
	return !(how & DISK_DIRECT) || open_direct(disk);
}

bool
disk_measure(struct disk *disk)
{
	/* Of a device, too; and it takes no more than the descriptor. */
	off_t size = lseek(disk->fd, 0, SEEK_END);

	if (size < 0)
		return cannot(disk, "get the size of");
	if (size < SECTOR && !disk->empty)
		return unfit(disk, "is smaller than one sector of 512 bytes");
	if (size % SECTOR != 0)
		xtl_log(disk->log, XTL_WARN, -1, "vdisk",
		    "the last %u bytes of %s are not a whole sector, and are "
		    "not part of the disk",
		    (unsigned)(size % SECTOR), disk->path);
	disk->size = size;
	return true;
}
