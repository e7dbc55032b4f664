# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2154
# A guest is saved to a file while it uses its disks, and restored with others.
[ "$arch" = amd64 ] || { skip "save and restore: Xen has none on Arm"; return; }
title 'Saved under load, and restored'


image /tmp/0 32
image /tmp/1 4
configure sleeper 1 2
check 'a guest is created, paused' create sleeper || return
check 'its first vdisk is ready' vdisk_start sleeper 0 /tmp/0 || return
check 'its second vdisk is ready' vdisk_start sleeper 1 /tmp/1 || return
check 'the guest boots' start sleeper || return
check 'it has a file on the first' do_in sleeper 'mkfs.ext4 -q /dev/vda &&
	mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/file bs=1M count=4 2>/dev/null;
	sha256sum /mnt/file > /tmp/sum; sync'
do_in sleeper '(while [ ! -e /tmp/stop ]; do
	dd if=/dev/urandom of=/mnt/load bs=64k count=16 conv=fsync; done) > /dev/null 2>&1 &'
do_in sleeper '(while [ ! -e /tmp/stop ]; do verify -t 2 -s 2 /dev/vdb; done) > /tmp/verify 2>&1 &'
sleep 5
check 'under load it is saved' timeout 200 xl save sleeper /tmp/saved
check 'its first vdisk exits with status 0 within 2 s' vdisk_ended sleeper 0 0 2
check 'and so does the second' vdisk_ended sleeper 1 0 2
check 'no zombie is left' within 5 only_dom0
mv /log/guest-sleeper.log /log/guest-asleep.log
check 'it is restored, paused' xl restore -p /tmp/saved
moved sleeper
check 'a new vdisk serves the first' vdisk_start sleeper 0 /tmp/0 || return
check 'another the second' vdisk_start sleeper 1 /tmp/1 || return
xl unpause sleeper
sleep 5
patience=200
check 'the file is right' do_in sleeper 'sha256sum -c /tmp/sum'
check 'the load goes on' do_in sleeper 'n=$(grep -c right /tmp/verify);
	until [ $(grep -c right /tmp/verify) -gt $((n + 1)) ]; do sleep 1; done'
check 'every byte was right all the time' do_in sleeper 'touch /tmp/stop; wait;
	sleep 5; cat /tmp/verify; grep -q right /tmp/verify && ! grep errors /tmp/verify'
check 'the file system can be unmounted' do_in sleeper 'umount /mnt'
check 'it is clean' do_in sleeper 'e2fsck -fn /dev/vda'
check 'no sector of the second is torn or old in dom0' verify -c -g 1 /tmp/1
check 'the guest had nothing to complain about' without_trouble sleeper
destroy sleeper
check 'its first vdisk exits with status 0 within 2 s' vdisk_ended sleeper 0 0 2
check 'and so does the second' vdisk_ended sleeper 1 0 2
check 'no zombie is left' within 5 only_dom0
