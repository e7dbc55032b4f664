# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# What checks are written with.

# title TEXT: what the next checks are about
title() {
	echo
	echo "${bold}$1${plain}"
}

# check SENTENCE COMMAND...: say whether it is true, and if not, why not; its
# status is passed on
check() {
	local sentence=$1
	shift
	if "$@" > /run/check.out 2>&1; then
		echo "  ${green}ok${plain}      $sentence"
		echo ok >> /log/results
	else
		echo "  ${red}FAILED${plain}  $sentence"
		tail -n 12 /run/check.out | sed 's/^/            /'
		echo "FAILED $sentence" >> /log/results
		return 1
	fi
}

# skip WHAT: say that this is not checked here, and why
skip() {
	echo
	echo "  ${dim}skip: $1${plain}"
	echo "skip $1" >> /log/results
}

# figures: what the last check's command printed
figures() {
	sed "s/.*/          $dim&$plain/" /run/check.out
}

# fails COMMAND...: whether it fails
fails() {
	! "$@"
}

# without_trouble NAME [PATTERN]: whether the guest's kernel has nothing to
# complain about, except what matches the pattern
without_trouble() {
	[ -s "/log/guest-$1.log" ] &&
	    ! grep -E 'I/O error|blocked for more than|Oops|BUG|WARNING|Call [Tt]race|panic|Unable to handle| stall' \
		"/log/guest-$1.log" | grep -v -E "${2:-^$}"
}

# says TEXT COMMAND...: whether that is all it prints
says() {
	local text=$1 output
	shift
	output=$("$@")
	[ "$output" = "$text" ] || { echo "says: $output"; return 1; }
}

# refuses STATUS ARGUMENT...: whether vdisk exits so, with one line on stderr
refuses() {
	local status=$1 got=0
	shift
	timeout 60 vdisk "$@" > /run/out 2> /run/err || got=$?
	cat /run/out /run/err
	echo "exit status $got"
	[ "$got" = "$status" ] && [ ! -s /run/out ] && [ "$(wc -l < /run/err)" = 1 ]
}

# conclude: say how many checks there were; its status is that of all of them
conclude() {
	local passed failed skipped
	clock
	passed=$(grep -c '^ok' /log/results)
	failed=$(grep -c '^FAILED' /log/results)
	skipped=$(grep -c '^skip' /log/results)
	echo
	echo "The machine was up for ${now%??} s."
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ] && [ "$passed" != 0 ]
}

# clear_away: whatever a file of checks has left
clear_away() {
	local file
	for file in /run/*.domid; do
		[ ! -e "$file" ] || xl destroy "$(cat "$file")" 2>/dev/null
	done
	for file in /run/*.pid; do
		case $file in
		/run/xen*) continue ;;
		esac
		[ -e "${file%.pid}.status" ] || kill -9 "$(cat "$file")" 2>/dev/null
	done
	umount /tmp/* 2>/dev/null
	[ ! -e /dev/dm-0 ] || dmsetup remove_all --force
	losetup -D 2>/dev/null
	rm -rf /run/*.domid /run/*.status /tmp/*
}
