# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2034,SC2154
# For guests whose kernel grants its memory, which is the machine's own, since
# Debian's cannot.

# granting NAME VCPUS BACKEND [LINE...]: configure such a guest, whose second disk is
# to be granted to that domain, 0 or 1
granting() {
	local name=$1 vcpus=$2 backend=$3
	shift 3
	configure "$name" "$vcpus" 1 'kernel = "/guest/Image-grants"' \
	    "device_tree = \"/guest/grants-$backend.dtb\"" "$@"
}

# serve NAME: start both vdisks
serve() {
	vdisk_start "$1" 0 /tmp/plain && vdisk_start "$1" 1 /tmp/granted --grants -s granted
}

# granted NAME: find the name that the guest has given to that disk
granted() {
	disk=$(do_in "$1" 'cd /sys/block; for d in vd?; do
		[ "$(cat $d/serial)" != granted ] || echo $d; done')
	[ -n "$disk" ]
}
