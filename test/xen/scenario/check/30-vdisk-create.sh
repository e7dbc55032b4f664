# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2154
# vdisk-create: one command for a guest and its disks, with xl as Debian has it.
# On x86, xl knows no virtio disks of HVM guests.
[ "$arch" = arm64 ] ||
    { skip 'vdisk-create: on x86, xl knows no virtio disks'; return; }
. /guests.sh

title 'vdisk-create, and a guest with virtio disks in its configuration'

image /tmp/0 16
image /tmp/1 8
configure created 2 0 "$(disks 0,no-discard 1,access=ro)" 'on_reboot = "restart"'
check 'one command creates the guest' vdisk-create /log/created.cfg || return
check 'the guest boots' up created 1 || return
check 'it has both disks, with the names they have in xl' \
    says 'xvda xvdb' do_in created 'echo $(cat /sys/block/vda/serial; echo; cat /sys/block/vdb/serial)'
check 'each in its size, the second read-only' \
    says '32768 0 16384 1' do_in created 'cd /sys/block; echo $(cat vda/size vda/ro vdb/size vdb/ro)'
check 'the first keeps its space' grep -e '--no-discard .* /tmp/0$' /log/vdisk-created.log
check 'it writes to the first' \
    do_in created 'echo before the reboot | dd of=/dev/vda conv=fsync 2>/dev/null'
first=$(cat /run/created.domid)
reboot_in created
check 'it reboots, and boots' up created 2 || return
check 'it is another domain now' fails says "$first" cat /run/created.domid
check 'and has its disks all the same' \
    says 'before the reboot' do_in created 'head -n 1 /dev/vda'
check 'two vdisks are left' within 5 vdisks 2
check 'a second guest of that name is refused' \
    refused 'there is a guest created already' vdisk-create /log/created.cfg
check 'the guest had nothing to complain about' without_trouble created
check 'it is destroyed, and xl waits for nobody' quickly destroy created
check 'no domain is left' within 5 only_dom0
check 'and no vdisk' within 5 vdisks 0
check 'nor anything that waits for it' within 5 fails pidof xl xenstore-watch

if knows_entries; then
	title 'vdisk-create, and a guest with virtio entries'

	configure entries 1 2 'on_reboot = "restart"'
	check 'one command creates the guest' vdisk-create /log/entries.cfg /tmp/0 /tmp/1 || return
	check 'the guest boots' up entries 1 || return
	check 'it has both disks' \
	    says '32768 16384' do_in entries 'echo $(cat /sys/block/vd[ab]/size)'
	check 'it can read the first' says 'before the reboot' do_in entries 'head -n 1 /dev/vda'
	reboot_in entries
	check 'it reboots, and is gone' within 20 only_dom0
	check 'no vdisk is left' within 5 vdisks 0
else
	skip "virtio entries: xl of Xen 4.$xen_minor does not know them"
fi

title 'vdisk-create, when something is wrong'

if knows_entries; then
	check 'a path too few is refused' \
	    refused '2 virtio entries .* 1 paths' vdisk-create /log/entries.cfg /tmp/0
	check 'so is a path that is no disk, with what vdisk says' \
	    refused 'tmp is neither' vdisk-create /log/entries.cfg /tmp/0 /tmp
fi
check 'no domain is left' within 5 only_dom0
check 'and no vdisk' within 5 vdisks 0
: > /tmp/1
check 'so is an empty image, with what vdisk says' \
    refused 'smaller than one sector' vdisk-create /log/created.cfg
check 'no domain is left' within 5 only_dom0
check 'and no vdisk' within 5 vdisks 0
rm /tmp/1
check 'so is one that is not there, with what xl says' \
    refused '/tmp/1: No such file' vdisk-create /log/created.cfg
check 'no domain is left' only_dom0
