#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make sure that clang, its fuzzer and its tools are installed.
packages="clang libclang-rt-dev llvm"

present() {
	command -v clang >/dev/null && command -v llvm-cov >/dev/null &&
	    ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a \
	        >/dev/null 2>&1
}

# shellcheck disable=SC2086 # a list of words
present || { "${0%/*}"/install.sh $packages && present; }
