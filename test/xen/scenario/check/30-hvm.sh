# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2046,SC2154
# What is different on x86: the interrupts are lines that go up and down, and
# there are guests that have none.
[ "$arch" = amd64 ] || { skip 'interrupts of an x86 guest, and PVH guests'; return; }
title 'Four disks with the four interrupts of the ACPI table'

# interrupts NAME LINE KIND: how many of them the guest has had
interrupts() {
	do_in "$1" "awk '\$1 == \"$2:\" && /$3 *virtio/ { print \$2 + \$3 }' /proc/interrupts"
}
has_had_some() {
	[ "$(interrupts "$@")" -gt 0 ]
}

configure four 2 4
check 'a guest is created, paused' create four || return
for disk in 0 1 2 3; do
	image "/tmp/$disk" 4
	check "the vdisk of disk $disk is ready" vdisk_start four "$disk" "/tmp/$disk" || return
done
check 'the guest boots' start four || return
check 'all four are written and read at once; every byte is right' do_in four '
	for d in a b c d; do verify -t 2 -s 2 /dev/vd$d > /tmp/$d & done; wait;
	cat /tmp/[a-d]; [ $(cat /tmp/[a-d] | grep -c right) = 4 ]'
figures
check 'IRQ 5 is a level' has_had_some four 5 fasteoi
check 'IRQ 7 is an edge' has_had_some four 7 edge
check 'IRQ 10 is a level' has_had_some four 10 fasteoi
check 'IRQ 11 is a level' has_had_some four 11 fasteoi

# goes_on NAME N: whether a vdisk that is killed is followed by one that continues
goes_on() {
	vdisk_signal "$1" "$2" KILL
	vdisk_ended "$1" "$2" 137 5 && vdisk_start "$1" "$2" "/tmp/$2" &&
	    grep 'continuing from the state of a previous vdisk' "/log/$1-vdisk$2.err"
}

do_in four 'for d in a b; do verify -t 2 -s 20 /dev/vd$d > /tmp/$d 2>&1 & done'
for disk in 0 1 0 1 0 1; do
	sleep 2
	check "killed under load, the vdisk of disk $disk is followed by another" \
	    goes_on four "$disk"
done
patience=120 check 'every byte was right all the time' do_in four 'wait;
	cat /tmp/a /tmp/b; [ $(cat /tmp/a /tmp/b | grep -c right) = 2 ]'
figures
check 'the guest had nothing to complain about' without_trouble four
check 'the guest is destroyed' destroy four
for disk in 0 1 2 3; do
	check 'vdisk exits with status 0 within 2 s' vdisk_ended four "$disk" 0 2
done
check 'no zombie is left' within 5 only_dom0

title 'A PVH guest'

configure pvh 1 0
sed -i 's/"hvm"/"pvh"/; /acpi_firmware/d' /log/pvh.cfg
check 'it is created, paused' create pvh || return
check 'vdisk refuses it with status 1 and one line' \
    refuses 1 "$(cat /run/pvh.domid)" $(place 0) /tmp/0
check 'which says why' grep 'not an HVM guest' /run/err
check 'the guest is destroyed' destroy pvh
check 'no zombie is left' within 5 only_dom0
