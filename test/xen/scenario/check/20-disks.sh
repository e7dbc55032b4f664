# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016
# Disks as a user has them: several on a guest, a file system that outlives it,
# one that must not be written.
title 'Two disks on one guest'

image /tmp/first 48
image /tmp/second 16
losetup /dev/loop0 /tmp/second
configure disks 2 2
check 'a guest with two disks is created, paused' create disks || return
check 'a file is served as the first' vdisk_start disks 0 /tmp/first -s FIRST || return
check 'a block device is served as the second' \
    vdisk_start disks 1 /dev/loop0 --serial=SECOND || return
check 'the guest boots' start disks || return
check 'what its kernel says is not what a command prints' \
    says 'one two' do_in disks 'printf "one "; echo "<4>in between" > /dev/kmsg; echo two'
check 'it sees the first in the right size' \
    says 98304 do_in disks 'cat /sys/block/vda/size'
check 'it sees the second in the right size' \
    says 32768 do_in disks 'cat /sys/block/vdb/size'
check 'each with its serial' \
    says 'FIRST SECOND' do_in disks 'echo $(cat /sys/block/vda/serial; echo; cat /sys/block/vdb/serial)'
check 'neither is read-only' says '0 0' do_in disks 'echo $(cat /sys/block/vd[ab]/ro)'
check 'a file system is made on the first' \
    do_in disks 'mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt'
check 'files are written there, with their checksums' \
    do_in disks 'cd /mnt && for n in 1 2 3 4 5 6 7 8; do
	dd if=/dev/urandom of=$n bs=77777 count=$n 2>/dev/null; done;
	sha256sum ? > sums'
check 'it is unmounted' do_in disks 'cd / && umount /mnt'
check 'the second is filled' \
    do_in disks 'dd if=/dev/urandom of=/dev/vdb bs=64k count=256 conv=fsync'
check 'what the guest wrote is in the block device, byte for byte' \
    says "$(do_in disks 'sha256sum < /dev/vdb')" sh -c 'sha256sum < /tmp/second'
check 'the guest is destroyed' destroy disks
check 'the first vdisk exits with status 0 within 2 s' vdisk_ended disks 0 0 2
check 'and so does the second' vdisk_ended disks 1 0 2
check 'no zombie is left' within 5 only_dom0
check 'the guest had nothing to complain about' without_trouble disks

title 'The same disks on a new guest, the second read-only'

before=$(sha256sum < /tmp/second)
configure again 2 2
check 'the guest is created again' create again || return
check 'the first disk is served as before' vdisk_start again 0 /tmp/first || return
check 'the second is served read-only' vdisk_start again 1 /dev/loop0 -r || return
check 'the guest boots' start again || return
check 'the file system is clean' do_in again 'e2fsck -fn /dev/vda'
check 'it can be mounted' do_in again 'mount /dev/vda /mnt'
check 'all files are as they were written' \
    do_in again 'cd /mnt && sha256sum -c sums && cd / && umount /mnt'
check 'the guest knows that the second is read-only' \
    says 1 do_in again 'cat /sys/block/vdb/ro'
check 'writing to it fails' \
    fails do_in again 'dd if=/dev/zero of=/dev/vdb bs=4k count=16 conv=fsync'
check 'reading it does not' says "$before" do_in again 'sha256sum < /dev/vdb'
check 'its block device has not changed' says "$before" sh -c 'sha256sum < /tmp/second'
check 'the guest had nothing to complain about' without_trouble again
send_in again 'poweroff -f'
check 'the guest switches itself off and is gone' within 20 only_dom0
check 'the first vdisk exits with status 0 within 2 s' vdisk_ended again 0 0 2
check 'and so does the second' vdisk_ended again 1 0 2
