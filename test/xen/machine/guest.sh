#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The kernel that the guests run, if GUEST says which: what images.sh makes, with the
# packages of that kernel in the place of the machine's own.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"
. "$here/machine/apt.sh"

# depends PACKAGE PATTERN: on which packages it depends, of those
depends() {
	apt-cache depends "$1" | sed -n "s/^ *Depends: \\($2\\)\$/\\1/p"
}

suite=${guest%/*}
flavour=${guest#*/}
mirror=$(awk '$1 == "deb" { print $3; exit }' "$dir/apt/sources.list")
new=$guest_dir.new

# fetch: from 7.0 on its modules are in a package of their own, as is the kernel itself
fetch() {
	settle "$new/apt" "$suite" || return
	image=$(depends "linux-image-$flavour" 'linux-image-.*')
	if [ -z "$image" ]; then
		echo "E: there is no linux-image-$flavour in Debian's $suite"
		return 1
	fi
	# shellcheck disable=SC2046 # a list of words
	(
		cd "$new/packages" && again apt-get download "$image" \
		    $(depends "$image" "linux-[a-z]*-${image#linux-image-}")
	)
}

# What was there before is replaced when all of it is there.
rm -rf "$new"
mkdir -p "$new/packages"
if ! fetch > "$new.log" 2>&1; then
	cat "$new.log"
	echo "GUEST=$guest cannot be had: $(apt_error "$new.log")" >&3
	exit 3
fi
rm -rf "$guest_dir.done" "$guest_dir" "$new.log"
mv "$new" "$guest_dir"

cp -al "$tree" "$guest_dir/tree"
rm -rf "$guest_dir"/tree/usr/lib/modules/* "$guest_dir"/tree/boot/vmlinuz-*
for package in "$guest_dir"/packages/*.deb; do
	dpkg-deb --fsys-tarfile "$package" > "$guest_dir/package.tar"
	tar -C "$guest_dir/tree" --keep-directory-symlink -xf "$guest_dir/package.tar"
done
for file in "$dir"/version "$dir"/release "$dir"/libx*.so; do
	[ ! -e "$file" ] || ln -s "$file" "$guest_dir/"
done
VDISK_XEN_DIR="$guest_dir" "$here/machine/images.sh"
for file in "$guest_dir"/*; do
	case ${file##*/} in
	Image | guest.cpio) ;;
	*) rm -rf "$file" ;;
	esac
done
