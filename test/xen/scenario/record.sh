# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2154
# Record the traces of test/traces: vdisk as it is, with the recorder preloaded.
# They get out as /log/*.trace.
. /uboot.sh

# recorded TRACE NAME N PATH [OPTION...]: vdisk_start, with a trace, for which no
# sandbox has room
recorded() {
	local trace=$1
	shift
	export VDISK_TRACE="/log/$trace.trace" LD_PRELOAD=/usr/lib/record.so
	vdisk_start "$@" --no-sandbox
	status=$?
	unset VDISK_TRACE LD_PRELOAD
	return $status
}

# stop NAME N: end a vdisk whose guest has no use for it any more
stop() {
	vdisk_signal "$1" "$2" TERM && vdisk_ended "$1" "$2" 0 10
}

fails() { ! "$@"; }

record_arm64() {
	image /tmp/files 6
	image /tmp/unbind 4
	image /tmp/legacy 4
	configure writer 2 3
	create writer
	recorded files writer 0 /tmp/files -s FILES
	recorded unbind writer 1 /tmp/unbind
	recorded legacy writer 2 /tmp/legacy --legacy
	start writer
	echo 'files: a file system is made, filled, read and checked'
	do_in writer 'cat /sys/block/vda/serial; mkfs.ext4 -q -b 1024 /dev/vda && mount /dev/vda /mnt'
	do_in writer 'cp /usr/sbin/e2fsck /init /mnt; mkdir /mnt/d; for i in 1 2 3 4 5 6 7 8; do echo $i > /mnt/d/$i; done; sync'
	do_in writer 'dd if=/dev/urandom of=/mnt/random bs=100k count=8 2>/dev/null; rm /mnt/e2fsck /mnt/d/3'
	do_in writer 'sha256sum /mnt/random > /tmp/sum; umount /mnt; mount /dev/vda /mnt && sha256sum -c /tmp/sum; umount /mnt; e2fsck -fn /dev/vda'
	stop writer 0

	echo 'unbind: the driver goes while the disk is busy, and comes again'
	do_in writer 'virtio=$(basename $(readlink /sys/block/vdb/device)); echo $virtio > /tmp/virtio; verify -t 4 -s 20 /dev/vdb > /tmp/out 2>&1 & sleep 1.4; echo $(cat /tmp/virtio) > /sys/bus/virtio/drivers/virtio_blk/unbind; wait; tail -n 1 /tmp/out'
	do_in writer 'echo $(cat /tmp/virtio) > /sys/bus/virtio/drivers/virtio_blk/bind; dd if=/dev/urandom of=/tmp/r bs=64k count=4 2>/dev/null; dd if=/tmp/r of=/dev/vdb bs=64k conv=fsync 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches; cmp -n 262144 /tmp/r /dev/vdb && echo $(cat /tmp/virtio) > /sys/bus/virtio/drivers/virtio_blk/unbind'
	stop writer 1

	echo 'legacy: the same driver, as it is for a device of version 1'
	do_in writer 'mkfs.ext4 -q -b 1024 /dev/vdc && mount /dev/vdc /mnt && cp /usr/sbin/e2fsck /init /mnt && sha256sum /mnt/e2fsck /mnt/init > /tmp/sum; umount /mnt; mount /dev/vdc /mnt && sha256sum -c /tmp/sum; umount /mnt'
	do_in writer 'virtio=$(basename $(readlink /sys/block/vdc/device)); echo $virtio > /tmp/virtio; verify -t 2 -s 1 /dev/vdc && echo $virtio > /sys/bus/virtio/drivers/virtio_blk/unbind'
	do_in writer 'virtio=$(cat /tmp/virtio); echo $virtio > /sys/bus/virtio/drivers/virtio_blk/bind; dd if=/dev/$(ls /sys/bus/virtio/devices/$virtio/block) of=/dev/null bs=64k count=4 2>/dev/null && echo $virtio > /sys/bus/virtio/drivers/virtio_blk/unbind'
	stop writer 2
	destroy writer

	echo 'read-only: the file system again, for a guest that must not write'
	configure reader 1 1
	create reader
	recorded read-only reader 0 /tmp/files -r
	start reader
	do_in reader 'cat /sys/block/vda/ro; mount -r /dev/vda /mnt && cat /mnt/init /mnt/d/* > /dev/null; ls -l /mnt; head -c 1000 /mnt/random | sha256sum; umount /mnt'
	fails do_in reader 'echo 0 | dd of=/dev/vda bs=512 conv=fsync 2>/dev/null'
	stop reader 0
	destroy reader

	echo 'uboot: it starts from its disk, copies a file there and reads it again'
	bootable /tmp/uboot <<-'END'
		load virtio 0:1 44000000 file
		virtio write 44000000 6000 800
		virtio read 45000000 6000 800
		if cmp.b 44000000 45000000 100000; then virtio write 44000000 6800 1; fi
		virtio write 44000000 7fff 2
		poweroff
	END
	configure_uboot uboot 1
	create uboot
	recorded uboot uboot 0 /tmp/uboot
	xl unpause uboot
	vdisk_ended uboot 0 0 60
	dd if=/tmp/uboot bs=512 skip=$((0x6800)) count=1 2>/dev/null | cmp -n 512 - /tmp/file
}

