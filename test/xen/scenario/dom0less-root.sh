# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2154
# make check-xen ONLY=dom0less-root: the guest that Xen itself makes has its root
# file system on a disk, which is there long after the guest's driver is.
. /check.sh

# reported TEXT: whether the guest has written this to its second disk
reported() {
	tr -d '\0' < /tmp/1 | grep "$1"
}

# make_root: its first disk, with the guest's programs, and these make it
make_root() {
	mkdir -p /tmp/tools/system
	(cd /tmp/tools && cpio -i < /guest/guest.cpio) &&
	    (cd /tmp/tools/system && cpio -i < /guest/guest.cpio) &&
	    cp /scenario/dom0less-root-system /tmp/tools/system/usr/sbin/init &&
	    image /tmp/tools/disk 48 &&
	    chroot /tmp/tools mkfs.ext4 -q -d /system /disk
}

title 'A guest from the device tree, with its root file system on vdisk'

image /tmp/1 1
echo 1 > /run/root.domid
check 'there is a root file system' make_root || return
check 'no xenstored runs' fails pidof xenstored
check 'vdisk serves a disk of domain 1' vdisk_start root 1 /tmp/1
check 'the guest, which was there first, finds it' within 60 reported 'without a root'
sleep 3
check 'and still waits for that with its root' fails reported 'root:'
check 'vdisk serves this, too' vdisk_start root 0 /tmp/tools/disk
check 'the guest boots from it' within 60 reported 'root: .* ext4 rw'
check 'its driver had failed to find either disk' within 60 reported 'failed probes: \([2-9]\|[1-9][0-9]\)'
check 'and came to no harm' within 60 reported 'troubles: 0'
check 'the guest works on its root file system' within 60 reported '^working'
sleep 2
vdisk_signal root 0 KILL
vdisk_wait root 0
check 'vdisk is killed, and another one serves the root' vdisk_start root 0 /tmp/tools/disk
check 'the guest goes on' within 120 reported '^end$'
tr -d '\0' < /tmp/1 > /run/check.out
figures
check 'every byte was right' reported 'every byte is right'
vdisk_signal root 0 TERM
check 'told to end, vdisk exits with status 0' vdisk_ended root 0 0 5
vdisk_signal root 1 TERM
check 'and so does the other' vdisk_ended root 1 0 5
check 'the file system is clean' chroot /tmp/tools e2fsck -fn /disk
conclude
