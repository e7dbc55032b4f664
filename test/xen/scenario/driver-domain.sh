# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2034
# make check-xen ONLY=driver-domain: vdisk in a domain that is not dom0.  Xen is
# booted with FLASK and the policy of xen/vdisk.te, Linux knows XSA-482.
. /check.sh
. /grants.sh
. /guests.sh

# vdisk_in NAME GUEST N [OPTION]: start a vdisk in domain NAME for disk N of the guest
vdisk_in() {
	do_in "$1" "vdisk -d ${4:-} -p /tmp/$2-$3.pid $(cat "/run/$2.domid") $(place "$3") /tmp/$2-$3"
}

# runs_in NAME N: whether so many vdisks do
runs_in() {
	says "$2" do_in "$1" 'pidof vdisk | wc -w'
}

# both_boot GUEST GUEST
both_boot() {
	xl unpause "$2"
	start "$1" && up "$2" 1
}

# continued: whether a vdisk of the first guest that is killed is followed by
# another
continued() {
	do_in driver "kill -9 $(do_in driver 'cat /tmp/first-0.pid')"
	vdisk_in driver first 0 > /run/continued || { cat /run/continued; return 1; }
	grep 'continuing from the state of a previous vdisk' /run/continued
}

# only_refused PATTERN: whether FLASK has refused nothing else
only_refused() {
	! xl dmesg | grep 'avc: *denied' | grep -v "$1"
}

give_up() {
	conclude
	exit 1
}

# What a guest has, and vdisk with all that it needs
(
	cd / || exit
	{
		echo usr/sbin/vdisk
		LD_TRACE_LOADED_OBJECTS=1 vdisk | sed -n 's|.*=> /\([^ ]*\).*|\1|p'
		ls lib/modules/xen-evtchn.ko lib/modules/xen-gntdev.ko lib/modules/xen-privcmd.ko
	} | cpio --quiet -o -H newc | cat /guest/guest.cpio - > /tmp/guest.cpio
)

title 'A driver domain that cannot map its guests'

memory=192 configure granted 1 0 'ramdisk = "/tmp/guest.cpio"' \
    'seclabel = "system_u:system_r:vdisk_grants_t"'
granting lender 1 1
image /tmp/plain 1
check 'it is created, with a label of its own' create granted || give_up
check 'as the domain that the guest is to grant its memory' \
    says 1 cat /run/granted.domid || give_up
check 'it boots' start granted || give_up
check 'the guest is created, and one of its disks is served by dom0' \
    eval 'create lender && vdisk_start lender 0 /tmp/plain'
do_in granted 'insmod /lib/modules/xen-evtchn.ko; insmod /lib/modules/xen-gntdev.ko;
	insmod /lib/modules/xen-privcmd.ko unrestricted=1;
	dd if=/dev/zero of=/tmp/lender-1 bs=1M count=16 2> /dev/null'
check 'a vdisk in that domain serves the other' vdisk_in granted lender 1 --grants || give_up
check 'the guest boots' start lender || give_up
check 'the larger of its disks is written and read' do_in lender '
	disk=$(grep -l 32768 /sys/block/vd?/size | cut -d / -f 4);
	verify -t 2 -s 4 /dev/$disk > /tmp/verify 2>&1 & sleep 1'
check 'under load, vdisk is killed' do_in granted 'kill -9 $(cat /tmp/lender-1.pid)'
check 'another continues' vdisk_in granted lender 1 --grants
check 'every byte was right' \
    do_in lender 'wait; cat /tmp/verify; grep -q right /tmp/verify'
figures
check 'the guest had nothing to complain about' without_trouble lender
check 'it is destroyed' destroy lender
check 'its vdisk ends' within 3 runs_in granted 0
destroy granted
check 'nothing is left' within 5 only_dom0
check 'FLASK had nothing to refuse' only_refused nobody

title 'A driver domain'

memory=192 configure driver 1 0 'ramdisk = "/tmp/guest.cpio"' \
    'seclabel = "system_u:system_r:vdisk_t"'
configure first 2 1
configure second 1 1 'ramdisk = "/tmp/guest.cpio"'
check 'it is created, with a label of its own' create driver || give_up
check 'it boots' start driver || give_up
check 'so is a guest, paused' create first
check 'and another' create second
do_in driver 'for disk in first-0 second-0; do
	dd if=/dev/zero of=/tmp/$disk bs=1M count=16 2> /dev/null; done'
check 'its Linux, unless told otherwise, keeps vdisk from Xen' \
    refused 'cannot restrict the Xen handles to this domain: Invalid argument' \
    do_in driver "insmod /lib/modules/xen-evtchn.ko; insmod /lib/modules/xen-privcmd.ko;
	vdisk -d $(cat /run/first.domid) $(place 0) /tmp/first-0"
check 'so it is told otherwise' do_in driver 'rmmod xen_privcmd &&
	insmod /lib/modules/xen-privcmd.ko unrestricted=1'
check 'a vdisk in it serves the first guest' vdisk_in driver first 0 || give_up
check 'and another the second' vdisk_in driver second 0 || give_up
check 'the guests boot' both_boot first second || give_up
check 'an ordinary domain cannot serve them' \
    refused 'cannot create an IOREQ server.*: Permission denied' \
    do_in second "insmod /lib/modules/xen-evtchn.ko;
	insmod /lib/modules/xen-privcmd.ko unrestricted=1; dd if=/dev/zero of=/tmp/0 bs=1M count=1;
	vdisk -d $(cat /run/first.domid) $(place 0) /tmp/0"
for guest in first second; do
	do_in "$guest" 'verify -t 2 -s 4 /dev/vda > /tmp/verify 2>&1 &'
done
check 'under load, a vdisk is killed, and another continues' continued || give_up
for guest in first second; do
	check "every byte of the $guest guest was right" \
	    do_in "$guest" 'wait; cat /tmp/verify; grep -q right /tmp/verify'
	figures
done
check 'the second guest is destroyed' destroy second
check 'its vdisk ends' within 3 runs_in driver 1
check 'the first had nothing to complain about' without_trouble first

title 'The end of a driver domain'

image /tmp/disk 16
do_in first 'verify -p -t 2 /dev/vda > /tmp/verify 2>&1 &'
check 'it is destroyed, under load' destroy driver
check 'what is left of it stays, since Xen keeps its servers' \
    within 5 says 1 sh -c 'xl list | grep -c "^(null)"'
check 'a vdisk elsewhere does not continue' vdisk_start first 0 /tmp/disk
check 'it takes it for a new disk' fails grep continuing /log/first-vdisk0.err
check 'only to destroy the guest helps' destroy first
check 'then nothing is left' within 5 only_dom0
check 'FLASK had only that ordinary domain to refuse something' \
    only_refused 'scontext=system_u:system_r:domU_t .*tclass=hvm'
conclude
