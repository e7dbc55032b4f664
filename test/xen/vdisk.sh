#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Compile this checkout's vdisk for the machine's dom0, and what attacks from inside
# of it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

export PKG_CONFIG_SYSROOT_DIR="$tree" PKG_CONFIG_LIBDIR="$lib/pkgconfig"
make -C "$top" --no-print-directory -s CC="$cc" PKG_CONFIG=pkg-config \
    BUILD="$dir/vdisk-build" PROGRAM="$dir/vdisk" all
# shellcheck disable=SC2086 # a command and an option
$cc -std=gnu11 -O2 -g -Wall -Wextra -Werror -D_GNU_SOURCE -fPIC -shared \
    -o "$dir/attack.so.new" "$here/attack.c"
mv "$dir/attack.so.new" "$dir/attack.so"	# of which another boot may take a copy
