# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# Nothing is served that was not asked for in so many words.
title 'Wrong arguments'

# refuses STATUS ARGUMENT...: whether vdisk exits so, with one line on stderr
refuses() {
	local status=$1 got=0
	shift
	timeout 10 vdisk "$@" > /run/out 2> /run/err || got=$?
	cat /run/out /run/err
	echo "exit status $got"
	[ "$got" = "$status" ] && [ ! -s /run/out ] && [ "$(wc -l < /run/err)" = 1 ]
}

image /tmp/disk 1
configure arguments 1 1
check 'a guest is created, paused' create arguments || return
domid=$(cat /run/arguments.domid)
check 'no arguments: usage, exit status 2' refuses 2
check 'a fifth argument: 2' refuses 2 "$domid" 0x2000000 33 /tmp/disk more
check 'a domain that is no number: 2' refuses 2 arguments 0x2000000 33 /tmp/disk
check 'an address that is no number: 2' refuses 2 "$domid" here 33 /tmp/disk
check 'an address that is not aligned: 2' refuses 2 "$domid" 0x2000004 33 /tmp/disk
check 'an IRQ below the SPIs: 2' refuses 2 "$domid" 0x2000000 31 /tmp/disk
check 'an IRQ above the SPIs: 2' refuses 2 "$domid" 0x2000000 1020 /tmp/disk
check 'a serial that is too long: 2' refuses 2 -s 123456789012345678901 \
    "$domid" 0x2000000 33 /tmp/disk
check 'a domain that does not exist: 1' refuses 1 4242 0x2000000 33 /tmp/disk
check 'dom0 itself: 1' refuses 1 0 0x2000000 33 /tmp/disk
check 'a file that does not exist: 1' refuses 1 "$domid" 0x2000000 33 /tmp/none
check 'a directory: 1' refuses 1 "$domid" 0x2000000 33 /tmp
check 'a character device: 1' refuses 1 "$domid" 0x2000000 33 /dev/zero
check 'after all that the right arguments are taken' \
    vdisk_start arguments 0 /tmp/disk
check 'the guest is destroyed before it ever ran' destroy arguments
check 'vdisk notices and exits with status 0 within 2 s' \
    vdisk_ended arguments 0 0 2
check 'no zombie is left' within 5 only_dom0