# A guest with the kernel that GUEST says, whose version names the traces: the same on
# two disks, one of them for a driver of version 1.
record_guest() {
	local version
	image /tmp/guest 4
	image /tmp/legacy 4
	configure writer 2 2
	create writer
	recorded guest writer 0 /tmp/guest -s GUEST
	recorded guest-legacy writer 1 /tmp/legacy --legacy
	start writer
	version=$(do_in writer 'uname -r' | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')
	case $guest in *-16k) version=$version-16k ;; esac
	echo "linux-$version: two file systems are made, filled, read and checked"
	for disk in vda vdb; do
		do_in writer "cat /sys/block/$disk/serial; mkfs.ext4 -q -b 1024 /dev/$disk && mount /dev/$disk /mnt && cp /usr/sbin/e2fsck /init /mnt && sha256sum /mnt/e2fsck /mnt/init > /tmp/sum; umount /mnt; mount /dev/$disk /mnt && sha256sum -c /tmp/sum && rm /mnt/e2fsck; umount /mnt; e2fsck -fn /dev/$disk"
		do_in writer "verify -t 2 -s 1 /dev/$disk && echo \$(basename \$(readlink /sys/block/$disk/device)) > /sys/bus/virtio/drivers/virtio_blk/unbind"
	done
	stop writer 0
	stop writer 1
	destroy writer
	mv /log/guest.trace "/log/linux-$version.trace"
	mv /log/guest-legacy.trace "/log/linux-$version-legacy.trace"
}

record_amd64() {
	image /tmp/level 4
	image /tmp/edge 4
	configure lines 2 2
	create lines
	recorded level lines 0 /tmp/level
	recorded edge lines 1 /tmp/edge
	start lines
	echo 'level, edge: with either kind of interrupt, a file system, and every sector verified'
	for disk in vda vdb; do
		do_in lines "mkfs.ext4 -q -b 1024 /dev/$disk && mount /dev/$disk /mnt && cp /init /mnt && umount /mnt && e2fsck -fn /dev/$disk"
		do_in lines "verify -t 2 -s 1 /dev/$disk && echo \$(basename \$(readlink /sys/block/$disk/device)) > /sys/bus/virtio/drivers/virtio_blk/unbind"
	done
	stop lines 0
	stop lines 1
	destroy lines
}

set -e
if [ -n "$guest" ]; then
	record_guest
else
	"record_$arch"
fi
for trace in /log/*.trace; do
	tail -n 1 "$trace" | grep -qx end || { echo "$trace is not whole:"; tail -n 1 "$trace"; exit 1; }
done
ls -l /log/*.trace
