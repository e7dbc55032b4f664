#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make sure that what the tests are built with is installed; what is not is
# named, by Debian's packages.  CC and PKG_CONFIG are make's.
missing=

# need PACKAGE COMMAND...: that fails without the package
need() {
	package=$1
	shift
	"$@" > /dev/null 2>&1 || missing="$missing $package"
}

# has LIBRARY HEADER: without a pkg-config there is only the compiler to ask
has() {
	if $pkg_config --version; then
		$pkg_config --exists "$1"
	else
		echo "#include <$2>" | ${CC:-gcc} -E -
	fi
}

look() {
	missing=
	need make make --version
	# A compiler of somebody's choice is not for us to install.
	[ -n "${CC:-}" ] || need gcc gcc --version
	# shellcheck disable=SC2086 # it may be one with options
	need pkg-config $pkg_config --version
	need libxen-dev has xendevicemodel xendevicemodel.h
	need liburing-dev has liburing liburing.h
	need libseccomp-dev has libseccomp seccomp.h
	need check has check check.h
	[ -z "$missing" ]
}

pkg_config=${PKG_CONFIG:-pkg-config}
# shellcheck disable=SC2086 # a list of words
look || { "${0%/*}"/install.sh $missing && look; } || exit
if ! ${CC:-gcc} --version > /dev/null; then
	echo "no compiler ${CC:-gcc}" >&2
	exit 1
fi
