#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Fetch a QEMU that traps WFE where a hypervisor asks for that, as processors do: 11,
# from Debian's backports, with the libraries that it needs.  What was fetched before is
# only replaced by another.  Where there is none the one that is installed must do, in
# which WFE does nothing.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"
. "$here/machine/apt.sh"

new=$dir/new-qemu

fetch() {
	apt_own "$new/apt" "$(apt_mirror)" trixie "$(dpkg --print-architecture)"
	sed -i 'p; s/ trixie / trixie-backports /' "$new/apt/sources.list"
	again apt-get update --error-on=any &&
	    fetch_depended -t trixie-backports qemu-system-arm || return
	version=$(dpkg-deb -f "$new"/apt/cache/archives/qemu-system-arm_*.deb Version)
	dpkg --compare-versions "$version" ge 1:11 ||
	    { echo "E: in backports is $version"; return 1; }
}

rm -rf "$new"
mkdir -p "$new"
status=0
fetch > "$new/log" 2>&1 || status=$?
cat "$new/log"
if [ "$status" = 0 ]; then
	unpack "$new/apt/cache/archives" "$new/qemu"
	rm -rf "$dir/qemu"
	mv "$new/qemu" "$dir/qemu"
elif [ ! -e "$dir/qemu" ]; then
	echo "QEMU 11 cannot be had ($(apt_error "$new/log")); measuring with the one here" >&3
	status=0
fi
rm -rf "$new"
exit "$status"
