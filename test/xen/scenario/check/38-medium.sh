# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2046,SC2154
# A device without a medium: a guest is given one while it runs, loses it, and is
# given another one.
title 'A device without a medium'

# exchange NAME N PATH [OPTION...]: the vdisk ends, and another one has that disk
exchange() {
	vdisk_signal "$1" "$2" TERM
	vdisk_ended "$1" "$2" 0 5 && vdisk_start "$@"
}

# has NAME SECTORS: whether the guest has noticed that its second disk has so many
has() {
	[ "$(do_in "$1" 'cat /sys/block/vdb/size')" = "$2" ]
}

# refused NAME PATH OPTION...: whether vdisk ends with status 1 and one line, for
# what it cannot follow with
refused() {
	local name=$1 path=$2
	shift 2
	vdisk_signal "$name" 1 TERM
	vdisk_ended "$name" 1 0 5 &&
	    refuses 1 "$@" "$(cat "/run/$name.domid")" $(place 1) "$path" &&
	    vdisk_start "$name" 1 none
}

image /tmp/0 16
image /tmp/1 24
image /tmp/2 12
configure drive 1 2
check 'a guest is created, paused' create drive || return
check 'a file is served as the first disk' vdisk_start drive 0 /tmp/0 || return
check 'none is served as the second' vdisk_start drive 1 none || return
check 'the guest boots' start drive || return
check 'it sees an empty drive' has drive 0
check 'from which nothing can be read' says 0 do_in drive 'dd if=/dev/vdb count=1 2>/dev/null | wc -c'
check 'it gets a disk' exchange drive 1 /tmp/1
check 'and sees it' within 20 has drive 49152
check 'it makes a file system on it and mounts it' \
    do_in drive 'mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt'
check 'and writes a file' do_in drive 'dd if=/dev/urandom of=/mnt/file bs=1M count=4 2>/dev/null;
	sha256sum /mnt/file > /tmp/sum; umount /mnt'
check 'it loses the disk' exchange drive 1 none
check 'and sees that' within 20 has drive 0
check 'one that it cannot be given is refused' refused drive /tmp/2 -r
check 'which says why' grep 'read-only' /run/err
check 'the drive is empty still' has drive 0
check 'it gets another one, which is smaller' exchange drive 1 /tmp/2
check 'and sees it' within 20 has drive 24576
check 'all of it is written and read; every byte is right' \
    do_in drive 'verify -t 2 -s 1 /dev/vdb'
check 'it loses that, too' exchange drive 1 none
check 'and sees it' within 20 has drive 0
check 'the first one comes again' exchange drive 1 /tmp/1
check 'and is seen' within 20 has drive 49152
check 'its file system is clean' do_in drive 'e2fsck -fn /dev/vdb'
check 'and the file is right' do_in drive 'mount /dev/vdb /mnt && sha256sum -c /tmp/sum'
check 'it is taken away while it is in use' exchange drive 1 none
check 'what is written then fails' fails do_in drive 'dd if=/dev/zero of=/mnt/more bs=64k count=16 conv=fsync'
check 'the guest and its other disk go on' do_in drive 'verify -t 2 -s 1 /dev/vda'
check 'it had nothing else to complain about' without_trouble drive 'vdb'
destroy drive
check 'the first vdisk exits with status 0 within 2 s' vdisk_ended drive 0 0 2
check 'and so does the second' vdisk_ended drive 1 0 2
check 'no zombie is left' within 5 only_dom0
