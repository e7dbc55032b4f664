#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make sure that what 'make bench' ("bench"), 'make bench-instructions' or 'make
# charts' runs is installed.
packages="python3 qemu-system-common fio"
programs="python3 qemu-storage-daemon fio"
if [ "$1" = bench-instructions ]; then
	packages="python3 valgrind"
	programs="python3 valgrind"
fi
if [ "$1" = charts ]; then
	packages="python3 python3-matplotlib"
	programs=python3
fi

present() {
	for program in $programs; do
		command -v "$program" >/dev/null || return 1
	done
	[ "$packages" != "python3 python3-matplotlib" ] || /usr/bin/python3 -c 'import matplotlib' 2>/dev/null
}

[ "$1" = charts ] || "${0%/*}"/../packages.sh || exit
# shellcheck disable=SC2086 # a list of words
present || { "${0%/*}"/../install.sh $packages && present; }
