#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Fetch the packages of packages.list and, for arm64, Xen's source, and unpack them.
# They come from the Debian mirror that this computer uses, by an apt with its
# own lists, so that nothing changes here and every file is verified.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"

apt=$dir/apt
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# shellcheck disable=SC2016	# the dollar sign is apt's
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' \
    'Origin: Debian' 'Label: Debian' | head -n 1)
if [ -z "$mirror" ]; then
	echo 'apt here uses no Debian mirror, or has never been updated'
	exit 1
fi

rm -rf "$apt" "$tree" "$dir/packages" "$dir/source"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$tree" \
    "$dir/packages" "$dir/source"
: > "$apt/status"
for suite in trixie bookworm; do
	echo "deb [signed-by=$keyring] $mirror $suite main"
	echo "deb-src [signed-by=$keyring] $mirror $suite main"
done > "$apt/sources.list"
# All else, a proxy for one, is as the computer has it.
cat > "$apt/apt.conf" <<-END
	APT::Architecture "$arch";
	APT::Architectures { "$arch"; };
	APT::Sandbox::User "";
	Acquire::Languages "none";
	Dir::State "$apt";
	Dir::State::status "$apt/status";
	Dir::Cache "$apt/cache";
	Dir::Etc::sourcelist "$apt/sources.list";
	Dir::Etc::sourceparts "/dev/null";
	Dir::Etc::preferences "/dev/null";
	Dir::Etc::preferencesparts "/dev/null";
END
export APT_CONFIG="$apt/apt.conf"
apt-get update

xen=$(apt-cache depends "xen-system-$arch" |
    sed -n "s/^ *Depends: xen-hypervisor-\([0-9.]*\)-$arch/\1/p")
case $arch in
arm64) kernel=linux-image-cloud-arm64 ;;
amd64) kernel=linux-image-amd64 ;; # that for clouds cannot be dom0
esac
kernel=$(apt-cache depends "$kernel" |
    sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
cd "$dir/packages"
# shellcheck disable=SC2046
apt-get download "$kernel" $(sed "s/#.*//; s/@/$xen/g" "$here/machine/packages.list")
if [ "$arch" = amd64 ]; then
	# Two QEMUs, the computer itself and HVM guests' device model, with
	# the hundred libraries that they need.
	apt-get download "xen-hypervisor-$xen-amd64"
	apt-get -y --download-only --no-install-recommends install \
	    qemu-system-x86 qemu-system-xen
	mv "$apt"/cache/archives/*.deb .
fi
for package in *.deb; do
	dpkg-deb --extract "$package" "$tree"
done

[ "$arch" = arm64 ] || exit 0
# Some mirrors do not serve .dsc files, which apt can do without.
cd "$dir/source"
apt-get source --download-only --tar-only xen
apt-get source --download-only --diff-only xen
