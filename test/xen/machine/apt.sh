# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2154
# An apt that changes nothing on this computer.  Sourced by what fetches packages.
. "$here/../apt.sh"

# settle DIRECTORY RELEASE: an apt of its own, for this release
settle() {
	apt_own "$1" "$mirror" "$2" "$arch"
	sed -i 'p; s/^deb /deb-src /' "$1/sources.list"
	again apt-get update --error-on=any
}
