# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2013,SC2154
# What checks of guest memory are written with.

# taken NAME N: KiB of the guest's memory that the vdisk has mapped
taken() {
	local from to sum=0
	for range in $(grep privcmd "/proc/$(cat "/run/$1-$2.pid")/maps" | cut -d ' ' -f 1); do
		from=${range%-*} to=${range#*-}
		sum=$((sum + (0x$to - 0x$from) / 1024))
	done
	echo "$sum"
}

# at_most LIMIT COMMAND...: whether the number that it prints is no larger
at_most() {
	local limit=$1 number
	shift
	number=$("$@")
	echo "$number KiB, at most $limit"
	[ "$number" -le "$limit" ]
}

# silent: whether dom0's kernel has had nothing to say since 'said' was set
silent() {
	dmesg | tail -n "+$((said + 1))" | grep -v -i 'loop\|ext4' > /run/said
	cat /run/said
	! grep -q -i 'xen\|alloc\|oom\|warn\|bug' /run/said
}
