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
release=${RELEASE:-}			# Debian's, or none: the newest there is
case $release in
'' | trixie | bookworm) ;;
*)
	echo "RELEASE=$release: neither trixie nor bookworm"
	exit 2
	;;
esac
# A machine of a release that was asked for is one of its own, unless the other
# happens to be of that release.
[ -z "$release" ] || [ "$(cat "$dir/release" 2>/dev/null)" = "$release" ] ||
    dir=$dir-$release
dir=${VDISK_XEN_DIR:-$dir}		# the machine and all that it leaves
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
tree=$dir/tree				# its packages, unpacked
emulator=$dir/emulator			# and those of the x86 computer
lib=$tree/usr/lib/$triplet
cross=$triplet-

# xen_minor: the n of Xen 4.n
xen_minor() {
	sed 's/^4\.//' "$dir/version"
}

# libxl_is_patched: whether the machine has a libxl with xen/libxl-vdisk.patch
libxl_is_patched() {
	[ "$arch" = arm64 ] && [ "$(xen_minor)" -ge 20 ]
}

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
