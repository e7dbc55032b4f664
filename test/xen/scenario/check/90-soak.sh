# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2154,SC3028
# A guest's whole life, for so many MINUTES: loads that verify themselves, while all
# that can happen to a disk happens again and again, at random.  The vdisk of the
# first is killed and ended; that of the second lives all the time, and must take no
# more in the end than after a twelfth of it; the third is a drive with and without a
# disk.
[ "$MINUTES" -gt 0 ] || { skip 'soak: for a number of MINUTES'; return; }
. /memory.sh

# What the guest does: find a disk by its serial; write and read one again and again;
# so all of them, until they are stopped
words='named() { for d in /sys/block/vd?; do
		if [ "$(cat $d/serial 2> /dev/null)" = $1 ]; then echo ${d##*/}; fi; done; };
	load() { while [ ! -e /tmp/stop ]; do
		verify -t 2 -s 1 /dev/$(named $1) || sleep 0.2; done 2>&1 |
		grep -v "requests/s" >> /tmp/load/$1; };
	work() { rm -f /tmp/stop; for s in first second third; do load $s & done; }'

# pick WORD...: set 'picked' to one of them
pick() {
	shift $((RANDOM % $#))
	picked=$1
}

# follow N PATH: another vdisk follows, with another limit
follow() {
	vdisk_wait soak "$1"
	pick 0 2 4 1024
	vdisk_start soak "$1" "$2" -s "$(echo 'first second third' | cut -d ' ' -f $(($1 + 1)))" \
	    "--map-limit=$picked"
}

# What happens
kill_one() { vdisk_signal soak 0 KILL && follow 0 /tmp/0; }
end_one() { vdisk_signal soak 0 TERM && follow 0 /tmp/0; }
report() { vdisk_signal soak 1 USR2; }
grow() { sectors=$((sectors + 8)) && truncate -s $((sectors * 512)) /tmp/1 && vdisk_signal soak 1 USR1; }
stall() { vdisk_signal soak 1 STOP && sleep 1 && vdisk_signal soak 1 CONT; }
eject() { vdisk_signal soak 2 TERM && follow 2 none && sleep 1 && vdisk_signal soak 2 TERM && follow 2 /tmp/2; }
balloon() { xl mem-set soak $((memory - 16)) && xl mem-set soak "$memory"; }
stand() { xl pause soak && sleep 1 && xl unpause soak; }
rebind() {
	do_in soak 'cd /sys/bus/virtio/drivers/virtio_blk;
		d=$(basename $(readlink /sys/block/$(named second)/device));
		echo $d > unbind; sleep 0.5; echo $d > bind;
		until [ -n "$(named second)" ]; do sleep 0.1; done'
}

# round: some of that, and nobody has found a byte that is wrong since
round() {
	local left=10
	while [ "$left" -gt 0 ]; do
		pick kill_one kill_one end_one report grow stall eject balloon stand rebind
		echo "$picked"
		"$picked" || return
		happened=$((happened + 1))
		left=$((left - 1))
		sleep "0.$((RANDOM % 10))"
	done
	right
}

# right: whether no load has complained of more than disks that were taken from it: of
# what a write that failed should have written the old may be there
right() {
	do_in soak 'cd /tmp/load; ! grep "torn\|belongs" * && ! grep errors first &&
		! awk "/failed, error/ { failed = 1 } /stale/ && !failed { print FILENAME \": \" \$0 }
			/every byte|[0-9] errors/ { failed = 0 }" * | grep . &&
		for s in *; do echo $(grep -c right $s) times all of the $s; done'
}

# rest: the loads are over
rest() {
	do_in soak 'touch /tmp/stop; wait'
}

# need: of the one that lives, at rest: descriptors, mappings, and KiB of memory.  That
# of an idle guest is not mapped for long.
need() {
	local run
	run=/proc/$(cat /run/soak-1.pid)
	sleep 4
	set -- "$run"/fd/*
	echo "$# $(wc -l < "$run/maps") $(awk '$1 == "RssAnon:" { print $2 }' "$run/status")"
}

# no_more: whether it needs no more of anything than 'before'
no_more() {
	echo "before: $before"
	need > /run/after
	echo "after:  $(cat /run/after)"
	echo "$before" | cat - /run/after |
	    awk 'NR == 1 { split($0, was) } NR == 2 { for (i = 1; i <= 3; i++) more += $i > was[i] }
		END { exit more > 0 }'
}

# free_memory: what Xen has, in MiB
free_memory() {
	xl info | sed -n 's/^free_memory *: //p'
}

# memory_back: whether it has as much as before, but for what it may have kept to itself
memory_back() {
	echo "before: $free MiB, after: $(free_memory)"
	[ "$(free_memory)" -ge $((free - 2)) ]
}

# rounds SECONDS: until so many have passed
rounds() {
	local end
	clock
	end=$((now + $1 * 100))
	while [ "$now" -lt "$end" ]; do
		check "ten things happen, and every byte is right: $((happened / 10 + 1))" round || return
		clock
	done
}

title "Whatever can happen to disks, for $MINUTES minutes"

said=$(dmesg | wc -l)
free=$(free_memory)
image /tmp/0 8
image /tmp/1 8
image /tmp/2 4
sectors=16384 happened=0
memory=$([ "$arch" = arm64 ] && echo 160 || echo 256)
patience=300
configure soak 2 3
check 'a guest is created, paused' create soak || return
check 'its first vdisk is ready' vdisk_start soak 0 /tmp/0 -s first || return
check 'and the second' vdisk_start soak 1 /tmp/1 -s second || return
check 'and the third' vdisk_start soak 2 /tmp/2 -s third || return
check 'the guest boots' start soak || return
check 'it is at work' do_in soak "$words; mkdir /tmp/load; work"
rounds $((MINUTES * 5)) || return
check 'its loads come to an end' rest
before=$(need)
check 'they begin anew' do_in soak work
rounds $((MINUTES * 55)) || return
check 'its loads come to an end' rest
check 'the vdisk that was never ended needs no more than at first' no_more
figures
check 'each disk can be written and read whole' do_in soak \
    'for s in first second third; do verify -t 2 -s 1 /dev/$(named $s) || break; done | grep -c right | grep 3'
check 'every byte was right all the time' right
figures
check 'that vdisk has said nothing but what it was asked for' \
    fails grep -v 'requests\|sectors, previously' /log/soak-vdisk1.err
check 'the guest complained of nothing but disks that were taken from it' \
    without_trouble soak 'I/O error, dev vd'
check 'it is destroyed' destroy soak
for disk in 0 1 2; do
	check "vdisk $disk exits with status 0 within 2 s" vdisk_ended soak "$disk" 0 2
	check 'no sector is torn or old in dom0' verify -c -g 1 "/tmp/$disk"
done
check 'no zombie is left' within 5 only_dom0
check 'Xen has as much memory as before' within 5 memory_back
check "dom0's kernel said nothing" silent
echo "          $happened things happened"
