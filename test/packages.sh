#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make sure that what the tests are built with is installed: root gets it, others
# are told how to.
packages="make gcc pkg-config libxen-dev liburing-dev libseccomp-dev check"

present() {
	command -v "${CC:-gcc}" >/dev/null && command -v pkg-config >/dev/null &&
	    pkg-config --exists xendevicemodel xenforeignmemory xenevtchn \
	        xentoolcore xentoollog liburing libseccomp check
}

present && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing packages: apt-get install $packages" >&2
	exit 1
fi
# shellcheck disable=SC2086
apt-get -q update && DEBIAN_FRONTEND=noninteractive \
    apt-get -qy -o DPkg::Lock::Timeout=600 install --no-install-recommends \
    $packages && present
