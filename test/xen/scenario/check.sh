# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1090,SC1091,SC2154
# make check-xen: everything in check/, or what $CHECKS matches, in one boot.
. /check.sh

# shellcheck disable=SC2086
for file in check/$checks.sh; do
	(. "./$file")
	clear_away
done

conclude
