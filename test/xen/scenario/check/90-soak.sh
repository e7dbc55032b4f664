# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2015,SC2016,SC2034,SC2086,SC2154,SC3028
# A guest's whole life, for so many MINUTES: loads that verify themselves, while all
# that can happen to a disk happens again and again, at random.  The vdisk of the
# first is killed and ended, and no request of it fails; that of the second lives all
# the time, and must take no more in the end than after a twelfth of it; the third is a
# device with and without a medium, which is a file in a file system that may be full; the
# fourth is a device that may be slow, be suspended or fail.
[ "$MINUTES" -gt 0 ] || { skip 'soak: for a number of MINUTES'; return; }
. /memory.sh

# What the guest does: find a disk by its serial; write and read one again and again,
# the third with nothing in it at first; so all of them, until they are stopped
words='named() { for d in /sys/block/vd?; do
		if [ "$(cat $d/serial 2> /dev/null)" = $1 ]; then echo ${d##*/}; fi; done; };
	load() { while [ ! -e /tmp/stop ]; do
		d=/dev/$(named $1); [ $1 != third ] || blkdiscard $d;
		verify -e -t 2 -s 1 $d > /tmp/$1 2>&1 || sleep 0.2;
		grep -v "requests/s" /tmp/$1 >> /tmp/load/$1; done; };
	work() { rm -f /tmp/stop; for s in first second third fourth; do load $s & done; }'

# pick WORD...: set 'picked' to one of them
pick() {
	shift $((RANDOM % $#))
	picked=$1
}

# serve N PATH [OPTION...]: by a vdisk with that path
serve() {
	local disk=$1 path=$2
	shift 2
	set -- "$@" -s "$(echo 'first second third fourth' | cut -d ' ' -f $((disk + 1)))"
	[ "$disk" != 3 ] || set -- "$@" --direct
	vdisk_start soak "$disk" "$path" "$@"
}

# was_short N: count it if this vdisk has found dom0 so
was_short() {
	! grep -q 'no room' "/log/soak-vdisk$1.err" || short=$((short + 1))
}

# follow N PATH: another vdisk follows, with another limit
follow() {
	vdisk_wait soak "$1"
	was_short "$1"
	pick 0 2 4 1024
	serve "$1" "$2" "--map-limit=$picked"
}

# become TABLE: what the fourth disk's device is from now on
become() {
	echo "$1" | dmsetup load fourth && dmsetup suspend --noflush --nolockfs fourth &&
	    dmsetup resume fourth
}
well="0 16384 linear /dev/loop0 0"

# What happens to vdisks
kill_one() { vdisk_signal soak 0 KILL && follow 0 /tmp/0; }
end_one() { vdisk_signal soak 0 TERM && follow 0 /tmp/0; }
kill_last() { vdisk_signal soak 3 KILL && follow 3 /dev/dm-0; }
report() { vdisk_signal soak 1 USR2; }
grow() { sectors=$((sectors + 8)) && truncate -s $((sectors * 512)) /tmp/1 && vdisk_signal soak 1 USR1; }
stall() { vdisk_signal soak 1 STOP && sleep 1 && vdisk_signal soak 1 CONT; }
eject() { vdisk_signal soak 2 TERM && follow 2 none && sleep 1 && vdisk_signal soak 2 TERM && follow 2 /tmp/small/2; }

# to disks
full() {
	local left=20
	while [ "$left" -gt 0 ]; do
		dd if=/dev/zero bs=64k >> /tmp/small/more 2> /dev/null
		sleep 0.1
		left=$((left - 1))
	done
	rm /tmp/small/more
}
slow() { become '0 16384 delay /dev/loop0 0 100' && sleep 2 && become "$well"; }
suspend() { dmsetup suspend --noflush --nolockfs fourth && sleep 2 && dmsetup resume fourth; }
fail() {
	become '0 4096 linear /dev/loop0 0
4096 8192 error
12288 4096 linear /dev/loop0 12288' && sleep 2 && become "$well"
}

# to dom0: somebody, who is the first to be killed, takes all its memory but so many MiB
hunger() {
	local available
	available=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
	sh -c 'echo 1000 > /proc/self/oom_score_adj
		exec timeout 4 dd if=/dev/zero of=/dev/null bs="$0"M' $((available - least)) || true
}

# and to the guest
balloon() { xl mem-set soak $((memory - 16)) && xl mem-set soak "$memory"; }
pause() { xl pause soak && sleep 1 && xl unpause soak; }
rebind() {
	do_in soak 'cd /sys/bus/virtio/drivers/virtio_blk;
		d=$(basename $(readlink /sys/block/$(named second)/device));
		echo $d > unbind; sleep 0.5; echo $d > bind;
		until [ -n "$(named second)" ]; do sleep 0.1; done'
}

# all_serve: whether each disk has its vdisk
all_serve() {
	local disk
	for disk in 0 1 2 3; do
		[ -e "/run/soak-$disk.status" ] || continue
		echo "vdisk $disk exited with status $(cat "/run/soak-$disk.status")"
		tail -n 5 "/log/soak-vdisk$disk.err"
		return 1
	done
}

acts='kill_one kill_one end_one kill_last report grow stall eject full slow suspend fail
    hunger balloon pause rebind'

# round: some of that, and nobody has found a byte that is wrong since
round() {
	local left=10
	while [ "$left" -gt 0 ]; do
		pick $acts
		echo "$picked"
		"$picked" && all_serve || return
		happened=$((happened + 1))
		left=$((left - 1))
		sleep "0.$((RANDOM % 10))"
	done
	dmesg -c >> /log/soak-kernel.log
	right
}

# each_once: all of that, once
each_once() {
	local act
	for act in $acts; do
		echo "$act"
		"$act" && all_serve || return
	done
	right
}

# right: whether no load has found a byte that is wrong, and no request of the first
# failed
right() {
	do_in soak 'cd /tmp/load; ! grep "sector\|errors" * && ! grep failed first &&
		for s in *; do awk -v s=$s "/right/ { times++ } /failed/ { failed += \$2 }
			END { print times + 0, \"times all of the\", s \",\", failed + 0, \"requests failed\" }" $s; done'
}

# failed_of DISK: whether requests of it have, because something happened to it
failed_of() {
	do_in soak "grep -q failed /tmp/load/$1"
}

# rest: the loads are over
rest() {
	do_in soak 'touch /tmp/stop; wait'
}

# need: of the one that lives, at rest: descriptors, mappings, and KiB of memory, but for
# the stack, of which a rare call may be the first to use a page.  That of an idle guest
# is not mapped for long.
need() {
	local run
	run=/proc/$(cat /run/soak-1.pid)
	sleep 4
	set -- "$run"/fd/*
	echo "$# $(wc -l < "$run/maps") $(awk '
		/^[0-9a-f]+-/ { stack = $6 == "[stack]" }
		$1 == "Anonymous:" && !stack { sum += $2 }
		END { print sum }' "$run/smaps")"
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

# spared: whether dom0's kernel has had no worse to say than that its memory was short
spared() {
	dmesg -c >> /log/soak-kernel.log
	! grep 'WARNING\|BUG\|Killed process' /log/soak-kernel.log | grep -v '(dd)'
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

dmesg -c > /dev/null
free=$(free_memory)
image /tmp/0 8
image /tmp/1 8
image /tmp/3 8
sectors=16384 happened=0 short=0 least=32
memory=$([ "$arch" = arm64 ] && echo 160 || echo 256)
patience=100
configure soak 2 4
check 'there is a file system that may be full' \
    eval 'mkdir /tmp/small && mount -t tmpfs -o size=6m tmpfs /tmp/small && image /tmp/small/2 4' || return
check 'and a device that may fail' \
    eval 'losetup /dev/loop0 /tmp/3 && dmsetup create fourth --table "$well"' || return
check 'a guest is created, paused' create soak || return
check 'its first vdisk is ready' serve 0 /tmp/0 || return
check 'and the second' serve 1 /tmp/1 || return
check 'and the third' serve 2 /tmp/small/2 || return
check 'and the fourth' serve 3 /dev/dm-0 || return
check 'the guest boots' start soak || return
check 'sixteen threads write and read all of the second; every byte is right' \
    do_in soak "$words;"' verify -t 16 -s 2 /dev/$(named second)'
check 'it is at work' do_in soak 'mkdir /tmp/load; work'
check 'each thing that can happen does' each_once
rounds $((MINUTES * 5)) || return
check 'its loads come to an end' rest
before=$(need)
check 'they begin anew' do_in soak work
rounds $((MINUTES * 55)) || return
check 'its loads come to an end' rest
check 'the vdisk that was never ended needs no more than at first' no_more
figures
check 'each disk can be written and read whole' do_in soak \
    'for s in first second third fourth; do verify -t 2 -s 1 /dev/$(named $s) || break; done | grep -c right | grep 4'
check 'every byte was right all the time' right
figures
check 'requests of the third failed while it was full or taken away' failed_of third
check 'and of the fourth while its device failed' failed_of fourth
for disk in 0 1 2 3; do
	was_short "$disk"
done
check 'that vdisk has said nothing but what it was asked for' \
    fails grep -v 'requests\|sectors, previously\|no room' /log/soak-vdisk1.err
check 'the guest complained of nothing but disks that were taken from it' \
    without_trouble soak 'I/O error, dev vd'
check 'it is destroyed' destroy soak
for disk in 0 1 2 3; do
	check "vdisk $disk exits with status 0 within 2 s" vdisk_ended soak "$disk" 0 2
done
for file in /tmp/0 /tmp/1 /tmp/small/2 /dev/dm-0; do
	check "no sector of $file is torn or old in dom0" verify -c -g 1 "$file"
done
dmsetup remove fourth
losetup -d /dev/loop0
umount /tmp/small
check 'no zombie is left' within 5 only_dom0
check 'Xen has as much memory as before' within 5 memory_back
check "dom0's kernel killed nobody but who took all memory" spared
echo "          $happened things happened; $short vdisks found dom0 short of memory"
