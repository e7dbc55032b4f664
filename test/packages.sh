#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make sure that what the tests are built with is installed.
packages="make gcc pkg-config libxen-dev liburing-dev libseccomp-dev check"

present() {
	command -v "${CC:-gcc}" >/dev/null && command -v pkg-config >/dev/null &&
	    pkg-config --exists xendevicemodel xenforeignmemory xenevtchn \
	        xentoolcore xentoollog liburing libseccomp check
}

# shellcheck disable=SC2086 # a list of words
present || { "${0%/*}"/install.sh $packages && present; }
