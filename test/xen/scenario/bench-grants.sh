# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2086,SC2154
# make bench-xen GRANTS=1: a guest that grants its memory has two disks on files alike,
# in memory: one that maps foreign memory, and one with --grants, both with $OPTIONS.
# It does the same with each of them in turns.
. /grants.sh

granting bench "$VCPUS" 0
create bench || exit
image /tmp/0 64
image /tmp/1 64
vdisk_start bench 0 /tmp/0 -s foreign $OPTIONS || exit
vdisk_start bench 1 /tmp/1 -s granted --grants $OPTIONS || exit
start bench || exit
foreign=$(do_in bench 'grep -l foreign /sys/block/vd?/serial | cut -d / -f 4')
granted=$(do_in bench 'grep -l granted /sys/block/vd?/serial | cut -d / -f 4')
do_in bench "(sleep 2; exec rate $ROUNDS 0.4 /dev/$foreign /dev/$granted) > /tmp/rates 2>&1 &"
sleep $((ROUNDS * 5 + 5))
patience=1000 do_in bench 'wait $!; status=$?; cat /tmp/rates; [ $status = 0 ]' > /log/rates ||
    { cat /log/rates; exit 1; }
cp /proc/kallsyms /log/
guest_symbols
awk -v granted="/dev/$granted" '
	!($1 in seen) { seen[$1] = 1; works[++n] = $1 }
	$3 == granted { to[$1] += $4; rounds = $2 }
	$3 != granted { from[$1] += $4 }
	END {
		printf "%-20s %8s %8s %6s\n", "requests/s", "foreign", "grants", "ratio"
		for (i = 1; i <= n; i++)
			printf "%-20s %8.0f %8.0f %6.2f\n", works[i], from[works[i]] / rounds,
			    to[works[i]] / rounds, to[works[i]] / from[works[i]]
	}' /log/rates
