# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154
# Sourced in a tree of Xen's source: sets it up to build parts of the toolstack.
# What ./configure would find, without the packages that it asks for and that
# are for other tools.
cat > config/Tools.mk <<END
include \$(XEN_ROOT)/config/Paths.mk
PYTHON := python3
PERL := perl
AWK := awk
IASL := iasl
PTHREAD_CFLAGS := -pthread
PTHREAD_LDFLAGS := -pthread
XEN_JSON_LIBS := -lyajl
ZLIB_LIBS := -lz
END
cat > config/Paths.mk <<END
prefix := /usr
libdir := /usr/lib/$triplet
includedir := /usr/include
sbindir := /usr/sbin
bindir := /usr/bin
LIBEXEC_BIN := /usr/lib/xen-$(cat "$dir/version")/bin
PKG_INSTALLDIR := /usr/lib/$triplet/pkgconfig
END
cat > tools/config.h <<END
#define ENABLE_PARTIAL_DEVICE_TREE 1
#define HAVE_DECL_FDT_FIRST_SUBNODE 1
#define HAVE_DECL_FDT_NEXT_SUBNODE 1
#define HAVE_DECL_FDT_PROPERTY_U32 1
#define HAVE_LIBFDT 1
#define HAVE_LIBYAJL 1
#define HAVE_YAJL_YAJL_VERSION_H 1
#define INCLUDE_ENDIAN_H <endian.h>
#define LIBEXEC_BIN "/usr/lib/xen-$(cat "$dir/version")/bin"
#define QEMU_XEN_PATH "qemu-system-aarch64"
#define STUBDOM_QMP_PROXY_PATH ""
#define XENFIRMWAREDIR ""
#define XEN_CONFIG_DIR "/etc/xen"
#define XEN_DUMP_DIR "/var/lib/xen/dump"
#define XEN_LIB_DIR "/var/lib/xen"
#define XEN_LOCK_DIR "/var/lock"
#define XEN_LOG_DIR "/var/log/xen"
#define XEN_RUN_DIR "/var/run/xen"
#define XEN_RUN_STORED "/var/run/xenstored"
#define XEN_SCRIPT_DIR "/etc/xen/scripts"
END
# Other flexes and bisons than upstream's are not wanted.
touch tools/libs/util/libxlu_*_[ly].[ch]

# The make that started us may have flags and variables of its own.
unset MAKEFLAGS MAKELEVEL MFLAGS CFLAGS LDFLAGS CPPFLAGS
export XEN_TARGET_ARCH=arm64 CROSS_COMPILE="$cross"
