#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Cross-compile vdisk for arm64 with the gcc and the clang of Debian 13, whatever
# this computer has: they are unpacked into a directory of their own ($WORK) by
# an apt with lists of its own, and run in there.  Nothing here changes.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
tree=$WORK/tree
. "$top/test/apt.sh"
if [ "$(id -u)" != 0 ]; then
	echo 'skipped: cross: chroot needs root'
	exit 0
fi

unpack() {
	mirror=$(apt_mirror)
	[ -n "$mirror" ] || { echo 'apt here uses no Debian mirror' >&2; exit 1; }
	rm -rf "$WORK"
	apt_own "$WORK/apt" "$mirror" trixie amd64 arm64
	again apt-get -q update
	again apt-get -qy --download-only --no-install-recommends install \
	    make pkgconf dash coreutils grep gcc-aarch64-linux-gnu clang \
	    libxen-dev:arm64 liburing-dev:arm64 libseccomp-dev:arm64
	unset APT_CONFIG
	mkdir -p "$tree/usr/bin" "$tree/usr/sbin" "$tree/usr/lib" \
	    "$tree/usr/lib64" "$tree/dev" "$tree/tmp"
	for dir in bin sbin lib lib64; do
		ln -s "usr/$dir" "$tree/$dir"
	done
	for package in "$apt"/cache/archives/*.deb; do
		dpkg-deb --extract "$package" "$tree"
	done
	rm -rf "$apt"
	ln -sf dash "$tree/usr/bin/sh"
	cp -a /dev/null "$tree/dev/"
	touch "$WORK/whole"
}

[ -e "$WORK/whole" ] || unpack
rm -rf "$tree/src"
mkdir -p "$tree/src/test/xen"
cp "$top"/GNUmakefile "$top"/*.[ch] "$tree/src/"
cp "$top"/test/*.mk "$tree/src/test/"
cp "$top"/test/xen/*.mk "$tree/src/test/xen/"
for compiler in aarch64-linux-gnu-gcc 'clang --target=aarch64-linux-gnu'; do
	chroot "$tree" "${compiler%% *}" --version | head -n 1
	for level in -O0 -O1 -O2 -O3 -Os; do
		rm -rf "$tree/src/build"
		env -i PATH=/usr/sbin:/usr/bin chroot "$tree" make -C /src -s \
		    --no-print-directory -j2 say= WERROR=1 CC="$compiler" \
		    CFLAGS="$level -g" PKG_CONFIG=pkgconf \
		    PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig
		[ -x "$tree/src/vdisk" ]
		rm "$tree/src/vdisk"
		echo "vdisk for arm64: $level"
	done
done
