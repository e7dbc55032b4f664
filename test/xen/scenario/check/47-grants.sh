# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2046,SC2154,SC3028
# A guest whose kernel grants its memory, with a disk served by --grants and beside
# it one that is not.
[ "$arch" = arm64 ] || { skip 'grants: on x86, no device tree asks for them'; return; }
. /grants.sh

driver=/sys/bus/virtio/drivers/virtio_blk

# maps NAME PATTERN: how many such mappings the second vdisk has
maps() {
	grep -c "$2" "/proc/$(cat "/run/$1-1.pid")/maps"
}

# kill_again TIMES: kill the vdisk with the grants, and start another
kill_again() {
	local i=0
	while [ "$i" -lt "$1" ]; do
		sleep "0.$((RANDOM % 10))"
		vdisk_signal grants 1 KILL
		vdisk_wait grants 1
		vdisk_start grants 1 /tmp/granted --grants -s granted || return 1
		! grep -v 'continuing from the state' /log/grants-vdisk1.err || return 1
		i=$((i + 1))
	done
}

title 'A guest that grants its memory'

image /tmp/plain 16
image /tmp/granted 64
memory=256 granting grants 2 0
check 'it is created, paused' create grants || return
check 'its disks are served' serve grants || return
check 'it boots' start grants || return
check 'it has the disk' granted grants || return
do_in grants "verify -t 4 -s 2 /dev/$disk > /tmp/verify 2>&1 &"
sleep 2
check 'vdisk has mapped the rings and its IOREQ page, and nothing else' \
    says '3 1' eval 'echo $(maps grants gntdev) $(maps grants privcmd)'
check 'four threads write and read all and everywhere; every byte is right' \
    do_in grants 'wait; cat /tmp/verify; grep -q right /tmp/verify'
figures
check 'the file in dom0 is as the guest believes' verify -c -g 1 /tmp/granted
check 'a file system is made and mounted' \
    do_in grants "mkfs.ext4 -q /dev/$disk && mount /dev/$disk /mnt && dd if=/dev/zero of=/mnt/load bs=1M count=16"
do_in grants 'while [ ! -e /tmp/stop ]; do verify -t 2 -s 2 /mnt/load || break; done > /tmp/verify 2>&1 &'
check 'under load, vdisk is killed eight times, and each time another continues' \
    kill_again 8 || return
check 'xl takes 16 MiB from the guest' xl mem-set grants 240
check 'and gives them back' xl mem-set grants 256
check 'every byte was right all the time' \
    do_in grants 'touch /tmp/stop; wait; cat /tmp/verify; grep -q right /tmp/verify && ! grep -q errors /tmp/verify'
check 'the file system can be unmounted, and is clean' \
    do_in grants "umount /mnt && e2fsck -fn /dev/$disk"
vdisk_signal grants 1 TERM
check 'told to end, vdisk does' vdisk_ended grants 1 0 5
check 'without --grants the disk is not served on' \
    refuses 1 "$(cat /run/grants.domid)" $(place 1) /tmp/granted
check 'since that would be something else' grep -e '--grants differs' /run/err
check 'with it, it is' vdisk_start grants 1 /tmp/granted --grants -s granted

title 'The driver comes and goes'

virtio=$(do_in grants "basename \$(readlink /sys/block/$disk/device)")
for round in first second third; do
	check "unbound under load and bound again, the $round time" \
	    do_in grants "verify -p -t 2 /dev/$disk > /tmp/verify 2>&1 &
		$(busy $disk); echo $virtio > $driver/unbind; wait;
		grep -q errors /tmp/verify && echo $virtio > $driver/bind"
done
check 'it has the disk' granted grants
check 'which works as before' do_in grants "verify -t 2 -s 1 /dev/$disk"
check 'no grant was still in use when it was taken back' \
    fails grep 'still in use' /log/guest-grants.log
check 'the guest complained of nothing but requests after unbinding' \
    without_trouble grants 'I/O error, dev vd'

title 'The guest is destroyed while vdisk is stopped'

do_in grants "verify -p -t 2 /dev/$disk > /tmp/verify 2>&1 & $(busy $disk)"
vdisk_signal grants 1 STOP
check 'it is destroyed' destroy grants
check 'what vdisk has mapped keeps it' within 5 says 1 sh -c 'xl list | grep -c "^(null)"'
vdisk_signal grants 1 CONT
check 'vdisk goes on, notices and exits with status 0 within 2 s' vdisk_ended grants 1 0 2
check 'so has the other' vdisk_ended grants 0 0 2
check 'no zombie is left' within 5 only_dom0

title 'A guest whose kernel cannot grant its memory'

granting debian 2 0
sed -i '/Image-grants/d' /log/debian.cfg
check 'it is created, paused' create debian || return
check 'its disks are served' serve debian || return
check 'it is let go' xl unpause debian
check 'vdisk says what its kernel lacks' within 40 grep \
    'guest fault: memory that it has not granted.*CONFIG_XEN_VIRTIO.*xen,grant-dma' /log/debian-vdisk1.err
check 'once' says 1 sh -c 'wc -l < /log/debian-vdisk1.err'
check 'it is destroyed' destroy debian
check 'vdisk exits with status 0 within 2 s' vdisk_ended debian 1 0 2
check 'no zombie is left' within 5 only_dom0
