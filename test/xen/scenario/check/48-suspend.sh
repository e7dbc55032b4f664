# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2154
# A guest suspends itself under load, and wakes up: its driver resets the device, and
# takes it into use again.
. /grants.sh

# A serial line, as xl and the guest name it
case $arch in
arm64) line='vuart = "sbsa_uart"' node=vuart port=ttyAMA0 ;;
amd64) line='serial = "pty"' node=serial port=ttyS0 ;;
esac

# asleep NAME: whether nothing of its memory is mapped by its vdisks any more
asleep() {
	local run
	for run in "/run/$1"-*.pid; do
		[ "$(grep -c 'privcmd\|gntdev' "/proc/$(cat "$run")/maps")" = 1 ] || return 1
	done
}

# wake NAME STATE: by what comes on its serial line, at which QEMU looks now and then,
# or by xl
wake() {
	local domid
	domid=$(cat "/run/$1.domid")
	case $2 in
	freeze) { echo; unless_awake 20; } > "$(xenstore-read "/local/domain/$domid/$node/0/tty")" ;;
	mem) ! suspended "$1" || xl resume "$1" ;;
	esac
}

# unless_awake TENTHS: let so many of a second pass, or fewer if it has woken up
unless_awake() {
	local tenths=$1
	while [ "$tenths" -gt 0 ] && [ ! -e /run/awake ]; do
		sleep 0.1
		tenths=$((tenths - 1))
	done
}

# suspended NAME: whether Xen says so
suspended() {
	xl list "$1" | grep -q ' ...s.. '
}

# suspend NAME STATE COMMAND...: it suspends itself, and is woken when it sleeps and
# the command has been successful.  The line must be opened anew for it each time: its
# interrupt, which has woken the guest, is not seen by its driver, and Xen makes no
# other.
suspend() {
	local name=$1 state=$2 from=/dev/null status=0
	shift 2
	[ "$state" != freeze ] || from=/dev/$port
	rm -f /run/slept /run/awake
	(
		within 60 asleep "$name" && sleep 2 && "$@" && touch /run/slept
		until [ -e /run/awake ]; do
			wake "$name" "$state"
			unless_awake 10
		done
	) &
	do_in "$name" "echo $state < $from > /sys/power/state" || status=$?
	touch /run/awake
	wait $!
	[ "$status" = 0 ] && [ -e /run/slept ]
}

# replace NAME PATH: its first vdisk is killed and another one continues
replace() {
	vdisk_signal "$1" 0 KILL
	vdisk_wait "$1" 0
	vdisk_start "$1" 0 "$2"
}

# goes_on NAME: whether each of the loads has written and read all of its disk once
# more
goes_on() {
	do_in "$1" 'cd /tmp/load; for f in *; do n=$(grep -c right $f);
		until [ $(grep -c right $f) -gt $((n + 1)) ] || grep errors $f; do sleep 0.2; done; done;
		! grep errors *'
}

# sleeps NAME STATE PATH DISK...: the guest, which has booted with these disks,
# suspends itself again and again
sleeps() {
	local name=$1 state=$2 path=$3
	shift 3
	[ "$state" != freeze ] ||
	    do_in "$name" "echo enabled > /sys/class/tty/$port/power/wakeup"
	do_in "$name" "mkdir /tmp/load; for d in $*; do
		(while [ ! -e /tmp/stop ]; do verify -t 2 -s 1 /dev/\$d || break; done) > /tmp/load/\$d 2>&1 & done"
	check 'it is at work' goes_on "$name"
	check 'it suspends itself and wakes up' suspend "$name" "$state" true
	check 'the load goes on' goes_on "$name"
	check 'and once more; while it sleeps, a vdisk is killed, and another one started' \
	    suspend "$name" "$state" replace "$name" "$path"
	check 'the load goes on' goes_on "$name"
	check 'and at once again' suspend "$name" "$state" true
	check 'it was suspended three times' says 3 do_in "$name" 'cat /sys/power/suspend_stats/success'
	check 'every byte was right all the time' \
	    do_in "$name" 'touch /tmp/stop; wait; cd /tmp/load; cat *; ! grep errors *'
	check 'it had nothing to complain about' without_trouble "$name"
	check 'it is destroyed' destroy "$name"
	check 'vdisk exits with status 0 within 2 s' vdisk_ended "$name" 0 0 2
	check 'and had nothing to say' fails grep -v 'continuing\|the guest is gone' "/log/$name-vdisk0.err"
	check 'no sector is torn or old in dom0' verify -c -g 1 "$path"
	check 'no zombie is left' within 5 only_dom0
}

title 'Suspended to idle'

image /tmp/disk 8
configure idle 2 1 "$line"
check 'a guest is created, paused' create idle || return
check 'vdisk is ready' vdisk_start idle 0 /tmp/disk || return
check 'the guest boots' start idle || return
sleeps idle freeze /tmp/disk vda

if [ "$arch" = arm64 ]; then
	title 'Suspended to idle, with memory that is granted'

	image /tmp/plain 4
	image /tmp/granted 4
	granting grants 2 0 "$line"
	check 'a guest is created, paused' create grants || return
	check 'its disks are served' serve grants || return
	check 'it boots' start grants || return
	check 'it has the disk' granted grants || return
	sleeps grants freeze /tmp/plain vda vdb
	check 'no grant was still in use when it was taken back' \
	    fails grep 'still in use' /log/guest-grants.log
	check 'its other vdisk exits with status 0 within 2 s' vdisk_ended grants 1 0 2
	check 'no sector is torn or old there, either' verify -c -g 1 /tmp/granted
fi

[ "$arch" = arm64 ] || { skip "suspended to memory: not on x86"; return; }
[ "$xen_minor" -ge 22 ] || { skip "suspended to memory: not by Xen 4.$xen_minor"; return; }
title 'Suspended to memory'

image /tmp/disk 8
configure mem 2 1
check 'a guest is created, paused' create mem || return
check 'vdisk is ready' vdisk_start mem 0 /tmp/disk || return
check 'the guest boots' start mem || return
sleeps mem mem /tmp/disk vda
