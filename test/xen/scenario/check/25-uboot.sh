# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2154
# U-Boot as a guest, with a driver of its own, which polls, has one request at a time
# and knows neither indirect descriptors nor event indices.
if [ ! -e /guest/u-boot ]; then
	skip 'U-Boot as a guest: on Arm only'
	return
fi
# Its first read of its flash memory, which is mapped, is a translation fault, and 4.21
# hands it on to the guest; 4.22 looks for the page first, and 4.20 has no such fault.
if [ "$xen_minor" = 21 ]; then
	skip "U-Boot as a guest: Xen 4.21 aborts what it reads of its flash memory"
	return
fi
. /uboot.sh
title 'U-Boot copies a file'

# It reads the file again and again until there is something near the end of its disk,
# where it reads more than its block cache takes.  Then whatever turns out as it should
# leaves a mark, which is the file's first sector: on the second and on the third disk
# behind the copy of the file, and on the third in the places after that.
check 'U-Boot has a disk with a script and a file' bootable /tmp/0 <<'END'
load virtio 0:1 44000000 file
mw.q 46000000 0 800
while itest.l *46000000 == 0; do
	mw.q 45000000 0 20000
	load virtio 0:1 45000000 file
	cmp.b 44000000 45000000 100000 || poweroff
	virtio dev 0
	virtio read 46000000 7fe0 20
done
for disk in 1 2; do
	virtio dev $disk
	virtio write 44000000 0 800
	mw.q 45000000 0 20000
	virtio read 45000000 0 800
	cmp.b 44000000 45000000 100000 && virtio write 44000000 800 1
done
virtio dev 2
if virtio read 45000000 2000 1; then true; else virtio write 44000000 801 1; fi
if virtio write 45000000 1fff 2; then true; else virtio write 44000000 802 1; fi
virtio dev 3
if virtio write 44000000 0 1; then true; else
	virtio dev 2
	virtio write 44000000 803 1
fi
poweroff
END
for n in 1 2 3; do
	image "/tmp/$n" 4
done
configure_uboot uboot 4
check 'a guest with four disks is created, paused' create uboot || return
check 'the disk is served as the first' vdisk_start uboot 0 /tmp/0 || return
check 'an empty one as the second' vdisk_start uboot 1 /tmp/1 || return
check 'an empty one for a driver of version 1 as the third' \
    vdisk_start uboot 2 /tmp/2 --legacy || return
check 'one that must not be written as the fourth' vdisk_start uboot 3 /tmp/3 -r || return
xl unpause uboot
check 'it runs the script' within 60 grep -q 'were the same' /log/guest-uboot-vuart0.log
for n in 1 2 3 4 5; do
	sleep 0.2
	vdisk_signal uboot 0 KILL
	vdisk_wait uboot 0
	check "the first vdisk, killed, is started again: $n" vdisk_start uboot 0 /tmp/0 || return
done
head -c 512 /tmp/file | dd of=/tmp/0 bs=512 seek=32736 conv=notrunc 2>/dev/null
check 'it has done what the script says and switches itself off' within 60 only_dom0

# copied DISK MARKS: whether it has the file, so many marks, and zeros
copied() {
	{
		cat /tmp/file
		for _ in $(seq "$2"); do
			head -c 512 /tmp/file
		done
		head -c $((3 * 1048576 - 512 * $2)) /dev/zero
	} | cmp - "$1"
}
check 'the second disk has the file, which could be read again' copied /tmp/1 1
check 'so has the third; nothing beyond its end could be read or written, nor the fourth' \
    copied /tmp/2 4
image /tmp/zeros 4
check 'the fourth is as it was' cmp /tmp/3 /tmp/zeros
for n in 0 1 2 3; do
	check "vdisk $n exits with status 0 within 2 s" vdisk_ended uboot "$n" 0 2
done
