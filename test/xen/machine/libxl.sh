#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Build libxl from Debian's source package with the patch of this project: the
# two libraries that it changes, against Debian's others.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"

unpack_xen "$dir/source/libxl"
patch -p1 -s < "$top/xen/libxl-vdisk.patch"
# Another flex than upstream's is not wanted.
touch tools/libs/util/libxlu_disk_l.[ch]

# What ./configure would find, without the packages that it asks for and that
# are for other tools.
cat > config/Tools.mk <<END
PYTHON := python3
PERL := perl
AWK := awk
IASL := iasl
PTHREAD_CFLAGS := -pthread
PTHREAD_LDFLAGS := -pthread
APPEND_INCLUDES := $tree/usr/include
APPEND_LIB := $lib
END
cat > tools/config.h <<END
#define ENABLE_PARTIAL_DEVICE_TREE 1
#define HAVE_DECL_FDT_FIRST_SUBNODE 1
#define HAVE_DECL_FDT_NEXT_SUBNODE 1
#define HAVE_DECL_FDT_PROPERTY_U32 1
#define HAVE_LIBFDT 1
#define HAVE_YAJL_YAJL_VERSION_H 1
#define INCLUDE_ENDIAN_H <endian.h>
#define LIBEXEC_BIN "$(echo "$tree"/usr/lib/xen-*/bin | sed "s|^$tree||")"
#define QEMU_XEN_PATH "qemu-system-aarch64"
#define STUBDOM_QMP_PROXY_PATH ""
#define XENFIRMWAREDIR ""
#define XEN_CONFIG_DIR "/etc/xen"
#define XEN_DUMP_DIR "/var/lib/xen/dump"
#define XEN_LIB_DIR "/var/lib/xen"
#define XEN_LOCK_DIR "/var/lock"
#define XEN_LOG_DIR "/var/log/xen"
#define XEN_RUN_DIR "/var/run/xen"
#define XEN_SCRIPT_DIR "/etc/xen/scripts"
END
for library in toolcore toollog evtchn call foreignmemory devicemodel gnttab \
    ctrl guest hypfs store; do
	ln -s "$lib/libxen$library.so" "tools/libs/$library/"
done

unset MAKEFLAGS MAKELEVEL MFLAGS CFLAGS LDFLAGS CPPFLAGS
export XEN_TARGET_ARCH=arm64 CROSS_COMPILE=$cross
make -C tools/include
for library in light/libxenlight util/libxlutil; do
	make -C "tools/libs/${library%/*}" -j"$(nproc)" "${library#*/}.so"
	cp -L "tools/libs/$library.so" "$dir/"
done
