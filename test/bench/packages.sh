#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make sure that what 'make bench' ("bench") or 'make bench-instructions' runs
# is installed: root gets it, others are told how to.
packages="python3 qemu-system-common fio"
programs="python3 qemu-storage-daemon fio"
if [ "$1" = bench-instructions ]; then
	packages="python3 valgrind"
	programs="python3 valgrind"
fi

present() {
	for program in $programs; do
		command -v "$program" >/dev/null || return 1
	done
}

"${0%/*}"/../packages.sh || exit
present && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing packages: apt-get install $packages" >&2
	exit 1
fi
# shellcheck disable=SC2086 # a list of words
apt-get -q update && DEBIAN_FRONTEND=noninteractive \
    apt-get -qy -o DPkg::Lock::Timeout=600 install --no-install-recommends \
    $packages && present
