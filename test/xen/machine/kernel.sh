#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Build the kernel of guests that grant their memory, with kernel.config, from the
# source package of the release's kernel: Debian's own are built without
# CONFIG_XEN_VIRTIO.  What is to be told to the user goes to file descriptor 3;
# exit status 3 says that it has been.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"
. "$here/../apt.sh"

version=$(basename "$tree"/usr/lib/modules/* | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')
package=linux-source-$version
work=$dir/kernel	# not where others build meanwhile
trap 'cd /; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
rm -rf "$work"
mkdir -p "$work/linux"
cd "$work"
apt_own "$work/apt" "$(apt_mirror)" "${kernel:-$(cat "$dir/release")}" "$arch"
if ! { again apt-get update --error-on=any && again apt-get download "$package"; } > apt.log 2>&1; then
	cat apt.log
	echo "Debian's $package cannot be had: $(apt_error apt.log)" >&3
	exit 3
fi
dpkg-deb --fsys-tarfile "$package"_*.deb |
    tar -xO "./usr/src/$package.tar.xz" | tar -C linux --strip-components=1 -xJ

# The make that started us may have flags and variables of its own.
unset MAKEFLAGS MAKELEVEL MFLAGS CFLAGS LDFLAGS CPPFLAGS
export ARCH=arm64 CROSS_COMPILE="$cross"
make -C linux KCONFIG_ALLCONFIG="$here/machine/kernel.config" allnoconfig
for option in XEN_VIRTIO XEN_GRANT_DMA_OPS VIRTIO_MMIO VIRTIO_BLK EXT4_FS SUSPEND; do
	grep -qx "CONFIG_$option=y" linux/.config
done
make -C linux -j"$(nproc)" Image
cp linux/arch/arm64/boot/Image "$dir/Image-grants"
