#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Compile this checkout's vdisk for the machine's dom0, and what attacks from inside
# of it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

# Xen's libraries in the machine may want a newer C library than Debian 12's compiler
# brings; dom0 has it.
export PKG_CONFIG_SYSROOT_DIR="$tree" PKG_CONFIG_LIBDIR="$lib/pkgconfig"
make -C "$top" --no-print-directory -s CROSS_COMPILE="$cross" \
    PKG_CONFIG=pkg-config BUILD="$dir/vdisk-build" PROGRAM="$dir/vdisk" \
    LDFLAGS="-Wl,-rpath-link,$lib -Wl,--allow-shlib-undefined" all
"${cross}gcc" -std=gnu11 -O2 -g -Wall -Wextra -Werror -D_GNU_SOURCE -fPIC -shared \
    -I"$tree/usr/include" -o "$dir/attack.so" "$here/attack.c"
