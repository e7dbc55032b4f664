# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# For checks of guests whose vdisks are started by somebody else.

# disks N...: a line for the guest's configuration: these images in /tmp are its
# disks.  "N,KEY=VALUE" says more of one.
disks() {
	local name line='disk = ['
	for name in a b c d e f g h i; do
		[ $# -gt 0 ] || break
		line="$line \"format=raw,vdev=xvd$name,specification=virtio,"
		case $1 in
		*,*) line="$line${1#*,}," ;;
		esac
		line="${line}target=/tmp/${1%%,*}\","
		shift
	done
	echo "$line ]"
}

# up NAME TIMES: wait until the guest has booted so often, and get to know it
up() {
	within 120 booted "$1" "$2" ||
	    { echo 'not up after 120 s:'; tail -n 5 "/log/guest-$1.log"; return 1; }
	moved "$1"
	rm -f "/run/$1.silent"
}
booted() {
	[ "$(grep -c 'The guest is up' "/log/guest-$1.log")" = "$2" ]
}

# reboot_in NAME
reboot_in() {
	send_in "$1" 'reboot -f'
}

# poweroff_in NAME
poweroff_in() {
	send_in "$1" 'poweroff -f'
}

# vdisks N: whether so many run
vdisks() {
	[ "$(pidof vdisk | wc -w)" = "$1" ] || { pidof vdisk; return 1; }
}

# refused TEXT COMMAND...: whether it fails and says this
refused() {
	local text=$1 status=0
	shift
	"$@" > /run/refused 2>&1 || status=$?
	cat /run/refused
	[ "$status" != 0 ] && grep -q "$text" /run/refused
}

# quickly COMMAND...: whether xl does this without running into a timeout
quickly() {
	xl -vvv "$@" > /run/quickly 2>&1 || { tail -n 3 /run/quickly; return 1; }
	! grep -i 'timed out\|timeout reached' /run/quickly
}
