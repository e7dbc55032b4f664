# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154
# An apt that changes nothing on this computer.  Sourced by what fetches packages, and
# sets 'new' to a directory for what comes and goes.
. "$here/../apt.sh"

# settle DIRECTORY RELEASE: an apt of its own, for this release
settle() {
	apt_own "$1" "$mirror" "$2" "$arch"
	sed -i 'p; s/^deb /deb-src /' "$1/sources.list"
	again apt-get update --error-on=any
}

# fetch_depended PACKAGE...: these and all that they need
fetch_depended() {
	again apt-get -y --download-only --no-install-recommends install "$@"
}

# unpack DIRECTORY TREE: unpack the packages there, without anything that makes who
# runs it root here.  Before trixie not all of them have their files in /usr.
unpack() {
	for link in bin sbin lib lib64; do
		mkdir -p "$2/usr/$link"
		ln -s "usr/$link" "$2/$link"
	done
	for package in "$1"/*.deb; do
		dpkg-deb --fsys-tarfile "$package" > "$new/package.tar"
		tar -C "$2" --keep-directory-symlink -xf "$new/package.tar"
	done
	rm -f "$new/package.tar"
	chmod -R u-s,g-s "$2"
}
