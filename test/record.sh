#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Record all of test/traces anew on real Xen, in the machine that
# test/xen/build.sh builds, with the recorder added to its dom0.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
machine=$(cd "${VDISK_XEN_DIR:-$here/../build/xen}" && pwd)
dir=$machine-record

mkdir -p "$dir/add/usr/lib"
aarch64-linux-gnu-gcc -std=gnu11 -O2 -g -Wall -Wextra -Werror -D_GNU_SOURCE \
    -fPIC -shared -I"$machine/tree/usr/include" \
    -o "$dir/add/usr/lib/record.so" "$here/record.c"
for file in xen Image vdisk; do
	ln -sf "$machine/$file" "$dir/"
done
# A file system that comes later lies over the one before.
{
	cat "$machine/dom0.cpio"
	(cd "$dir/add" && find . | cpio --quiet -o -H newc -R 0:0)
} > "$dir/dom0.cpio"
VDISK_XEN_DIR="$dir" "$here/xen/boot.sh" record
cp "$dir"/run/record/log/*.trace "$here/traces/"
