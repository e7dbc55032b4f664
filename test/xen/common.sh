# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154
# Where things are.  Sourced by every script here, which sets 'here' to this
# directory first.
top=$(cd "$here/../.." && pwd)
arch=${ARCH:-arm64}			# Debian's name of what is emulated
case $arch in
arm64)
	dir=$top/build/xen
	triplet=aarch64-linux-gnu
	loader=$triplet/ld-linux-aarch64.so.1
	;;
amd64)
	dir=$top/build/xen-amd64
	triplet=x86_64-linux-gnu
	loader=$triplet/ld-linux-x86-64.so.2
	;;
*)
	echo "ARCH=$arch: neither arm64 nor amd64"
	exit 2
	;;
esac
dir=${VDISK_XEN_DIR:-$dir}		# the machine and all that it leaves
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
tree=$dir/tree				# its packages, unpacked
lib=$tree/usr/lib/$triplet
cross=$triplet-

# unpack_xen DIRECTORY: Debian's source of Xen, and go there
unpack_xen() {
	rm -rf "$1"
	mkdir -p "$1"
	cd "$1"
	tar -xJf "$dir"/source/*.orig.tar.xz --strip-components=1
	tar -xJf "$dir"/source/*.debian.tar.xz
	sed 's/#.*//' debian/patches/series | while read -r patch; do
		[ -z "$patch" ] || patch -p1 -s < "debian/patches/$patch"
	done
}

PATH=$PATH:/usr/sbin:/sbin		# depmod and modprobe, for others than root
