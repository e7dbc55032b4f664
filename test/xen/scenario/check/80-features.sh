# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2046,SC2154
# What else a block device can do: give space back, do without a cache, grow,
# stay out of the page cache, be larger than most, tell what was done with it,
# and belong to one.

# used: bytes that the first disk's file takes
used() {
	echo $(($(stat -c %b /tmp/disks/sparse) * 512))
}

# given_back BEFORE: whether that is 16 MiB less than before
given_back() {
	local now
	now=$(used)
	echo "$1 bytes before, $now bytes now"
	[ "$now" -le $(($1 - 16777216)) ]
}

# report: what the first vdisk has to tell
report() {
	local lines
	lines=$(wc -l < /log/more-vdisk0.err)
	vdisk_signal more 0 USR2
	within 5 reported "$lines" && tail -n 1 /log/more-vdisk0.err
}
reported() {
	[ "$(wc -l < /log/more-vdisk0.err)" -gt "$1" ]
}

# cached: KiB of devices in dom0's page cache
cached() {
	sed -n 's/^Buffers: *\([0-9]*\) kB/\1/p' /proc/meminfo
}

# not_cached BEFORE: whether they are hardly more than before
not_cached() {
	local now
	now=$(cached)
	echo "$1 KiB before, $now KiB now"
	[ "$now" -le $(($1 + 4096)) ]
}

# flushes: how many it has had
flushes() {
	local line
	line=$(report) && echo "$line" | sed 's/.*flushes \([0-9]*\).*/\1/'
}

# has_flushed
has_flushed() {
	local n
	n=$(flushes) && echo "$n" && [ "$n" -gt 0 ]
}

# has_size KIB: whether the guest has noticed
has_size() {
	do_in more 'cat /proc/partitions' | grep -q " $1 vda"
}

# refused PATH: whether another vdisk for it is, since it is in use
refused() {
	refuses 1 "$(cat /run/more.domid)" $(place 2) "$1" && grep "$1 is in use" /run/err
}

title 'A sparse file and a file system'

mkdir /tmp/disks
mount -t tmpfs disks /tmp/disks
truncate -s 128M /tmp/disks/sparse
truncate -s 3072G /tmp/disks/huge
truncate -s 48M /tmp/disks/direct
losetup /dev/loop3 /tmp/disks/direct
configure more 2 3
check 'a guest with three disks is created, paused' create more || return
check 'a sparse file is served as the first' \
    vdisk_start more 0 /tmp/disks/sparse || return
check 'one of 3 TiB is served as the second' \
    vdisk_start more 1 /tmp/disks/huge || return
check 'a device is served as the third, with direct I/O' \
    vdisk_start more 2 /dev/loop3 --direct || return
check 'the guest boots' start more || return
check 'it can discard' says 1073741824 do_in more 'cat /sys/block/vda/queue/discard_max_bytes'
check 'it can have zeros written' \
    says 67108864 do_in more 'cat /sys/block/vda/queue/write_zeroes_max_bytes'
check 'a file system is made and mounted' \
    do_in more 'mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt'
check 'a file of 24 MiB is written and deleted' \
    do_in more 'dd if=/dev/urandom of=/mnt/file bs=1M count=24 conv=fsync && rm /mnt/file && sync'
before=$(used)
check 'fstrim works' do_in more 'fstrim -v /mnt'
figures
check 'its space is given back to the host' given_back "$before"
figures
check 'the file system can be unmounted' do_in more 'umount /mnt'
check 'it is clean' do_in more 'e2fsck -fn /dev/vda'
check 'all of the disk can be discarded' do_in more 'blkdiscard /dev/vda'
check 'nothing is left of the file' says 0 used
check 'the guest reads zeros, too' \
    says 0 do_in more 'dd if=/dev/vda bs=1M count=32 2>/dev/null | tr -d "\000" | wc -c'

title 'Without a cache, and with it again'

check 'the guest knows of a cache' says 'write back' do_in more 'cat /sys/block/vda/cache_type'
check 'it can do without' \
    do_in more 'echo "write through" > /sys/block/vda/cache_type'
check 'that is what the device does' \
    says 'write through' do_in more 'cat /sys/block/vda/cache_type'
before=$(flushes)
check 'it writes' do_in more 'dd if=/dev/urandom of=/dev/vda bs=64k count=64 conv=fsync'
check 'and has nothing to flush' says "$before" flushes
vdisk_signal more 0 KILL
vdisk_wait more 0
check 'vdisk is killed, and another continues' \
    vdisk_start more 0 /tmp/disks/sparse || return
check 'there is no cache either' \
    says 'write through' do_in more 'cat /sys/block/vda/cache_type'
check 'the cache is taken again' \
    do_in more 'echo "write back" > /sys/block/vda/cache_type'
check 'it writes' do_in more 'dd if=/dev/urandom of=/dev/vda bs=64k count=64 conv=fsync'
check 'and flushes' has_flushed

title 'Direct I/O'

before=$(cached)
check 'four threads write and read all of the third disk; every byte is right' \
    do_in more 'verify -t 4 -s 4 /dev/vdc'
figures
check 'nothing of it is in the page cache of dom0' not_cached "$before"
figures
do_in more 'verify -t 4 -s 5 /dev/vdc > /tmp/verify 2>&1 &'
sleep 2
vdisk_signal more 2 KILL
vdisk_wait more 2
check 'under load, vdisk is killed, and another continues' \
    vdisk_start more 2 /dev/loop3 --direct || return
patience=300 check 'the load never noticed' \
    do_in more 'wait; cat /tmp/verify; grep -q right /tmp/verify && ! grep -q errors /tmp/verify'
figures
check 'the device in dom0 is as the guest believes' verify -c -g 1 /dev/loop3

title 'Larger than before, and larger than most'

truncate -s 192M /tmp/disks/sparse
vdisk_signal more 0 USR1
check 'the guest sees that the disk has grown' within 10 has_size 196608
check 'it can use what is new' \
    do_in more 'dd if=/dev/urandom of=/dev/vda bs=1M seek=191 count=1 conv=fsync'
check 'which is in the file' \
    says "$(do_in more 'dd if=/dev/vda bs=1M skip=191 2>/dev/null | sha256sum')" \
    sh -c 'dd if=/tmp/disks/sparse bs=1M skip=191 2>/dev/null | sha256sum'
check 'the second disk has 3 TiB' says 6442450944 do_in more 'cat /sys/block/vdb/size'
check 'its end can be written' \
    do_in more 'dd if=/dev/urandom of=/dev/vdb bs=1M seek=3145727 count=1 conv=fsync'
check 'and is where it belongs' \
    says "$(do_in more 'dd if=/dev/vdb bs=1M skip=3145727 2>/dev/null | sha256sum')" \
    sh -c 'dd if=/tmp/disks/huge bs=1M skip=3145727 2>/dev/null | sha256sum'

title 'What was done, and by whom'

check 'vdisk tells what it has done' report
figures
check 'another vdisk is refused the same file' refused /tmp/disks/sparse
figures
check 'the guest had nothing to complain about' without_trouble more
destroy more
check 'the first vdisk exits with status 0 within 2 s' vdisk_ended more 0 0 2
check 'and so does the second' vdisk_ended more 1 0 2
check 'and the third' vdisk_ended more 2 0 2
check 'no zombie is left' within 5 only_dom0
losetup -d /dev/loop3
umount /tmp/disks
