# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1090,SC1091,SC2154
# make check-xen: everything in check/, or what $CHECKS matches, in one boot.
. /check.sh

# limited FILE: what is in it, but for no longer than a quarter of an hour, or those
# MINUTES more.  It has ended only if it says so: a shell may die of its arithmetic.
limited() {
	read -r pid _ < /proc/self/stat
	{
		sleep $((900 + 60 * MINUTES))
		check "${1##*/} comes to an end" false
		kill -9 "$pid"
	} &
	echo $! > /run/watchdog
	. "./$1"
	touch /run/ended
}

# shellcheck disable=SC2086
for file in check/$checks.sh; do
	[ -e "$file" ] || { check "there is a file of checks $file" false; continue; }
	rm -f /run/ended
	clock; from=$now
	(limited "$file")
	kill "$(cat /run/watchdog)" 2> /dev/null
	[ -e /run/ended ] || check "${file##*/} comes to its end" false
	clear_away
	clock
	name=${file##*/}
	echo
	echo "  ${dim}${name%.sh}: $(((now - from) / 100)) s$plain"
done

conclude
