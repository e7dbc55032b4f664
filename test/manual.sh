#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The numbers in vdisk(8) are those of the source.
cd "$(dirname "$0")/.." || exit 1
status=0

# value NAME: what a macro of that name is
value() {
	sed -n "s/^#define $1[[:space:]]*\(UINT64_C(\)\{0,1\}\([0-9a-fx]*\).*/\2/p" ./*.[ch]
}

# says TEXT: whether the manual does, whatever its lines are
says() {
	tr '\n' ' ' < man/vdisk.8 | grep -q "$1" && return
	echo "vdisk.8 does not say: $1" >&2
	status=1
}

calls=$(grep -o '^	ALLOW([a-z0-9_]*' sandbox.c | sort -u | wc -l)
# A page of slots of 32 bytes less mark, state and the slot between.
vcpus=$((4096 / 32 - 1 - ($(value VIRTIO_MMIO_STATE_SIZE) + 31) / 32 - 1))
says "all but $calls system calls"
says "more than $vcpus vCPUs"
says "number is $(($(value DOMID_LIMIT) - 1));"
says "More than $(value POLL_US_MAX) microseconds"
says "0 (never) to $(value POLL_US_MAX)\."
says "The default is $(value POLL_US_DEFAULT), or the time of $(value POLL_WAKEUP_FACTOR) wake-ups"
says "no more than $(value AREAS_MAX) pieces"
says "has at most $(value MAX_IOREQ_SERVERS) IOREQ servers"
exit $status
