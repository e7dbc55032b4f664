# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2154
# A guest that has more memory than dom0 has room for foreign pages does not notice.
[ "$arch" = arm64 ] || return 0
. /memory.sh

title 'A guest with more memory than dom0 has room for, and two disks'

# Holes, and a different block in each 4 MiB, of 400.
for file in /tmp/a /tmp/b; do
	: > "$file"
	n=0
	while [ "$n" -lt 100 ]; do
		dd if=/dev/urandom of="$file" bs=4k seek=$((n * 1024 + n)) count=1 conv=notrunc 2>/dev/null
		n=$((n + 1))
	done
	truncate -s 400M "$file"
done
sum_a=$(md5sum < /tmp/a)
sum_b=$(md5sum < /tmp/b)

# serve [OPTION]: both disks, from now on with this option
serve() {
	for disk in 0 1; do
		if [ -e "/run/large-$disk.pid" ]; then
			vdisk_signal large "$disk" TERM
			vdisk_wait large "$disk"
		fi
	done
	vdisk_start large 0 /tmp/a "$@" && vdisk_start large 1 /tmp/b "$@"
}

# whole LIMIT: both disks are read whole and are right, and at most that many KiB
# of the guest's memory are mapped for each; prints the rate of both
whole() {
	local from
	do_in large 'echo 3 > /proc/sys/vm/drop_caches'
	clock; from=$now
	do_in large 'for d in a b; do dd if=/dev/vd$d of=/dev/null bs=1M 2>/dev/null; done' || return
	clock; echo "$((800 * 1000 / (now - from) / 10)).$((800 * 1000 / (now - from) % 10)) MiB/s"
	at_most "$1" taken large 0 && at_most "$1" taken large 1 || return
	do_in large 'for d in a b; do md5sum < /dev/vd$d; done' > /run/sums
	printf '%s\n' "$sum_a" "$sum_b" | cmp - /run/sums
}

said=$(dmesg | wc -l)
memory=520 configure large 1 2
check 'the guest is created, paused' create large || return
check 'and served' serve || return
check 'it boots' start large || return
patience=300
check 'both disks are read whole and are right' whole $((128 * 1024))
figures
check 'they are served with a limit of 64 MiB' serve --map-limit=64
check 'and are right' whole $((64 * 1024))
figures
check "dom0's kernel said nothing" silent
check 'they are served without a limit to speak of' serve --map-limit=1024
check 'and are right, though dom0 has no room for that' whole $((1024 * 1024))
figures
for disk in 0 1; do
	check 'which its vdisk says at most once' eval \
	    '[ "$(grep -c "the host has no room" "/log/large-vdisk$disk.err")" -le 1 ]'
done
check 'and one of them does' \
    grep -h 'the host has no room' /log/large-vdisk0.err /log/large-vdisk1.err
check 'no vdisk saw a fault' fails grep -h 'guest fault' /log/large-vdisk0.err /log/large-vdisk1.err
check 'the guest had nothing to complain about' without_trouble large
check 'it is destroyed' destroy large
check 'no zombie is left' within 5 only_dom0
