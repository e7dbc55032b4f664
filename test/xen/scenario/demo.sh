# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2154
# make demo: a guest gets a disk, told step by step.

# tell TEXT
tell() {
	echo
	echo "$bold$1$plain"
	echo
}

# dom0 COMMAND: show a command and what it prints
dom0() {
	echo "    ${green}dom0#${plain} $1"
	eval "$1" 2>&1 | sed 's/^/    /'
}

# guest COMMAND: the same in the guest
guest() {
	local status=0
	echo "    ${green}guest#${plain} $1"
	do_in guest "$1" > /run/out || status=$?
	sed 's/^/    /' /run/out
	return $status
}

# give_up: the story ends here
give_up() {
	echo "${red}That went wrong.${plain}  The log of vdisk:"
	cat /log/guest-vdisk0.err
	exit 1
}

tell 'Debian runs as dom0.  There is no other domain yet, and no disk but a file:'
dom0 'xl list'
dom0 'truncate -s 64M /tmp/disk.img; ls -lh /tmp/disk.img'

target=/tmp/disk.img configure guest 2 1
if knows_entries; then
	tell 'The guest is an ordinary Debian kernel.  libxl is asked for a virtio device:'
else
	tell 'The guest is an ordinary Debian kernel.  libxl is asked for a virtio disk:'
fi
dom0 'cat /log/guest.cfg'

tell 'It is created, but must not run before its disk is there:'
echo "    ${green}dom0#${plain} xl create -p guest.cfg"
create guest || exit 1
dom0 'xl list'

tell 'One vdisk for one disk: which domain, which registers, which interrupt, which file.'
echo "    ${green}dom0#${plain} vdisk -s DEMO $(cat /run/guest.domid) $(place 0) /tmp/disk.img &"
vdisk_start guest 0 /tmp/disk.img -s DEMO || give_up
sed 's/^/    /' /log/guest-vdisk0.out

tell 'It is ready, so the guest may run:'
echo "    ${green}dom0#${plain} xl unpause guest"
start guest || give_up

tell 'The guest has found its disk, with the driver that every Linux has:'
guest 'uname -r; nproc'
guest 'dmesg | grep -o "virtio_blk.*"'
guest 'cat /proc/partitions; cat /sys/block/vda/serial; echo'

tell 'It makes a file system and writes 8 MiB:'
guest 'mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && df -h /mnt'
guest 'dd if=/dev/urandom of=/mnt/file bs=1M count=8 2>/dev/null; sha256sum /mnt/file'

tell 'It forgets all that it has in memory, and reads it from the disk again:'
guest 'umount /mnt; echo 3 > /proc/sys/vm/drop_caches; mount /dev/vda /mnt; sha256sum /mnt/file; umount /mnt'
sums=$(tr -d '\r' < /log/guest-guest.log | grep -c '  /mnt/file$')
different=$(tr -d '\r' < /log/guest-guest.log | grep '  /mnt/file$' | sort -u | wc -l)
[ "$sums $different" = '2 1' ] || give_up

tell 'Now everything at once: four threads write and verify every byte.'
guest 'verify -t 4 -s 4 /dev/vda' || give_up

tell 'The guest is destroyed.  Nobody tells vdisk; it notices:'
echo "    ${green}dom0#${plain} xl destroy guest"
destroy guest
vdisk_ended guest 0 0 5 || give_up
sed 's/^/    /' /log/guest-vdisk0.err
echo "    (exit status $(cat /run/guest-0.status))"
within 5 only_dom0
dom0 'xl list'

clock
tell "That was all, in ${now%??} s."
cat <<-END
	    A guest with nothing but stock drivers used a disk that is a file in
	    dom0.  Each of its accesses to the disk's registers was stopped by Xen
	    and answered by vdisk, a single small process; the data went directly
	    between the guest's memory and the file.

	    make shell       the same machine, and you type
	    make check-xen   what must hold on it, checked
END
