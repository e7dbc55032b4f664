#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Record traces of test/traces anew on real Xen, in the machine that
# test/xen/build.sh builds, with the recorder added to its dom0.
set -eu
here=$(cd "$(dirname "$0")/xen" && pwd)
. "$here/common.sh"
machine=$dir
dir=$machine-record

mkdir -p "$dir/add/usr/lib"
# shellcheck disable=SC2086 # a command and options
$cc -std=gnu11 -O2 -g -Wall -Wextra -Werror -D_GNU_SOURCE -fPIC -shared \
    -o "$dir/add/usr/lib/record.so" "$top/test/record.c"
for file in xen Image guest.cpio vdisk attack.so tree emulator version images.done \
    ${guest:+"${guest_dir##*/}"}; do
	ln -sfn "$machine/$file" "$dir/$file"
done
# A file system that comes later lies over the one before.
{
	cat "$machine/dom0.cpio"
	(cd "$dir/add" && find . | cpio --quiet -o -H newc -R 0:0)
} > "$dir/dom0.cpio"
VDISK_XEN_DIR="$dir" "$here/boot.sh" record
cp "$dir"/run/record/log/*.trace "$top/test/traces/"
