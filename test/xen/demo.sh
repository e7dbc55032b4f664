#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# make demo: the machine boots and scenario/demo.sh tells what happens on it.
# Before dom0 can say anything, a few lines of the console are shown.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

console=$dir/run/demo/serial.log
bold='' dim='' plain=''
if [ -t 1 ]; then
	bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m')
fi
echo "${bold}An emulated computer is switched on.  Xen boots:${plain}"
echo
rm -f "$console"
tail -F -n +1 --pid=$$ "$console" 2>/dev/null | tr -d '\r' | sed -u -n "
	/Xen version/b show
	/(XEN) Brought up/b show
	/LOADING DOMAIN 0/b show
	/Building a PV Dom0/b show
	/Linux version/b show
	/Xen .* support found/b show
	/Done setting up Dom0/q
	d
	:show
	s/ (.*//
	s/.*/    $dim&$plain/p" &
exec "$here/boot.sh" demo
