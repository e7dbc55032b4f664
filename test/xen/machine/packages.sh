#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Fetch the packages of packages.list and, for arm64, Xen's source, and unpack them.
# They come from the Debian mirror that this computer uses, by an apt with its
# own lists, so that nothing changes here and every file is verified.
#
# Nothing is unpacked before all of it is there, and what was there before is
# only then replaced.  A mirror may lack files that its index has: then an older
# release is taken, unless RELEASE says which it must be.  What is to be told to
# the user goes to file descriptor 3; exit status 3 says that it has been.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"
. "$here/machine/apt.sh"

new=$dir/new

# fetch_source: Debian's source of Xen.  Some mirrors do not serve .dsc files,
# which apt can do without.
fetch_source() {
	(
		cd "$new/source"
		apt-get source --download-only --tar-only xen &&
		    apt-get source --download-only --diff-only xen
	)
}

# depends PACKAGE PATTERN: what it depends on, of what the pattern says
depends() {
	apt-cache depends "$1" | sed -n "s/^ *Depends: $2\$/\\1/p"
}

# fetch_kernel: the newest of this apt.  Those of 7 and later are split into
# packages with the same version in their names.
fetch_kernel() {
	case $arch in
	arm64) image=linux-image-cloud-arm64 ;;
	amd64) image=linux-image-amd64 ;; # that for clouds cannot be dom0
	esac
	image=$(depends "$image" '\(linux-image-.*\)')
	if [ -z "$image" ]; then
		echo 'E: there is no kernel in its index'
		return 1
	fi
	rm -rf "$new/kernel"
	mkdir -p "$new/kernel"
	# shellcheck disable=SC2046 # a list of words
	(
		cd "$new/kernel" &&
		    again apt-get download "$image" \
			$(depends "$image" "\(linux-[a-z]*-${image#linux-image-}\)")
	)
}

# fetch RELEASE: all that a machine of that release is made of
fetch() {
	rm -rf "$new/apt" "$new/packages" "$new/source" "$new/computer"
	mkdir -p "$new/packages" "$new/source" "$new/computer"
	settle "$new/apt" "$1" || return
	echo "$1" > "$new/release"
	xen=$(depends "xen-system-$arch" "xen-hypervisor-\\([0-9.]*\\)-$arch")
	if [ -z "$xen" ]; then
		echo 'E: there is no Xen in its index'
		return 1
	fi
	echo "$xen" > "$new/version"
	[ "$kernel" ] || fetch_kernel || return
	[ "$arch" != arm64 ] || [ -n "$source" ] || again fetch_source || return
	# shellcheck disable=SC2046 # a list of words
	(cd "$new/packages" && again apt-get download $(packages "$1")) || return
	[ "$arch" = amd64 ] || return 0
	# Two QEMUs, HVM guests' device model and the computer itself, with
	# the hundred libraries that they need.
	(cd "$new/packages" && again apt-get download "xen-hypervisor-$xen-amd64") || return
	if [ "$1" = trixie ]; then
		fetch_depended qemu-system-xen qemu-system-x86 || return
	else
		fetch_depended qemu-system-xen || return
	fi
	mv "$apt"/cache/archives/*.deb "$new/packages/"
	[ "$1" != trixie ] || return 0
	settle "$new/apt-computer" trixie && fetch_depended qemu-system-x86 || return
	mv "$apt"/cache/archives/*.deb "$new/computer/"
}

# packages RELEASE: what packages.list has for it; Xen's packages have it in their
# names
packages() {
	for package in $(sed "s/#.*//; s/@/$xen/g" "$here/machine/packages.list"); do
		case $source:$package in
		/*:*xen*) continue ;;
		esac
		case $package in
		"$1":* | "$arch":*) echo "${package#*:}" ;;
		*:*) ;;
		*) echo "$package" ;;
		esac
	done
}

mirror=$(apt_mirror)
if [ -z "$mirror" ]; then
	echo 'apt here uses no Debian mirror, or has never been updated' >&3
	exit 3
fi

rm -rf "$new"
if [ "$kernel" ] &&
    ! { settle "$new/apt-kernel" "$kernel" && fetch_kernel; } > "$new.log" 2>&1; then
	cat "$new.log"
	echo "KERNEL=$kernel cannot be had: $(apt_error "$new.log")" >&3
	exit 3
fi

# A machine that is renewed stays what it is.
before=$(cat "$dir/release" 2>/dev/null || true)
missing=
for release in ${release:-${before:-trixie bookworm}} none; do
	if [ "$release" = none ]; then
		echo "$missing" >&3
		exit 3
	fi
	if fetch "$release" > "$new.log" 2>&1; then
		cat "$new.log"
		break
	fi
	cat "$new.log"
	missing="$missing${missing:+; }Debian's $release cannot be had: $(apt_error "$new.log")"
done
[ -z "$missing" ] || echo "$missing; taking $release instead" >&3

mv "$new"/kernel/*.deb "$new/packages/"
unpack "$new/packages" "$new/tree"
if ls "$new"/computer/*.deb > /dev/null 2>&1; then
	unpack "$new/computer" "$new/emulator"
else
	ln -s tree "$new/emulator"
fi

# From here on until it is whole, it is no machine.  The kernel of guests that grant and
# the QEMU that measures are none of its parts.
for mark in "$dir"/*.done; do
	case ${mark##*/} in
	kernel.done | qemu.done) ;;
	*) rm -f "$mark" ;;
	esac
done
for part in apt packages source tree emulator release version; do
	rm -rf "${dir:?}/$part"
	mv "$new/$part" "$dir/$part"
done
rm -rf "$new" "$new.log"
