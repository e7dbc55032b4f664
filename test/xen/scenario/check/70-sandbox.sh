# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2046,SC2154
# vdisk has given up what it does not need: all goes on without it, and what it
# might try once compromised is denied.
title 'As another user, with memory coming and going'

image /tmp/disk 32
chmod 600 /tmp/disk
memory=192 configure nobody 2 1
check 'a guest is created, paused' create nobody || return
check 'vdisk becomes nobody' vdisk_start nobody 0 /tmp/disk -u nobody || return
# status_is KEY VALUE: what the kernel says of that vdisk
status_is() {
	[ "$(sed -n "s/^$1:[[:space:]]*//p" "/proc/$(cat /run/nobody-0.pid)/status")" = "$2" ]
}
check 'it has no user but that' status_is Uid '65534	65534	65534	65534'
check 'nor a group' status_is Gid '65534	65534	65534	65534'
check 'it has no capabilities' status_is CapEff 0000000000000000
check 'it is under a filter of system calls' status_is Seccomp 2
check 'the guest boots' start nobody || return
check 'it uses the disk' do_in nobody 'verify -t 4 -s 1 /dev/vda'
check 'xl takes memory from the guest' xl mem-set nobody 160
check 'it uses the disk' do_in nobody 'verify -t 4 -s 1 /dev/vda'
check 'xl gives it back' xl mem-set nobody 192
check 'it uses the disk' do_in nobody 'verify -t 4 -s 1 /dev/vda'
vdisk_signal nobody 0 KILL
vdisk_wait nobody 0
check 'killed, vdisk goes on as nobody' vdisk_start nobody 0 /tmp/disk -u nobody
check 'the guest uses the disk' do_in nobody 'verify -t 4 -s 1 /dev/vda'
check 'the guest had nothing to complain about' without_trouble nobody
check 'the guest is destroyed' destroy nobody
check 'vdisk exits with status 0 within 2 s' vdisk_ended nobody 0 0 2

title 'Taken over'

configure victim 1 1
configure other 1 0
check 'a guest is created' create victim || return
check 'and another one' create other || return
# attack HOW OPTION...: a vdisk of the first guest turns bad in its sandbox
attack() {
	local how=$1 status=0
	shift
	# shellcheck disable=SC2046	# two arguments
	ATTACK=$how OTHER=$(cat /run/other.domid) LD_PRELOAD=/usr/lib/attack.so \
	    timeout 20 vdisk "$(cat /run/victim.domid)" $(place 0) /tmp/disk "$@" \
	    < /dev/null > /dev/null 2> /run/attack.err || status=$?
	grep -q '^attack: ' /run/attack.err || echo "status $status" >> /run/attack.err
}
# ends EXPECTED ATTACK...: whether the attack ends so
ends() {
	local expected=$1
	shift
	attack "$@"
	grep -q "^$expected" /run/attack.err || { cat /run/attack.err; return 1; }
}
works() {
	LENIENT=1 ends 'attack: it worked' "$@" --no-sandbox
}
killed='status 159' # 128 + SIGSYS
while read -r how expected what; do
	case $expected in
	killed) expected=$killed ;;
	EPERM) expected='attack: Operation not permitted' ;;
	EACCES) expected='attack: Permission denied' ;;
	esac
	check "with all its rights, vdisk can $what" works "$how"
	check "without them, it cannot" ends "$expected" "$how"
done <<-END
	dm-op EPERM play a device for another domain
	map EPERM map memory of another domain
	hypercall killed make hypercalls
	open killed open a file
	run killed run a program
	fork killed start a process
	socket killed make a socket
	signal killed send a signal
	ring-open EACCES open a file through the ring
	ring-socket EACCES make a socket through the ring
	ring-other EACCES write to other files than the disk
END
check 'the disk goes on with a vdisk of good will' vdisk_start victim 0 /tmp/disk

pattern=$(cat /proc/sys/kernel/core_pattern)
echo '|/bin/dd of=/tmp/core' > /proc/sys/kernel/core_pattern
{ sh -c 'kill -ABRT $$'; } 2> /dev/null
check 'a core is taken by a program' within 5 test -s /tmp/core
rm -f /tmp/core
vdisk_signal victim 0 ABRT
check 'vdisk is aborted' vdisk_ended victim 0 134 5
sleep 1
check 'and leaves none' fails test -e /tmp/core
echo "$pattern" > /proc/sys/kernel/core_pattern
check 'the disk goes on with another one' vdisk_start victim 0 /tmp/disk
