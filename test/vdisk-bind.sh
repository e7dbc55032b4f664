#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# xen/vdisk-bind, with a directory in place of /sys: its driver binds a device when a
# disk is there for it.  make check-xen ONLY=dom0less-root has the real one.
set -u
cd "$(dirname "$0")/.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
passed=0
failed=0

# check NAME COMMAND...: the command must succeed
check() {
	name=$1
	shift
	rm -rf "$work/sys" "$work/hooks" "$work/init-premount"
	mkdir -p "$work/sys/bus/platform/devices/2000000.virtio" \
	    "$work/sys/bus/platform/devices/2000200.virtio" \
	    "$work/sys/bus/platform/drivers/virtio-mmio" "$work/hooks" "$work/init-premount"
	if "$@" > "$work/log" 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "vdisk-bind: $name: failed"
		sed 's/^/    /' "$work/log"
	fi
}

# bind DIRECTORY ARGUMENT...: call it as a file in that directory; what it prints and
# says is in $work/out and $work/err
bind() {
	directory=$work/$1
	shift
	mkdir -p "$directory"
	sed "s,/sys/,$work/sys/,g; s,/proc/cmdline,$work/cmdline,
	    s,/usr/share/initramfs-tools,$work," xen/vdisk-bind > "$directory/vdisk-bind"
	chmod +x "$directory/vdisk-bind"
	status=0
	timeout 12 "$directory/vdisk-bind" "$@" > "$work/out" 2> "$work/err" || status=$?
	cat "$work/out" "$work/err"
	return "$status"
}

# disk DEVICE NAME: now there is one, and the driver is told to look in time
disk() {
	tries=50
	until [ "$(cat "$work/sys/bus/platform/drivers/virtio-mmio/bind" 2> /dev/null)" = "$1" ]; do
		[ "$tries" -gt 0 ] || return 1
		tries=$((tries - 1))
		sleep 0.1
	done
	mkdir -p "$work/sys/bus/platform/devices/$1/driver" \
	    "$work/sys/bus/platform/devices/$1/virtio0/block/$2"
}

# refuses STATUS TEXT ARGUMENT...: with one line, which has TEXT in it
refuses() {
	wanted=$1
	text=$2
	shift 2
	bind . "$@"
	[ "$status" = "$wanted" ] && [ ! -s "$work/out" ] &&
	    [ "$(wc -l < "$work/err")" = 1 ] && grep -q "$text" "$work/err"
}

a_disk_that_comes_later() {
	(sleep 2; disk 2000000.virtio vda) &
	bind . 2000000.virtio
	wait
	[ "$status" = 0 ] && [ "$(cat "$work/out")" = vda ] &&
	    [ "$(cat "$work/err")" = 'vdisk-bind: waiting for 2000000.virtio' ]
}

a_disk_that_is_there() {
	mkdir -p "$work/sys/bus/platform/devices/2000000.virtio/driver" \
	    "$work/sys/bus/platform/devices/2000000.virtio/virtio3/block/vdb"
	bind . 2000000.virtio && [ "$(cat "$work/out")" = vdb ] && [ ! -s "$work/err" ] &&
	    [ ! -e "$work/sys/bus/platform/drivers/virtio-mmio/bind" ]
}

it_gives_up_in_time() {
	bind . 2000000.virtio 2
	[ "$status" = 1 ] && [ ! -s "$work/out" ] &&
	    [ "$(tail -n 1 "$work/err")" = 'vdisk-bind: no disk at 2000000.virtio after 2 s' ]
}

it_is_a_function_too() {
	mkdir -p "$work/sys/bus/platform/devices/2000000.virtio/virtio0/block/vda"
	bind . > /dev/null
	# shellcheck disable=SC1091
	(set -eu; . "$work/vdisk-bind"; vdisk_bind 2000000.virtio) > "$work/out" &&
	    [ "$(cat "$work/out")" = vda ]
}

the_kernel_line_names_the_devices() {
	echo 'ro vdisk=2000200.virtio,2000000.virtio root=LABEL=x' > "$work/cmdline"
	(disk 2000200.virtio vda; disk 2000000.virtio vdb) &
	bind init-premount
	wait
	[ "$status" = 0 ] && printf 'vdisk-bind: %s\n' '2000200.virtio is vda' \
	    '2000000.virtio is vdb' | cmp - "$work/out"
}

one_that_is_missing_does_not_hide_the_next() {
	echo 'vdisk=9.virtio,2000000.virtio vdisk_timeout=0' > "$work/cmdline"
	mkdir -p "$work/sys/bus/platform/devices/2000000.virtio/virtio0/block/vda"
	bind init-premount &&
	    [ "$(cat "$work/out")" = 'vdisk-bind: 2000000.virtio is vda' ] &&
	    grep -q "no device '9.virtio'" "$work/err"
}

nothing_is_named() {
	echo 'ro quiet' > "$work/cmdline"
	bind init-premount && [ ! -s "$work/out" ] && [ ! -s "$work/err" ]
}

the_hook_adds_the_drivers() {
	# shellcheck disable=SC2016 # not yet
	echo 'manual_add_modules() { echo "$*"; }' > "$work/hook-functions"
	bind hooks && [ "$(cat "$work/out")" = 'virtio_mmio virtio_blk' ]
}

nothing_is_needed_before() {
	bind hooks prereqs && [ ! -s "$work/out" ] && bind init-premount prereqs &&
	    [ ! -s "$work/out" ]
}

check 'no device named' refuses 2 'usage: vdisk-bind DEVICE'
check 'no such device' refuses 1 "no device '9.virtio'" 9.virtio
check 'an empty name' refuses 2 'usage' ''
check 'no seconds' refuses 1 "'soon' is no number" 2000000.virtio soon
check 'a disk later' a_disk_that_comes_later
check 'a disk before' a_disk_that_is_there
check 'no disk' it_gives_up_in_time
check 'sourced' it_is_a_function_too
check 'boot script' the_kernel_line_names_the_devices
check 'boot script, one missing' one_that_is_missing_does_not_hide_the_next
check 'boot script, none named' nothing_is_named
check 'hook' the_hook_adds_the_drivers
check 'prereqs' nothing_is_needed_before
echo "vdisk-bind: $passed passed, $failed failed"
[ "$failed" = 0 ]
