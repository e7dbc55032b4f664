#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make sure that clang, its fuzzer and its tools are installed: root gets them, others are
# told how to.
packages="clang libclang-rt-dev llvm"

present() {
	command -v clang >/dev/null && command -v llvm-cov >/dev/null &&
	    ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a \
	        >/dev/null 2>&1
}

present && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing packages: apt-get install $packages" >&2
	exit 1
fi
apt-get -q update && DEBIAN_FRONTEND=noninteractive \
    apt-get -qy install --no-install-recommends $packages && present
