#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# make check-libxl-patch XEN_SOURCE=DIRECTORY: whether xen/libxl-vdisk.patch applies
# there, without fuzz.  Nothing is changed.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

[ -n "$source" ] || { echo 'XEN_SOURCE= says to which source'; exit 2; }
if patch -d "$source" -p1 --dry-run --force --fuzz=0 < "$top/xen/libxl-vdisk.patch"; then
	echo "The patch applies to Xen $(version_of "$source")."
else
	echo "The patch does not apply to Xen $(version_of "$source")."
	exit 1
fi
