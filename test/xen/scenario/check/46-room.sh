# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2086,SC2154
# A guest that has more memory than dom0 has room for foreign pages does not notice.
[ "$arch" = arm64 ] || { skip "room: on x86 dom0 is PV, and needs none"; return; }
. /memory.sh

title 'A guest with more memory than dom0 has room for, and two disks'

# Holes, and a different block in each 4 MiB of so many
size=96
for file in /tmp/a /tmp/b; do
	: > "$file"
	n=0
	while [ "$n" -lt $((size / 4)) ]; do
		dd if=/dev/urandom of="$file" bs=4k seek=$((n * 1024 + n)) count=1 conv=notrunc 2>/dev/null
		n=$((n + 1))
	done
	truncate -s "${size}M" "$file"
done
sum_a=$(md5sum < /tmp/a)
sum_b=$(md5sum < /tmp/b)

# serve_first [OPTION]: the first disk, from now on with this option; serve: both
serve_first() {
	serve_one 0 a "$@"
}
serve() {
	serve_one 0 a "$@" && serve_one 1 b "$@"
}
serve_one() {
	local disk=$1 file=$2
	shift 2
	if [ -e "/run/large-$disk.pid" ]; then
		vdisk_signal large "$disk" TERM
		vdisk_wait large "$disk"
	fi
	vdisk_start large "$disk" "/tmp/$file" "$@"
}

# rate_of LETTERS: read these disks whole, whose sums get into a file, and say how fast
rate_of() {
	local from
	clock; from=$now
	do_in large "echo 3 > /proc/sys/vm/drop_caches;
		for d in $1; do md5sum < /dev/vd\$d; done" > /run/sums || return
	clock
	set -- $1
	echo "$# of $size MiB at $(($# * size * 100 / (now - from))).$(($# * size * 1000 / (now - from) % 10)) MiB/s"
}

# whole LIMIT: both disks are read whole and are right, and at most that many KiB
# of the guest's memory are mapped for each
whole() {
	rate_of 'a b' || return
	at_most "$1" taken large 0 && at_most "$1" taken large 1 || return
	cat /run/sums
	printf '%s\n' "$sum_a" "$sum_b" | cmp - /run/sums
}

said=$(dmesg | wc -l)
memory=520 configure large 1 2
check 'the guest is created, paused' create large || return
check 'and served' serve || return
check 'it boots' start large || return
patience=300
check 'both disks are read whole and are right' whole $((64 * 1024))
figures
check 'they are served with a limit of 16 MiB' serve --map-limit=16
check 'and are right' whole $((16 * 1024))
figures
# Of both disks that would be more than dom0 has itself.
check 'the first is served without a limit to speak of' serve_first --map-limit=1024
patience=300
check 'and is read' rate_of a
figures
check 'and with a limit of 16 MiB again' eval 'serve_first --map-limit=16 && rate_of a'
figures
check "dom0's kernel said nothing" silent
check 'nor did a vdisk' eval '! grep . /log/large-vdisk0.err /log/large-vdisk1.err |
	grep -v "continuing from the state"'
check 'the guest had nothing to complain about' without_trouble large
check 'it is destroyed' destroy large
check 'no zombie is left' within 5 only_dom0
