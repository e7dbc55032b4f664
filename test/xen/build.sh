#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# build.sh [SCENARIO]: build the machine that boot.sh boots: Xen with IOREQ servers, a
# dom0 and a guest, from Debian packages, or from Xen's source; an Arm machine, or an
# x86 one if ARCH=amd64.  What is up to date is left alone.  The kernel of guests
# that grant their memory is built if a scenario of that name asks for it, or one
# of scenario/check/, for which it may be a pattern; and a QEMU of its own is fetched
# for what measures.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

host_packages='cpio debian-archive-keyring kmod make pkg-config xz-utils'
case $arch in
arm64)
	host_packages="$host_packages acpica-tools bc bison checkpolicy device-tree-compiler
	    flex gcc gcc-aarch64-linux-gnu git libc6-dev
	    m4 patch perl python3 qemu-system-arm"
	;;
amd64)
	host_packages="$host_packages acpica-tools gcc libc6-dev"
	;;
esac

missing=
for package in $host_packages; do
	dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null |
	    grep -q '^installed$' || missing="$missing $package"
done
mkdir -p "$dir/log"
if [ "$missing" ]; then
	# shellcheck disable=SC2086 # a list of words
	"$here/../install.sh" $missing || exit
fi

# lock FILE: instead of what is locked now
lock() {
	exec 9> "$dir/$1"
	flock -n 9 || { echo "waiting for another that builds $dir"; flock 9; }
}
lock lock

# have_space: a stage must not end in the middle because the disk is full.  The
# machine's files are replaced by new ones, and all of them may be written.
have_space() {
	left=$(df -Pm "$dir" | awk 'END { print $4 }')
	needed=2000
	[ "$name" != kernel ] || needed=3500
	[ "$left" -ge "$needed" ] || {
		echo "in $dir are $left MB left, and $needed are needed"
		exit 1
	}
}

# stage NAME INPUT...: run machine/NAME.sh, unless it has run already with the
# same inputs, and so had all stages before it.  Packages that cannot be had anew
# are used as they were.  NAME-WHICH is one of several of that name.
inputs=
stage() {
	name=$1
	script=machine/${name%%-*}.sh
	shift
	before=$(cat "$dir/$name.done" 2>/dev/null) || true
	inputs=$({
		echo "$inputs"
		cat "$here/$script" "$@"
		case $name in
		packages) echo "${source:+without Xen}$kernel" ;;
		xen) [ -z "$source" ] || (cd "$source" && source_files | xargs -0 cat 2>&1) ;;
		esac
	} | sha256sum)
	[ "$before" != "$inputs" ] || return 0
	have_space
	case $name in
	packages | guest-* | qemu) ;;
	kernel) rm -f "$dir/$name.done" ;;	# nothing else is made from it
	*) rm -f "$dir/$name.done" "$dir/images.done" ;;
	esac
	start=$(date +%s)
	status=0
	"$here/$script" 3>&1 > "$dir/log/$name.log" 2>&1 || status=$?
	if [ "$status" = 0 ]; then
		echo "$inputs" > "$dir/$name.done"
		echo "$name: $(($(date +%s) - start)) s"
	elif [ -e "$dir/$name.done" ]; then
		echo "$name: used as they were"
		inputs=$before
	else
		[ "$status" != 3 ] || exit 3	# has told why
		tail -n 30 "$dir/log/$name.log"
		echo "$name: failed; all of its output is in $dir/log/$name.log"
		exit 1
	fi
}

# The stages must find the same machine, whatever its release is then.
export VDISK_XEN_DIR="$dir" RELEASE="$release" KERNEL="$kernel" XEN_SOURCE="$source"
cd "$here"
stage packages machine/apt.sh ../apt.sh machine/packages.list
stage xen machine/xen.config "$top/xen/vdisk.te"
[ -z "$source" ] || stage tools machine/toolstack.sh
! libxl_is_patched || stage libxl machine/toolstack.sh "$top/xen/libxl-vdisk.patch"
stage images machine/guest-init machine/u-boot.S machine/u-boot.dts verify.c rate.c \
    absent.c kexec.c "$top/xen/vdisk.asl"
[ -z "$guest" ] || stage "${guest_dir##*/}" machine/apt.sh ../apt.sh

if wants_qemu "${1:-}" "${PROCESSORS:-1}"; then
	[ -e "$dir/qemu" ] || rm -f "$dir/qemu.done"	# it may be had now
	inputs=						# of the machine, which it is none of
	stage qemu machine/apt.sh ../apt.sh
fi

# asks_for_kernel NAME: whether one of these scenarios does
asks_for_kernel() {
	# shellcheck disable=SC2086 # a pattern
	cat scenario/check/$1.sh "scenario/$1.sh" 2>/dev/null | grep -q /grants.sh
}
if [ "$arch" = arm64 ] && asks_for_kernel "${1:-}"; then
	# While it is built, what needs it not may run.
	inputs="$(cat "$dir/release") $kernel $(basename "$tree"/usr/lib/modules/*)"
	lock kernel.lock
	stage kernel machine/kernel.config
fi
