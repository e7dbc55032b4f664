# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154
# Where things are.  Sourced by every script here, which sets 'here' to this
# directory first.

# version_of DIRECTORY: of which Xen this is the source, as 4.n
version_of() {
	sed -n 's/^export XEN_VERSION *= *//p; s/^export XEN_SUBVERSION *= */./p' \
	    "$1/xen/Makefile" 2>/dev/null | tr -d '\n'
}

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
source=${XEN_SOURCE:-}			# of Xen, instead of Debian's
if [ -n "$source" ]; then
	if [ "$arch" != arm64 ]; then
		echo "XEN_SOURCE is for ARCH=arm64: elsewhere Xen is Debian's own"
		exit 2
	fi
	if ! source=$(cd "$source" 2>/dev/null && pwd) ||
	    [ -z "$(version_of "$source")" ] || [ ! -d "$source/tools/libs/light" ]; then
		echo "XEN_SOURCE=$XEN_SOURCE: no source of Xen"
		exit 2
	fi
	dir=$dir-${source##*/}
fi
kernel=${KERNEL:-}			# the suite with its kernel, if not the release
case $kernel in
*[!a-z-]*)
	echo "KERNEL=$kernel: no suite of Debian's, as trixie-backports is"
	exit 2
	;;
?*) dir=$dir-$kernel ;;
esac
# A machine of a release that was asked for is one of its own, unless the other
# happens to be of that release.
[ -z "$release" ] || [ "$(cat "$dir/release" 2>/dev/null)" = "$release" ] ||
    dir=$dir-$release
dir=${VDISK_XEN_DIR:-$dir}		# the machine and all that it leaves
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
if [ -n "$release" ] && [ "$(cat "$dir/release" 2>/dev/null || echo "$release")" != "$release" ]; then
	echo "RELEASE=$release: $dir is a machine of $(cat "$dir/release")"
	exit 2
fi
guest=${GUEST:-}			# SUITE/FLAVOUR of the guests' kernel, or none
case $guest in
'' | *?/?*) ;;
*)
	echo "GUEST=$guest: no SUITE/FLAVOUR, such as trixie/arm64-16k"
	exit 2
	;;
esac
guest_dir=$dir${guest:+/guest-$(echo "$guest" | tr / -)} # with Image and guest.cpio
tree=$dir/tree				# its packages, unpacked
emulator=$dir/emulator			# and those of the x86 computer
lib=$tree/usr/lib/$triplet
cross=$triplet-
# What is compiled finds the C library, too, among those packages, even if the
# cross compiler has one of its own.
cc="${cross}gcc --sysroot=$tree -B$lib -L$lib"
cc="$cc -isystem $tree/usr/include -isystem $tree/usr/include/$triplet"

# xen_minor: the n of Xen 4.n
xen_minor() {
	sed 's/^4\.//' "$dir/version"
}

# libxl_is_patched: whether the machine has a libxl with xen/libxl-vdisk.patch
libxl_is_patched() {
	[ "$arch" = arm64 ] && [ "$(xen_minor)" -ge 20 ]
}

# source_files: the files of $source, where it must be called, each with a 0 behind
# it; from a git checkout, what git would take
source_files() {
	if [ -e .git ]; then
		git -c safe.directory="$source" ls-files -z --cached --others --exclude-standard
	else
		find . ! -type d -print0
	fi
}

# unpack_xen DIRECTORY: Xen's source, Debian's or the one that was asked for, and
# go there
unpack_xen() {
	rm -rf "$1"
	mkdir -p "$1"
	if [ -n "$source" ]; then
		(cd "$source" && source_files | cpio --quiet -0 -pdm "$1")
		cd "$1" || return
		return
	fi
	cd "$1" || return
	tar -xJf "$dir"/source/*.orig.tar.xz --strip-components=1
	tar -xJf "$dir"/source/*.debian.tar.xz
	sed 's/#.*//' debian/patches/series | while read -r patch; do
		[ -z "$patch" ] || patch -p1 -s < "debian/patches/$patch"
	done
}

PATH=$PATH:/usr/sbin:/sbin		# depmod and modprobe, for others than root

# wants_qemu SCENARIO PROCESSORS: whether it measures on one Arm processor, and the QEMU
# that is installed takes WFE for nothing
wants_qemu() {
	case $arch-$1-$2 in
	arm64-bench*-1) ;;
	*) return 1 ;;
	esac
	version=$(qemu-system-aarch64 --version | sed -n '1s/.*version \([0-9]*\).*/\1/p')
	[ "${version:-0}" -lt 11 ]
}

# traps_wfe SCENARIO: whether what it measures on one Arm processor is where WFE is trapped
traps_wfe() {
	[ -e "$dir/qemu" ] || ! wants_qemu "$1" 1
}
