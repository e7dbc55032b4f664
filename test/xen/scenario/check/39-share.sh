# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# One process for a disk: what the host's kernel limits is that disk.
title 'A share of a disk'

# hundredths COMMAND: how long that takes the guest, in hundredths of a second
hundredths() {
	do_in sharer "read -r a _ < /proc/uptime; $1 2> /dev/null; read -r b _ < /proc/uptime;
		echo \$((\${b%.*}\${b#*.} - \${a%.*}\${a#*.}))"
}
takes() {
	local took
	took=$(hundredths "$2")
	echo "$took hundredths of a second"
	[ "$took" "$1" 500 ]
}

mkdir -p /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +io > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/sharer
image /tmp/0 16
losetup /dev/loop0 /tmp/0
configure sharer 1 1
check 'a guest is created, paused' create sharer || return
check 'a device is served with direct I/O' vdisk_start sharer 0 /dev/loop0 --direct || return
check 'the guest boots' start sharer || return
write='dd if=/dev/zero of=/dev/vda bs=64k count=64 oflag=direct'
read='dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct'
check 'it writes 4 MiB at once' takes -lt "$write"
check 'it reads them at once' takes -lt "$read"
cat /run/sharer-0.pid > /sys/fs/cgroup/sharer/cgroup.procs
echo "$(cat /sys/block/loop0/dev) rbps=524288 wbps=524288" > /sys/fs/cgroup/sharer/io.max
check 'limited to half of one in a second, it takes more than 5 s to write them' takes -ge "$write"
figures
check 'and to read them' takes -ge "$read"
figures
vdisk_signal sharer 0 TERM
check 'vdisk ends' vdisk_ended sharer 0 0 5
check 'and is started with the page cache' vdisk_start sharer 0 /dev/loop0 || return
cat /run/sharer-0.pid > /sys/fs/cgroup/sharer/cgroup.procs
do_in sharer "$read" > /dev/null 2>&1
check 'what is cached is read at once' takes -lt "$read"
figures
echo "$(cat /sys/block/loop0/dev) rbps=max wbps=max" > /sys/fs/cgroup/sharer/io.max
check 'the guest had nothing to complain about' without_trouble sharer
destroy sharer
check 'vdisk exits with status 0 within 2 s' vdisk_ended sharer 0 0 2
check 'no zombie is left' within 5 only_dom0
losetup -d /dev/loop0
rmdir /sys/fs/cgroup/sharer
umount /sys/fs/cgroup
