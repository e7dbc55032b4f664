# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1090,SC1091,SC2154
# make check-xen: everything in check/, or what $CHECKS matches, in one boot.
. /check.sh

# limited FILE: what is in it, but for no longer than a quarter of an hour, or those
# MINUTES more
limited() {
	read -r pid _ < /proc/self/stat
	{
		sleep $((900 + 60 * MINUTES))
		check "${1##*/} comes to an end" false
		kill -9 "$pid"
	} &
	watchdog=$!
	. "./$1"
	kill "$watchdog"
}

# shellcheck disable=SC2086
for file in check/$checks.sh; do
	(limited "$file")
	clear_away
done

conclude
