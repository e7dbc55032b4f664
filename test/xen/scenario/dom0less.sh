# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2154
# make check-xen ONLY=dom0less: Xen itself makes a guest, from the device tree.
# There is no toolstack, and no Xenstore; vdisk gets by without.
. /check.sh

# reported TEXT: whether the guest has written this to its second disk
reported() {
	tr -d '\0' < /tmp/1 | grep "$1"
}

title 'A guest from the device tree, without Xenstore'

image /tmp/0 16
image /tmp/1 1
echo 1 > /run/guest.domid
check 'no xenstored runs' fails pidof xenstored
check 'and nobody could ask it' test ! -e /run/xenstored/socket
check 'vdisk serves a disk of domain 1' vdisk_start guest 0 /tmp/0
check 'and another' vdisk_start guest 1 /tmp/1
check 'the guest uses both' within 120 reported '^end$'
tr -d '\0' < /tmp/1 > /run/check.out
figures
check 'they have the right size' reported 'disks of 32768 and 2048 sectors'
check 'a file is in the file system that it made' reported 'and a file'
check 'every byte was right' reported 'every byte is right'
check 'it need not know that it is a guest of Xen' reported 'no trace of Xen'
check 'no sector is torn or old in dom0' verify -c -g 1 /tmp/0
vdisk_signal guest 0 TERM
check 'told to end, vdisk exits with status 0' vdisk_ended guest 0 0 5
vdisk_signal guest 1 TERM
check 'and so does the other' vdisk_ended guest 1 0 5
conclude
