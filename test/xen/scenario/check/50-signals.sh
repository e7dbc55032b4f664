# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016
# vdisk is told to end.  It must not break off what it has begun.  The guest has
# no disk afterwards and its vCPUs wait for it, so it is asked everything before.
title 'Signals under load'

image /tmp/0 8
image /tmp/1 8
image /tmp/2 8
configure signals 4 3
check 'a guest with three disks is created, paused' create signals || return
check 'the first vdisk is ready' vdisk_start signals 0 /tmp/0 || return
check 'the second vdisk is ready' vdisk_start signals 1 /tmp/1 || return
check 'the third vdisk is ready' vdisk_start signals 2 /tmp/2 || return
check 'the guest boots' start signals || return
do_in signals 'for d in a b c; do verify -p -t 4 /dev/vd$d > /tmp/$d 2>&1 & done'
check 'all three disks are under load' \
    within 20 do_in signals 'grep -q generation /tmp/a && grep -q generation /tmp/b && grep -q generation /tmp/c'
written=$(do_in signals 'for d in a b c; do tail -n 1 /tmp/$d; done')

# A shell has its background processes ignore SIGINT, and so does what it starts.
vdisk_signal signals 2 INT
disk=0
for signal in TERM HUP; do
	vdisk_signal signals "$disk" "$signal"
	check "SIG$signal: vdisk exits with status 0 within 2 s" \
	    vdisk_ended signals "$disk" 0 2
	disk=$((disk + 1))
done
check 'SIGINT, ignored when vdisk was started, stays so' fails vdisk_ended signals 2 0 2
vdisk_signal signals 2 TERM
check 'and SIGTERM ends it' vdisk_ended signals 2 0 2
disk=0
for generation in $(echo "$written" | sed -n 's/^generation //p'); do
	check "what disk $disk had acknowledged is in its file, and nothing is torn" \
	    verify -c -g "$generation" "/tmp/$disk"
	disk=$((disk + 1))
done
check 'the guest is destroyed' destroy signals
check 'no zombie is left' within 5 only_dom0
