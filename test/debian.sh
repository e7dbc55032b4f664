#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Build the Debian package of what is committed, as who packages does, and let
# lintian look at it; as root it is also installed, asked for its version, and
# removed.  WORK is where.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
for program in dh lintian dpkg-buildpackage; do
	command -v $program > /dev/null ||
	    { "$here/install.sh" debhelper lintian dpkg-dev && break; }
done
rm -rf "$WORK"
mkdir -p "$WORK/vdisk"
git -c safe.directory="$PWD" archive HEAD | tar -xf - -C "$WORK/vdisk"
cd "$WORK/vdisk"
version=$(dpkg-parsechangelog -S Version)
dpkg-buildpackage -b -uc > "$WORK/log" 2>&1 || { tail -n 40 "$WORK/log"; exit 1; }
lintian --allow-root --fail-on error,warning "$WORK"/vdisk_*.changes
package=$(echo "$WORK"/vdisk_*.deb)
dpkg-deb --contents "$package"
[ "$(id -u)" = 0 ] || { echo 'skipped: to install it needs root'; exit 0; }
! dpkg -s vdisk > /dev/null 2>&1 || { echo 'skipped: there is one installed, which is not ours'; exit 0; }
# dpkg does not wait for who installs something else here, as apt does.
exec 9< "$here/install.sh"
flock 9
trap 'dpkg --purge vdisk' EXIT
trap 'exit 130' INT TERM HUP
dpkg -i "$package"
said=$(/usr/sbin/vdisk -V)
dpkg --purge vdisk
trap - EXIT
[ "$said" = "vdisk $version" ] || { echo "$said is not $version" >&2; exit 1; }
[ ! -e /usr/sbin/vdisk ] || { echo '/usr/sbin/vdisk is left' >&2; exit 1; }
echo "$said: built, installed and removed"
