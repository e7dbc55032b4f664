#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Fetch the arm64 packages of packages.list and Xen's source, and unpack them.
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
	APT::Architecture "arm64";
	APT::Architectures { "arm64"; };
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

kernel=$(apt-cache depends linux-image-cloud-arm64 |
    sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
xen=$(apt-cache depends xen-system-arm64 |
    sed -n 's/^ *Depends: xen-hypervisor-\([0-9.]*\)-arm64/\1/p')
cd "$dir/packages"
# shellcheck disable=SC2046
apt-get download "$kernel" $(sed "s/#.*//; s/@/$xen/g" "$here/machine/packages.list")
for package in *.deb; do
	dpkg-deb --extract "$package" "$tree"
done

# Some mirrors do not serve .dsc files, which apt can do without.
cd "$dir/source"
apt-get source --download-only --tar-only xen
apt-get source --download-only --diff-only xen
