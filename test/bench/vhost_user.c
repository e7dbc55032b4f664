/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user disk, such as qemu-storage-daemon exports: as much of the front
 * end as one queue takes.  Its command finds a listening socket as descriptor
 * 3.  Owns the guest memory, the connection and the two eventfds.
 */
#include <err.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vhost_types.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#include "ring.h"
#include "transport.h"

#define GPA 0x40000000ULL

#define FEATURES                                                               \
	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC |    \
	    1ULL << VIRTIO_RING_F_EVENT_IDX | 1ULL << VIRTIO_BLK_F_FLUSH |     \
	    1ULL << VIRTIO_BLK_F_SEG_MAX)

/* Requests of the vhost-user protocol. */
enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
};

struct memory {
	uint32_t regions, padding;
	uint64_t gpa, size, user, offset;
};

struct message {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct vhost_vring_state state;
		struct vhost_vring_addr addr;
		struct memory memory;
	} __attribute__((packed)) u;
} __attribute__((packed));

#define HEADER	     offsetof(struct message, u)
#define VERSION_FLAG 1

static pid_t child;
static int connection = -1, kick = -1, call = -1;
static uint64_t doorbells, interrupts;
static struct samples doorbell;

static void
send_message(uint32_t request, const void *body, uint32_t size, int fd)
{
	struct message m = {
	    .request = request, .flags = VERSION_FLAG, .size = size};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = &m, .iov_len = HEADER + size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (size > 0)
		memcpy(&m.u, body, size);
	if (fd != -1) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	if (sendmsg(connection, &msg, 0) != (ssize_t)(HEADER + size))
		err(1, "vhost-user message");
}

static uint64_t
get_features(void)
{
	struct message m;
	size_t size = HEADER + sizeof(m.u.u64);

	send_message(GET_FEATURES, NULL, 0, -1);
	if (recv(connection, &m, size, MSG_WAITALL) != (ssize_t)size ||
	    m.request != GET_FEATURES)
		errx(1, "the disk does not answer");
	return m.u.u64;
}

static _Noreturn void
become_disk(char **argv, int cpu, int listener)
{
	if (dup2(listener, 3) == -1)
		err(1, "socket");
	become(argv, cpu);
}

static void
start_disk(char **argv, int cpu)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	/* The kernel picks a name that is not a file. */
	if (listener == -1 ||
	    bind(listener, (void *)&addr, sizeof(addr.sun_family)) == -1 ||
	    listen(listener, 1) == -1 ||
	    getsockname(listener, (void *)&addr, &len) == -1)
		err(1, "socket");
	child = fork();
	if (child == -1)
		err(1, "fork");
	if (child == 0)
		become_disk(argv, cpu, listener);
	connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection == -1 || connect(connection, (void *)&addr, len) == -1)
		err(1, "connect");
	close(listener);
}

void
transport_start(struct ring *r, uint64_t ram, char **argv, int cpu)
{
	int memory = memfd_create("guest", MFD_CLOEXEC);
	uint8_t *at;
	uint64_t features = FEATURES;
	struct vhost_vring_state num = {.num = RING_NUM}, base = {.num = 0};
	struct vhost_vring_addr addr;
	struct memory table;
	uint64_t queue = 0;

	if (memory == -1 || ftruncate(memory, ram) == -1 ||
	    (at = mmap(NULL, ram, PROT_READ | PROT_WRITE, MAP_SHARED, memory,
		 0)) == MAP_FAILED)
		err(1, "guest memory");
	ring_init(r, at, GPA, ram);
	kick = eventfd(0, EFD_CLOEXEC);
	call = eventfd(0, EFD_CLOEXEC);
	start_disk(argv, cpu);

	table = (struct memory){
	    .regions = 1, .gpa = GPA, .size = ram, .user = (uintptr_t)at};
	addr = (struct vhost_vring_addr){
	    .desc_user_addr = (uintptr_t)r->desc,
	    .avail_user_addr = (uintptr_t)r->avail,
	    .used_user_addr = (uintptr_t)r->used,
	};
	send_message(SET_OWNER, NULL, 0, -1);
	if ((get_features() & features) != features)
		errx(1, "the disk lacks a feature");
	send_message(SET_FEATURES, &features, sizeof(features), -1);
	send_message(SET_MEM_TABLE, &table, sizeof(table), memory);
	send_message(SET_VRING_NUM, &num, sizeof(num), -1);
	send_message(SET_VRING_BASE, &base, sizeof(base), -1);
	send_message(SET_VRING_ADDR, &addr, sizeof(addr), -1);
	send_message(SET_VRING_CALL, &queue, sizeof(queue), call);
	send_message(SET_VRING_KICK, &queue, sizeof(queue), kick);
	get_features(); /* answered when all before is done */
	/* The disk made it non-blocking, for itself and so for us. */
	fcntl(call, F_SETFL, 0);
}

pid_t
transport_pid(void)
{
	return child;
}

void
transport_kick(void)
{
	uint64_t begin = now(), one = 1;

	doorbells++;
	if (write(kick, &one, sizeof(one)) == -1)
		err(1, "kick");
	sample(&doorbell, now() - begin);
}

void
transport_interrupt(void)
{
	uint64_t count;

	if (read(call, &count, sizeof(count)) == -1)
		err(1, "interrupt");
	interrupts++;
}

void
transport_reset(void)
{
	doorbells = interrupts = 0;
	doorbell.n = 0;
}

void
transport_report(FILE *f, uint64_t requests)
{
	double n = requests;

	fprintf(f, ", \"doorbells\": %.5f, \"interrupts\": %.5f", doorbells / n,
	    interrupts / n);
	report_samples(f, "doorbell_ns", &doorbell);
}
