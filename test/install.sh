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
# One at a time: apt waits for who installs, but not for who updates its lists.
exec 9< "$0"
flock 9
log=$(mktemp) || exit
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM HUP
apt-get -q update > "$log" 2>&1 && DEBIAN_FRONTEND=noninteractive \
    apt-get -qy -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@" >> "$log" 2>&1 || {
	echo "cannot install $*: $(apt_error "$log")" >&2
	exit 1
}
