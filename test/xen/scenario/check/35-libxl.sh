# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2154
# libxl with this project's patch, which there is for Arm and from Xen 4.20 on: xl
# create, and nothing else is typed.
[ -e /usr/lib/patched ] ||
    { skip "the patched libxl: there is none for Xen 4.$xen_minor on $arch"; return; }
. /guests.sh

xl() {
	LD_LIBRARY_PATH=/usr/lib/patched command xl "$@"
}

# started_by_xl NAME VDEV: the vdisk that xl has started for this disk
started_by_xl() {
	xenstore-read "/libxl/$(cat "/run/$1.domid")/device/virtio_disk/$2/vdisk-pid"
}

# arguments NAME VDEV: what it was started with
arguments() {
	tr '\0' ' ' < "/proc/$(started_by_xl "$1" "$2")/cmdline"
}

# known NAME: how many disks served by vdisk xl knows
known() {
	xl block-list "$1" | grep -c /backend/vdisk/
}

title 'Patched libxl, and a guest with two disks'

image /tmp/0 32
image /tmp/1 8
losetup /dev/loop1 /tmp/1
ln -s /dev/loop1 /tmp/device
configure patched 2 0 "$(disks 0,no-discard device,access=ro,direct-io-safe)" \
    'on_reboot = "restart"'
check 'xl create, without a timeout' quickly create /log/patched.cfg || return
check 'the guest boots' up patched 1 || return
check 'it has both disks, with the names they have in xl' \
    says 'xvda xvdb' do_in patched 'echo $(cat /sys/block/vda/serial; echo; cat /sys/block/vdb/serial)'
check 'each in its size, the second read-only' \
    says '65536 0 16384 1' do_in patched 'cd /sys/block; echo $(cat vda/size vda/ro vdb/size vdb/ro)'
check 'the first keeps its space' \
    says "vdisk -s xvda --no-discard -- $(cat /run/patched.domid) 0x2000000 33 /tmp/0 " \
    arguments patched 51712
check 'the second uses direct I/O' \
    says "vdisk -s xvdb -r --direct -- $(cat /run/patched.domid) 0x2000200 34 /tmp/device " \
    arguments patched 51728
check 'xl knows them' says 2 known patched
check 'a file system is made and mounted' \
    do_in patched 'mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && dd if=/dev/zero of=/mnt/load bs=1M count=8'
do_in patched 'verify -t 2 -s 10 /mnt/load > /tmp/verify 2>&1 &'
check 'under load, the first vdisk is killed' kill -9 "$(started_by_xl patched 51712)"
check 'one is left' within 5 vdisks 1
check 'another is started by hand' vdisk_start patched 0 /tmp/0 -s xvda
check 'the guest goes on, and every byte was right' \
    do_in patched 'wait; cat /tmp/verify; grep -q right /tmp/verify && ! grep -q errors /tmp/verify'
first=$(cat /run/patched.domid)
check 'the file system is unmounted' do_in patched 'umount /mnt'
reboot_in patched
check 'the guest reboots, and boots' up patched 2 || return
check 'it is another domain now' fails says "$first" cat /run/patched.domid
check 'with new vdisks' within 5 vdisks 2
check 'its file system is clean' do_in patched 'e2fsck -fn /dev/vda'
check 'the guest had nothing to complain about' without_trouble patched
poweroff_in patched
check 'the guest switches itself off, and no zombie is left' within 20 only_dom0
check 'and no vdisk' within 5 vdisks 0
check 'it is created again' quickly create /log/patched.cfg
sh -c 'trap "echo > /tmp/hit; exit" HUP TERM; sleep 60 & wait' &
innocent=$!
number=/libxl/$(cat /run/patched.domid)/device/virtio_disk/51728/vdisk-pid
xenstore-write "$number" "$innocent"
check 'and destroyed, and xl waits for nobody' quickly destroy patched
sleep 1
check 'another process that has the number of a vdisk by now is left alone' \
    fails test -e /tmp/hit
kill "$innocent"
check 'no zombie is left' within 5 only_dom0
check 'and no vdisk' within 5 vdisks 0
check 'xl has told it so, it need not find out' \
    fails grep 'the guest is gone' /log/vdisk-patched-xvda.log

title 'Patched libxl, and eight disks'

losetup -d /dev/loop1
for disk in 0 1 2 3 4 5 6 7 8; do
	image "/tmp/$disk" 1
done
configure eight 1 0 "$(disks 0 1 2 3 4 5 6 7)"
check 'xl create' quickly create /log/eight.cfg || return
check 'the guest boots' up eight 1 || return
check 'it has all of them' says 8 do_in eight 'ls -d /sys/block/vd? | wc -l'
check 'and can read them' \
    do_in eight 'for disk in a b c d e f g h; do dd if=/dev/vd$disk of=/dev/null bs=64k || break; done'
check 'it is destroyed, and xl waits for nobody' quickly destroy eight
check 'no zombie is left' within 5 only_dom0

title 'Patched libxl, when something is wrong'

configure wrong 1 0 "$(disks 0 1 2 3 4 5 6 7 8)"
check 'nine disks are refused, with what vdisk says' \
    refused 'fewer than 8 in use' xl create /log/wrong.cfg
check 'no domain is left' within 5 only_dom0
check 'and no vdisk' within 5 vdisks 0
: > /tmp/1
configure wrong 1 0 "$(disks 0 1)"
check 'so is an empty image' refused 'smaller than one sector' xl create /log/wrong.cfg
check 'no domain is left' within 5 only_dom0
check 'and no vdisk' within 5 vdisks 0
rm /tmp/1
check 'so is one that is not there' refused '/tmp/1: No such file' xl create /log/wrong.cfg
check 'no domain is left' only_dom0
