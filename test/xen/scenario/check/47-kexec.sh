# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2154
# Another kernel comes, and finds the devices as the one before it left them.  On Arm
# it may not be told of Xen (see kexec.c) and has no console: what it does is in its
# file system, and what came of it is at the end of the second disk.
[ "$arch" = arm64 ] || { skip "kexec: on x86 by soft reset, 49-soft-reset"; return; }

first=2000000.virtio second=2000200.virtio

# kernel COMMANDS: the second disk, with another kernel, to which that is the first
# and which then does this
kernel() {
	rm -rf /tmp/new /tmp/1
	mkdir /tmp/new
	cat > /tmp/new/after <<-END
		#!/bin/busybox sh
		/bin/busybox --install -s
		mount -t proc proc /proc
		mount -t sysfs sysfs /sys
		mount -t devtmpfs devtmpfs /dev
		exec < /dev/null > /dev/null 2>&1
		echo 0 > /sys/bus/platform/drivers_autoprobe
		for module in virtio virtio_ring virtio_mmio virtio_blk; do
			insmod /lib/modules/\$module.ko
		done
		cd /sys/bus/platform/drivers/virtio-mmio
		echo $second > bind
		until [ -b /dev/vda ]; do sleep 0.1; done
		echo ready | dd of=/dev/vda bs=1M seek=62 conv=fsync
		read -r before _ < /proc/uptime
		echo $first > bind
		read -r after _ < /proc/uptime
		until [ -b /dev/vdb ]; do sleep 0.1; done
		echo "reset from \$before to \$after s" > /tmp/report
		{
			$1
		} >> /tmp/report 2>&1
		echo "status \$?" >> /tmp/report
		dmesg >> /tmp/report
		dd if=/tmp/report of=/dev/vda bs=1M seek=63 conv=fsync
		poweroff -f
	END
	chmod 755 /tmp/new/after
	(cd /tmp/new && echo after | cpio -o -H newc 2>/dev/null) |
	    cat /guest/guest.cpio - > /tmp/new/initrd
	cp /guest/Image /tmp/new/
	tar -C /tmp/new -cf /tmp/1 Image initrd
	truncate -s 64M /tmp/1
	rm -rf /tmp/new
}

# reported LINE: whether the other kernel has reported this, when the guest is gone
reported() {
	dd if=/tmp/1 bs=1M skip=63 2>/dev/null | tr -d '\0' > /log/kexec-report
	head -n 12 /log/kexec-report
	grep -q "$1" /log/kexec-report
}

# comes: whether the other kernel is there, and about to reset the first disk
comes() {
	dd if=/tmp/1 bs=1M skip=62 count=1 2>/dev/null | grep -q ready
}

# waited: whether the reset was not answered while requests were in flight
waited() {
	awk '$1 == "reset" { print $5 - $3, "s"; exit $5 - $3 < 2 }' /log/kexec-report
}

# becomes NAME COMMAND: the guest is told to do what nothing comes back from
becomes() {
	send_in "$1" "$2"
	within 120 test -s "/run/$1-1.status"
}

title 'Another kernel, by kexec, under load'

image /tmp/0 4
kernel 'verify -c -g 1 /dev/vdb && verify -t 2 -s 1 /dev/vdb'
memory=384 configure kexec 2 2 'vuart = "sbsa_uart"'
check 'a guest is created, paused' create kexec || return
check 'a file is served as the first disk' vdisk_start kexec 0 /tmp/0 || return
check 'another one, with the kernel, as the second' vdisk_start kexec 1 /tmp/1 || return
check 'the guest boots' start kexec || return
check 'it has the other kernel' do_in kexec 'tar -xf /dev/vdb -C /tmp'
do_in kexec '(while :; do verify -t 4 -s 2 /dev/vda; done) > /tmp/verify 2>&1 &'
check 'it is at work' within 10 do_in kexec 'grep -q "read in order" /tmp/verify'
check 'it becomes another one, which switches it off in the end' becomes kexec \
    'kexec /tmp/Image /tmp/initrd "console=ttyAMA0 rdinit=/after"'
check 'no sector was torn, and every byte was right then' reported '^status 0'
figures
for disk in 0 1; do
	check "vdisk $disk exits with status 0 within 2 s" vdisk_ended kexec "$disk" 0 2
	check 'and had nothing to say' fails grep -v 'the guest is gone' "/log/kexec-vdisk$disk.err"
done

title 'A kernel for when another one has crashed'

mkdir -p /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +io > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/kdump
# limit BYTES: so many per second does the first disk
limit() {
	echo "$(cat /sys/block/loop0/dev) rbps=$1 wbps=$1" > /sys/fs/cgroup/kdump/io.max
}

image /tmp/0 4
losetup /dev/loop0 /tmp/0
kernel 'md5sum /proc/vmcore > /tmp/before && verify -c -g 1 /dev/vdb && verify -t 2 -s 1 /dev/vdb &&
	md5sum /proc/vmcore > /tmp/after && cat /tmp/before /tmp/after && cmp /tmp/before /tmp/after'
memory=384 configure kdump 2 2
sed -i 's/cmdline = "/&crashkernel=128M /' /log/kdump.cfg
check 'a guest is created, paused' create kdump || return
check 'a device is served as the first disk' vdisk_start kdump 0 /dev/loop0 --direct || return
check 'a file, with the kernel, as the second' vdisk_start kdump 1 /tmp/1 || return
cat /run/kdump-0.pid > /sys/fs/cgroup/kdump/cgroup.procs
check 'the guest boots' start kdump || return
check 'it has the other kernel' do_in kdump 'tar -xf /dev/vdb -C /tmp &&
	kexec -p /tmp/Image /tmp/initrd "rdinit=/after nr_cpus=1 cma=0" && rm /tmp/Image /tmp/initrd'
do_in kdump '(while :; do verify -t 4 -s 2 /dev/vda; done) > /tmp/verify 2>&1 &'
check 'it is at work' within 10 do_in kdump 'grep -q "read in order" /tmp/verify'
check 'whatever it asks for lasts minutes from now on' limit 2 # the least there is
sleep 1
send_in kdump 'echo c > /proc/sysrq-trigger'
check 'it crashes, and the other kernel is there' within 100 comes
sleep 4
check 'the disk goes on' limit max
check 'which switches it off in the end' within 120 test -s /run/kdump-1.status
check 'no sector was torn, every byte was right then, and the memory of the first is untouched' \
    reported '^status 0'
figures
check 'its reset was answered when no request was in flight any more' waited
figures
for disk in 0 1; do
	check "vdisk $disk exits with status 0 within 2 s" vdisk_ended kdump "$disk" 0 2
	check 'and had nothing to say' fails grep -v 'the guest is gone' "/log/kdump-vdisk$disk.err"
done
losetup -d /dev/loop0
rmdir /sys/fs/cgroup/kdump
umount /sys/fs/cgroup
