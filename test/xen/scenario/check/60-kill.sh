# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2034,SC2154,SC3028
# vdisk is killed under a guest's hands and started again, and that is all there
# is to it.  The guest writes and verifies all the time, and is never rebooted.

# another NAME N PATH: start the disk's vdisk again as soon as the last is gone
another() {
	vdisk_wait "$1" "$2"
	vdisk_start "$1" "$2" "$3" && continues "$1" "$2"
}

# continues NAME N: whether all it says is that it continues
continues() {
	! grep -v 'continuing from the state of a previous vdisk' "/log/$1-vdisk$2.err"
}

# kill_again NAME TIMES DISKS: kill a vdisk at some moment and start another, of
# each disk in turn; all must come to serve.  Prints how long that took.
kill_again() {
	local i=0 disk from
	: > /run/pauses
	while [ "$i" -lt "$2" ]; do
		disk=$((i % $3))
		sleep "0.$((RANDOM % 10))$((RANDOM % 10))"
		clock; from=$now
		vdisk_signal "$1" "$disk" KILL
		another "$1" "$disk" "/tmp/$disk" || return 1
		clock; echo $(((now - from) * 10)) >> /run/pauses
		i=$((i + 1))
	done
	sort -n /run/pauses | awk '{ all[NR] = $1 } END {
		printf "from kill to ready: %d ms (median), %d ms (longest)\n", all[int((NR + 1) / 2)], all[NR] }'
}

# load NAME PATH: write and verify that file or disk until /tmp/stop appears
load() {
	do_in "$1" "while [ ! -e /tmp/stop ]; do verify -t 4 -s 3 $2 || break; done > /tmp/verify${2##*/} 2>&1 &"
}

# pulse NAME: note the time whenever a write to the file system has come to
# stable storage, until /tmp/stop appears
pulse() {
	do_in "$1" 'while [ ! -e /tmp/stop ]; do
		dd if=/proc/uptime of=/mnt/pulse conv=fsync 2>/dev/null;
		cat /proc/uptime; done > /tmp/pulse &'
}

# stalls NAME TIMES: what the pulse was like: as many as there were kills of
# the longest times between two beats, and the others
stalls() {
	do_in "$1" "awk 'NR > 1 { printf \"%d\n\", (\$1 - last) * 1000 } { last = \$1 }' /tmp/pulse |
		sort -n | awk '{ all[NR] = \$1 } END {
		printf \"the $2 longest times between two synchronous writes: %d ms (median), %d ms (longest); \", all[NR - int($2 / 2)], all[NR];
		printf \"of the other %d: %d ms (median)\n\", NR - $2, all[int((NR - $2 + 1) / 2)] }'"
}

# at_work NAME WHAT: whether the load has gone on since this was asked
at_work() {
	local before
	before=$(do_in "$1" 'wc -l < /tmp/pulse')
	within 20 moved "$1" "$before"
}
moved() {
	[ "$(do_in "$1" 'wc -l < /tmp/pulse')" -gt $(($2 + 2)) ]
}

# ends_well NAME WHAT: whether the load, told to stop, found every byte right
ends_well() {
	do_in "$1" "touch /tmp/stop; wait; cat /tmp/verify$2; grep -q right /tmp/verify$2 && ! grep -q errors /tmp/verify$2"
}

# booted_once NAME
booted_once() {
	[ "$(grep -c 'The guest is up' "/log/guest-$1.log")" = 1 ]
}

# refused NAME N: whether another vdisk for the disk is, since one serves it
refused() {
	# shellcheck disable=SC2046
	refuses 1 "$(cat "/run/$1.domid")" $(place "$2") "/tmp/$2" && grep 'another vdisk' /run/err
}

title 'Two vCPUs and a file system, and vdisk is killed 50 times'

image /tmp/0 64
memory=256 configure lives 2 1
check 'a guest is created, paused' create lives || return
check 'vdisk is ready' vdisk_start lives 0 /tmp/0 || return
check 'the guest boots' start lives || return
check 'a file system is made and mounted' \
    do_in lives 'mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && dd if=/dev/zero of=/mnt/load bs=1M count=16'
load lives /mnt/load
pulse lives
check 'the load is at it' at_work lives || return
check 'each time, another continues' kill_again lives 50 1 || return
figures
check 'the guest works on' at_work lives
check 'a vdisk too many gives up with status 1 and one line' refused lives 0
check 'and has disturbed nobody' at_work lives
vdisk_signal lives 0 TERM
check 'an upgrade: told to end, vdisk exits with status 0' vdisk_ended lives 0 0 5
check 'another continues' another lives 0 /tmp/0
check 'the guest works on' at_work lives
patience=120
check 'every byte was right all the time' ends_well lives load
check 'the guest was blocked for moments only' stalls lives 50
figures
check 'the file system can be unmounted' do_in lives 'umount /mnt'
check 'it is clean' do_in lives 'e2fsck -fn /dev/vda'
check 'the guest had nothing to complain about' without_trouble lives
check 'and was never rebooted' booted_once lives
destroy lives
check 'vdisk exits with status 0 within 2 s' vdisk_ended lives 0 0 2
check 'no zombie is left' within 5 only_dom0
rm -f /tmp/0

title 'Four vCPUs and two disks, whose vdisks are killed 60 times'

image /tmp/0 64
image /tmp/1 16
memory=256 configure four 4 2
check 'a guest is created, paused' create four || return
check 'the first vdisk is ready' vdisk_start four 0 /tmp/0 || return
check 'the second vdisk is ready' vdisk_start four 1 /tmp/1 || return
check 'the guest boots' start four || return
check 'a file system is made on the first, and mounted' \
    do_in four 'mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && dd if=/dev/zero of=/mnt/load bs=1M count=16'
load four /mnt/load
load four /dev/vdb
pulse four
check 'the load is at it' at_work four || return
check 'each time, another continues' kill_again four 60 2 || return
figures
check 'the guest works on' at_work four
for disk in 0 1; do
	vdisk_signal four "$disk" TERM
	check "an upgrade of vdisk $disk: told to end, it exits with status 0" \
	    vdisk_ended four "$disk" 0 5
	check 'another continues' another four "$disk" "/tmp/$disk"
done
check 'the guest works on' at_work four
check 'every byte of the file system was right all the time' ends_well four load
check 'and every byte of the second disk' ends_well four vdb
check 'the guest was blocked for moments only' stalls four 60
figures
check 'the file system can be unmounted' do_in four 'umount /mnt'
check 'it is clean' do_in four 'e2fsck -fn /dev/vda'
check 'no sector of the second is torn or old in dom0' verify -c -g 1 /tmp/1
check 'the guest had nothing to complain about' without_trouble four
check 'and was never rebooted' booted_once four
destroy four
check 'the first vdisk exits with status 0 within 2 s' vdisk_ended four 0 0 2
check 'and so does the second' vdisk_ended four 1 0 2
check 'no zombie is left' within 5 only_dom0
