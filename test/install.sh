#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# install.sh PACKAGE...: root gets them installed, others are told how to.
if [ "$(id -u)" != 0 ]; then
	echo "missing packages: apt-get install $*" >&2
	exit 1
fi
# shellcheck disable=SC1091
. "${0%/*}/apt.sh"
echo "installing $*"
# One of us at a time
exec 9< "$0"
flock 9
log=$(mktemp) || exit
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM HUP
# apt waits for who installs, but not for who updates its lists, as a computer does
# by itself soon after its start.
update() {
	tries=0
	until apt-get -q update > "$log" 2>&1; do
		grep -q 'Could not get lock' "$log" || return
		tries=$((tries + 1))
		[ "$tries" -lt 600 ] || return
		sleep 1
	done
}

install() {
	DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=600 \
	    install --no-install-recommends "$@" >> "$log" 2>&1
}

if ! update || ! install "$@"; then
	echo "cannot install $*: $(apt_error "$log")" >&2
	exit 1
fi
