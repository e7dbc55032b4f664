#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# install.sh PACKAGE...: root gets them installed, others are told how to.
if [ "$(id -u)" != 0 ]; then
	echo "missing packages: apt-get install $*" >&2
	exit 1
fi
apt-get -q update && DEBIAN_FRONTEND=noninteractive \
    apt-get -qy -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@"
