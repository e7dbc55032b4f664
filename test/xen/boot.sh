#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# boot.sh SCENARIO: boot the machine, run scenario/SCENARIO.sh in its dom0, and
# exit with its status.  What the scenario prints appears here; everything else
# goes to files.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

if [ $# != 1 ] || [ ! -f "$here/scenario/$1.sh" ]; then
	echo 'usage: boot.sh SCENARIO, one of:'
	(cd "$here/scenario" && for file in *.sh; do echo "  ${file%.sh}"; done)
	exit 2
fi
if [ ! -e "$dir/images.done" ]; then
	echo "there is no whole machine in $dir; test/xen/build.sh makes it"
	exit 1
fi
if [ "$1" = dom0less-root ] && [ "$(xen_minor)" -lt 22 ]; then
	echo "skip: $1: Xen 4.$(xen_minor) does not know trap-unmapped-accesses, or reads memory as all ones with it"
	exit
fi
if [ ! -e "$guest_dir/guest.cpio" ]; then
	echo "there is no guest in $guest_dir; test/xen/build.sh makes it"
	exit 1
fi
for number in "MINUTES=${MINUTES:-0}" "ROUNDS=${ROUNDS:-0}" "VCPUS=${VCPUS:-2}" \
    "PROCESSORS=${PROCESSORS:-2}" "VDISK_XEN_TIMEOUT=${VDISK_XEN_TIMEOUT:-0}"; do
	case ${number#*=} in
	'' | *[!0-9]*)
		echo "$number: not a number"
		exit 2
		;;
	esac
done
run=$dir/run/$1
exec 8> "$dir/$1.lock"	# QEMU has it, too
flock -n 8 || { echo "$1 runs already in $dir"; exit 1; }
limit=${VDISK_XEN_TIMEOUT:-$((3600 + 60 * ${MINUTES:-0}))}
silence=$((limit / 6))
input=/dev/null
interrupt=on
if [ "$1" = shell ]; then
	limit=86400
	silence=$limit
	input=/dev/stdin
	interrupt=off
fi
# With one processor the emulated Arm computer takes instructions for time: it
# does the same in every run, however busy this one is.  With two it runs as fast
# as it can, and what is measured comes before everything else here.
processors=${PROCESSORS:-2}
accel='tcg,thread=multi'
rounds=10
least=0
least_of_pv=0
if [ "$arch$processors" = arm641 ]; then
	accel='tcg,thread=single -icount shift=2,sleep=off'
	rounds=2
	least=0.9
	# Where vdisk can yield its vCPU, of single small requests; 0.60 is had by naps.
	if [ ! "${LEAST:-}" ] && traps_wfe "$1"; then
		least_of_pv=0.68
	fi
	if [ "${PROFILE:-}" ]; then
		accel="$accel -plugin $dir/profile.so,out=$run/profile"
	fi
elif [ "$1" = bench ]; then
	renice -n -20 $$ > /dev/null 2>&1 || true
fi

# What changes more often than the machine goes over its dom0.cpio.
rm -rf "$run"
mkdir -p "$run/profile" "$run/overlay/usr/sbin" "$run/overlay/usr/lib" "$run/overlay/scenario"
cp -r "$here/dom0/." "$run/overlay/"
cp -r "$here/scenario/." "$run/overlay/scenario/"
cp "$here/scenario/$1.sh" "$run/overlay/scenario/main.sh"
cp "$dir/vdisk" "$top/xen/vdisk-create" "$run/overlay/usr/sbin/"
cp "$dir/attack.so" "$run/overlay/usr/lib/"
[ ! -e "$dir/kernel.done" ] && [ -z "$guest" ] || mkdir "$run/overlay/guest"
if [ -n "$guest" ]; then
	cp "$guest_dir/Image" "$guest_dir/guest.cpio" "$run/overlay/guest/"
fi
if [ -e "$dir/kernel.done" ]; then
	cp "$dir/Image-grants" "$run/overlay/guest/"
	for domid in 0 1; do
		sed "s/&grants 0/\&grants $domid/" "$here/scenario/grants.dts" |
		    dtc -q -O dtb -o "$run/overlay/guest/grants-$domid.dtb"
	done
fi
# A scenario with a device tree of its own has a guest that Xen makes from it.
toolstack=yes
[ ! -e "$here/scenario/$1.dts" ] || toolstack=no
{
	echo "toolstack=$toolstack"
	# dom0 gives up first, so that the logs get out.
	echo "limit=$((limit > 120 ? limit - 60 : limit))"
	echo "export arch=$arch xen_minor=$(xen_minor) checks='${CHECKS:-*}'"
	echo "export OPTIONS='${OPTIONS:-}' ROUNDS=${ROUNDS:-$rounds} MINUTES=${MINUTES:-0}"
	echo "export PROFILE=${PROFILE:-}"
	echo "export guest='$guest'"
	echo "export VCPUS=${VCPUS:-2} LEAST=${LEAST:-$least} LEAST_OF_PV=$least_of_pv"
	echo 'export green= red= bold= dim= plain= size='
	if [ -t 1 ]; then
		printf "green='\033[32m' red='\033[31m' bold='\033[1m' dim='\033[2m' plain='\033[0m'\n"
		echo "export TERM=$TERM size='rows $(tput lines) columns $(tput cols)'"
	fi
} > "$run/overlay/scenario/environment"
(cd "$run/overlay" && find . | sort | cpio --quiet -o -H newc -R 0:0) > "$run/overlay.cpio"
cat "$dir/dom0.cpio" "$run/overlay.cpio" > "$run/initrd"

# load_tree NAME: the device tree with what Xen needs for the scenario's guest,
# $run/machine.dtb, and the files that it tells of.  There is one guest, in
# dom0less.dts; what a scenario has beside adds to that.
load_tree() {
	mkdir "$run/guest"
	cp "$here/scenario/$1-init" "$run/guest/init"
	cp "$top/xen/vdisk-bind" "$run/guest/"
	(cd "$run/guest" && find . | cpio --quiet -o -H newc -R 0:0) |
	    cat "$guest_dir/guest.cpio" - > "$run/ramdisk"
	dtc -q -O dtb -o "$run/guest.dtb" "$here/scenario/dom0less-guest.dts"
	{
		dtc -q -I dtb "$run/computer.dtb"
		sed "s/IMAGE/$(stat -c %s "$guest_dir/Image")/
			s/DOM0/$(stat -c %s "$run/initrd")/
			s/RAMDISK/$(stat -c %s "$run/ramdisk")/
			s/TREE/$(stat -c %s "$run/guest.dtb")/" "$here/scenario/dom0less.dts"
		[ "$1" = dom0less ] || cat "$here/scenario/$1.dts"
	} | dtc -q -O dtb -o "$run/machine.dtb"
}

# The computer, in which Xen finds dom0's kernel and initrd.
xen_options='loglvl=all guest_loglvl=all dom0_mem=1024M'
[ "$1" != driver-domain ] || xen_options="$xen_options xsm=flask"
case $arch in
arm64)
	# QEMU's device tree has a seed for KASLR, for which Linux isolates its page
	# tables; QEMU then forgets all translations twice in each system call.
	# Elsewhere that is cheap, and here nobody is to be kept from anything.
	name=$1
	cpu=cortex-a57
	case $guest in *-16k) cpu=neoverse-n1 ;; esac	# has pages of 16 KiB
	set -- qemu-system-aarch64
	if wants_qemu "$name" "$processors" && [ -e "$dir/qemu" ]; then
		libraries=$(echo "$dir"/qemu/usr/lib/*-linux-gnu)
		export QEMU_MODULE_DIR="$libraries/qemu"
		set -- "$libraries"/ld-linux-*.so.* \
		    --library-path "$libraries:$libraries/pulseaudio" \
		    "$dir/qemu/usr/bin/qemu-system-aarch64" -L "$dir/qemu/usr/share/qemu"
	fi
	set -- "$@" -smp "$processors" -m 2048 -cpu "$cpu" \
	    -machine virt,virtualization=on,gic-version=3 \
	    -global virtio-mmio.force-legacy=false -device virtio-serial-device
	# Addresses: all files must miss QEMU's device tree and each other.
	if [ "$toolstack" = yes ]; then
		set -- "$@" \
		    -device "guest-loader,addr=0x49000000,kernel=$dir/Image,bootargs=console=hvc0 panic=-1 kpti=off" \
		    -device "guest-loader,addr=0x50000000,initrd=$run/initrd"
	else
		"$@" -nodefaults -display none -machine "dumpdtb=$run/computer.dtb" 2> "$run/qemu.log"
		load_tree "$name"
		set -- "$@" -dtb "$run/machine.dtb"
		for file in "0x49000000,file=$dir/Image" "0x50000000,file=$run/initrd" \
		    "0x58000000,file=$guest_dir/Image" "0x5c000000,file=$run/ramdisk" \
		    "0x5f000000,file=$run/guest.dtb"; do
			set -- "$@" -device "loader,force-raw=on,addr=$file"
		done
	fi
	set -- "$@" -append "console=dtuart sync_console bootscrub=0 dom0_max_vcpus=$processors $xen_options"
	;;
amd64)
	# AMD's virtualisation, emulated: without MWAIT, which Xen would idle
	# in for good, and RDTSCP, which guests would take for RDTSC; and with
	# FPU states switched eagerly, or else they get mixed up.  One
	# processor is faster than two.  In Debian 12's QEMU dom0 dies at
	# once, so Debian 13's is used, with its own libraries.
	libraries=$emulator/usr/lib/$triplet
	export QEMU_MODULE_DIR="$libraries/qemu"
	set -- "$emulator/usr/lib/$loader" \
	    --library-path "$libraries:$libraries/pulseaudio" \
	    "$emulator/usr/bin/qemu-system-x86_64" \
	    -L "$emulator/usr/share/qemu" -L "$emulator/usr/share/seabios" \
	    -smp 1 -m 2560 -machine q35 -cpu EPYC,+svm,+npt,-monitor,-rdtscp \
	    -device virtio-serial-pci \
	    -append "console=com1 com1=115200,8n1 spec-ctrl=no,eager-fpu $xen_options" \
	    -initrd "$dir/Image console=hvc0 panic=-1 mitigations=off,$run/initrd"
	;;
esac

# The serial port is Xen's console.  Of the three ports beside it, the first is
# the scenario's terminal, the other takes the logs at the end.
exec 3< "$input"
mkfifo "$run/serial.in" "$run/serial.out"
cat "$run/serial.out" > "$run/serial.log" &
console=$!
# shellcheck disable=SC2086 # a list of words
"$@" -kernel "$dir/xen" \
    -accel $accel -nodefaults -display none -no-reboot \
    -serial "pipe:$run/serial" \
    -chardev "stdio,id=terminal,signal=$interrupt,logfile=$run/terminal.log" \
    -device virtconsole,chardev=terminal,nr=1 \
    -chardev "file,id=logs,path=$run/logs.tar" \
    -device virtserialport,chardev=logs,nr=2 \
    <&3 2> "$run/qemu.log" &
machine=$!

switch_off() {
	kill "$machine" 2> /dev/null || return 0
	timeout 10 tail --pid="$machine" -f /dev/null || kill -s KILL "$machine"
}
trap 'switch_off; exit 130' INT TERM HUP

# ask_xen: who is blocked?  Its console, which is dom0's and then a guest's without
# toolstack first, is asked for domains, run queues, the registers of dom0 and of
# everybody, timers and event channels: Xen remembers one key, and may be slow.
ask_xen() {
	console_keys='\001\001\001'
	[ "$toolstack" = yes ] || console_keys=$console_keys$console_keys
	for key in "$console_keys" q r 0 d a e; do
		printf '%b' "$key" | timeout 5 tee "$run/serial.in" > /dev/null || true
		for try in 1 2 3 4 5 6 7 8 9 10 11 12; do
			size=$(stat -c %s "$run/serial.log")
			sleep 2
			[ "$size" != "$(stat -c %s "$run/serial.log")" ] || break
		done
	done
}

# The x86 computer may lose the interrupt of its only timer, and then idles until there is
# another one: of its serial port, if nothing was said for a minute.
began=$(date +%s)
poked=$began
while kill -0 "$machine" 2> /dev/null; do
	sleep 1 &
	wait $!
	now=$(date +%s)
	said=$(stat -c %Y "$run/terminal.log" 2> /dev/null || echo "$now")
	if [ "$arch" = amd64 ] && [ $((now - said)) -ge 60 ] && [ $((now - poked)) -ge 60 ]; then
		echo | timeout 5 tee "$run/serial.in" > /dev/null || true
		poked=$now
	fi
	if [ $((now - said)) -ge "$silence" ] || [ $((now - began)) -ge "$limit" ]; then
		echo "switched off after $((now - began)) s; nothing was said for $((now - said)) s"
		ask_xen
		switch_off
	fi
done
# If it could not be switched on, its console still waits for it.
dd if=/dev/null of="$run/serial.out" oflag=nonblock 2> /dev/null || true
wait "$console" || true
rm -rf "$run/initrd" "$run/overlay.cpio" "$run/ramdisk" "$run"/serial.in "$run"/serial.out

# What it says of no guest's doing, but of the program's that serves an IOREQ server
complaint='device model set bad|Weird HVM ioreq|Unsuccessful map-cache'
mkdir "$run/log"
tar -C "$run/log" -xmf "$run/logs.tar" || true
rm "$run/logs.tar"
if [ ! -s "$run/log/status" ]; then
	tail -n 20 "$run/serial.log" "$run/qemu.log"
	echo "The machine stopped without a result; its console is in $run/serial.log"
	exit 1
fi
if grep -a -E "$complaint" "$run/serial.log"; then
	echo "Xen complained of a device model; its console is in $run/serial.log"
	exit 1
fi
exit "$(cat "$run/log/status")"
