#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Build libxl with the patch of this project, from Debian's source package or from
# XEN_SOURCE: the two libraries that it changes, against the others of the machine.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"

unpack_xen "$dir/source/libxl"
patch -p1 -s --fuzz=0 < "$top/xen/libxl-vdisk.patch"
. "$here/machine/toolstack.sh"
for library in toolcore toollog evtchn call foreignmemory devicemodel gnttab \
    ctrl guest hypfs store; do
	ln -s "$lib/libxen$library.so" "tools/libs/$library/"
done

make -C tools/include
for library in light/libxenlight util/libxlutil; do
	make -C "tools/libs/${library%/*}" -j"$(nproc)" CC="$cc" "${library#*/}.so"
	cp -L "tools/libs/$library.so" "$dir/"
done
