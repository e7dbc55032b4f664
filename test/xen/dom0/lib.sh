# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash
# What scenarios are told with.  A guest goes by the name it has in xl, its disks
# by their number, from 0.  Everything in /log gets out of the machine.

# clock: set 'now' to the time in hundredths of a second
clock() {
	read -r now _ < /proc/uptime
	now=${now%.*}${now#*.}
}

# within SECONDS COMMAND...: try the command until it succeeds.  What counts is
# not the clock but how often it was tried: on a computer busy with other things,
# where everything here is slow, it gets more time.
within() {
	local tries=$(($1 * 8))
	shift
	until "$@"; do
		[ "$tries" -gt 0 ] || return 1
		tries=$((tries - 1))
		sleep 0.1
	done
}

# image PATH MIB: an empty disk image
image() {
	dd if=/dev/zero of="$1" bs=1M count="$2" 2>/dev/null
}

# configure NAME VCPUS DISKS [LINE...]: write the guest's configuration for xl.
# It gets 128 MiB, or $memory; on x86, where it is an HVM guest, 256, and $cmdline
# is added to its kernel's command line.  $pv_disk is another disk, which Xen's own
# backend serves.
configure() {
	local file=/log/$1.cfg name=$1 vcpus=$2 disks=$3
	shift 3
	{
		cat <<-END
			name    = "$name"
			kernel  = "/guest/Image"
			ramdisk = "/guest/guest.cpio"
			vcpus   = $vcpus
			on_poweroff = "destroy"
			on_reboot   = "destroy"
			on_crash    = "destroy"
		END
		"describe_$arch" "$disks"
		for line in "$@"; do
			echo "$line"
		done
	} > "$file"
	: > /run/target
	echo 0 > "/run/$name.commands"
	rm -f "/run/$name.silent" "/run/$name.created"
}

# Linux 7 keeps 64 MiB for who needs memory in one piece, and has too little then to
# start.  Without 'acpi' xl mem-set dies of an assertion.  An xl that knows no virtio
# entries gets disks, of $target, which need not be what vdisk serves.
describe_arm64() {
	local name left=$1 disks=${pv_disk:-}
	echo 'cmdline = "console=hvc0 cma=0"'
	echo "memory  = ${memory:-128}"
	echo 'acpi    = 0'
	[ "$1" = 0 ] || ! knows_entries || echo 'virtio = ['
	for name in a b c d e f g h; do
		[ "$left" -gt 0 ] || break
		left=$((left - 1))
		if knows_entries; then
			echo '  "backend=0,type=virtio,device2,transport=mmio,grant_usage=0",'
		else
			disks="$disks \"format=raw,vdev=xvd$name,specification=virtio,target=${target:-/run/target}\","
		fi
	done
	[ "$1" = 0 ] || ! knows_entries || echo ']'
	[ -z "$disks" ] || echo "disk = [$disks ]"
}
# Since when xl does, by the n of Xen 4.n
knows_entries() {
	[ "$xen_minor" -ge 18 ]
}

# The table tells of four disks, whether they are there or not.  To read the time
# must not cost an exit, as it would by default on this processor.
describe_amd64() {
	cat <<-END
		cmdline = "console=hvc0 mitigations=off${cmdline:+ $cmdline}"
		memory  = ${memory:-256}
		type    = "hvm"
		acpi_firmware = "/guest/vdisk.aml"
		disk    = [${pv_disk:-} ]
		vga     = "none"
		usb     = 0
		tsc_mode = "native"
	END
}

# create NAME: make the guest, paused
create() {
	local status=0
	if [ "$arch" = arm64 ] && ! knows_entries; then
		accept_disks "/run/$1.created" &
	fi
	xl create -p "/log/$1.cfg" > "/log/$1-create.log" 2>&1 || status=$?
	touch "/run/$1.created"
	if [ "$status" != 0 ]; then
		cat "/log/$1-create.log"
		return 1
	fi
	xl domid "$1" > "/run/$1.domid"
	# Nobody speaks Xenstore for these devices; without this, xl destroy
	# would wait ten seconds for somebody to.
	[ "$arch" != arm64 ] || answer_xl "" 6 "$(cat "/run/$1.domid")"
}

# accept_disks FILE: until the file appears, answer xl, which waits for a backend of
# each disk
accept_disks() {
	local domid
	until [ -e "$1" ]; do
		for domid in $(xenstore-list /local/domain/0/backend/virtio_disk 2>/dev/null); do
			answer_xl 1 2 "$domid"
		done
		sleep 0.1
	done
}

# answer_xl FROM TO DOMID: what the states of that domain's backends become, if
# they are FROM, or whatever they are
answer_xl() {
	local kind id node
	for kind in virtio virtio_disk; do
		for id in $(xenstore-list "/local/domain/0/backend/$kind/$3" 2>/dev/null); do
			node=/local/domain/0/backend/$kind/$3/$id/state
			if [ -z "$1" ] || [ "$(xenstore-read "$node" 2>/dev/null)" = "$1" ]; then
				xenstore-write "$node" "$2"
			fi
		done
	done
}

# place N: the address and interrupt that libxl gives the disk, or that are in
# the table
place() {
	case $arch in
	arm64) printf '0x%x %d\n' $((0x2000000 + $1 * 0x200)) $((33 + $1)) ;;
	amd64) printf '0x%x %d\n' $((0xfeb00000 + $1 * 0x200)) \
	    "$(echo '5 7 10 11' | cut -d ' ' -f $(($1 + 1)))" ;;
	esac
}

# vdisk_start NAME N PATH [OPTION...]: start the vdisk of a disk and wait until it
# is ready
vdisk_start() {
	local name=$1 disk=$2 path=$3
	local run=/run/$name-$disk log=/log/$name-vdisk$disk
	shift 3
	rm -f "$run.status"
	: > "$log.out"
	(
		# shellcheck disable=SC2016,SC2046
		sh -c 'echo $$ > "$0"; exec vdisk "$@"' "$run.pid" "$@" \
		    "$(cat "/run/$name.domid")" $(place "$disk") "$path" \
		    > "$log.out" 2> "$log.err"
		echo $? > "$run.status"
	) &
	within 20 grep -q '^ready' "$log.out" ||
	    { echo 'not ready after 20 s:'; cat "$log.out" "$log.err"; return 1; }
}

# vdisk_signal NAME N SIGNAL
vdisk_signal() {
	kill "-$3" "$(cat "/run/$1-$2.pid")"
}

# vdisk_wait NAME N: wait until a vdisk has ended, for as long as it takes.  Its
# successor is started after that, lest the one's status be taken for the other's.
vdisk_wait() {
	until [ -s "/run/$1-$2.status" ]; do :; done
}

# vdisk_ended NAME N STATUS SECONDS: whether it exits with this status in time
vdisk_ended() {
	within "$4" test -s "/run/$1-$2.status" ||
	    { echo "still runs after $4 s"; return 1; }
	[ "$(cat "/run/$1-$2.status")" = "$3" ] ||
	    { echo "exit status $(cat "/run/$1-$2.status")"; cat "/log/$1-vdisk$2.err"; return 1; }
}

# start NAME: let the guest run, and wait until it listens to do_in
start() {
	xl unpause "$1"
	within 120 grep -q 'The guest is up\|Kernel panic' "/log/guest-$1.log"
	grep -q 'The guest is up' "/log/guest-$1.log" ||
	    { echo 'it is not up:'; tail -n 12 "/log/guest-$1.log"; return 1; }
	xenstore-read "/local/domain/$(cat "/run/$1.domid")/console/tty" > "/run/$1.tty"
}

# moved NAME [LOG]: the guest goes on as another domain, which has its console's log
# in that file of /log
moved() {
	xl domid "$1" > "/run/$1.domid"
	xenstore-read "/local/domain/$(cat "/run/$1.domid")/console/tty" > "/run/$1.tty"
	[ -z "${2:-}" ] || ln -sf "$2" "/log/guest-$1.log"
}

# do_in NAME COMMAND: run a shell command in the guest; its output and status
# are passed on.  Line ends in it count as blanks.  After 60 s, or $patience, the
# guest is given up, and is not asked any more.
do_in() {
	local number from tty status log=/log/guest-$1.log
	[ ! -e "/run/$1.silent" ] || { echo 'the guest does not answer any more'; return 124; }
	read -r number < "/run/$1.commands"
	number=$((number + 1))
	echo "$number" > "/run/$1.commands"
	from=$(($(wc -c < "$log") + 1))
	read -r tty < "/run/$1.tty"
	echo "$number $(echo "$2" | tr '\n' ' ')" > "$tty"
	within "${patience:-60}" answered "$log" "$from" "$number" "/run/$1.answer" ||
	    { echo "no answer from the guest after ${patience:-60} s: $2"
	      touch "/run/$1.silent"; return 124; }
	{
		read -r status
		cat
	} < "/run/$1.answer"
	return "$status"
}
# busy DISK: the command, for a guest's shell, to wait until that has something to do
busy() {
	echo "until read -r _ _ _ _ _ _ _ _ n _ < /sys/block/$1/stat && [ \$n != 0 ]; do sleep 0.1; done"
}
# answered LOG FROM NUMBER FILE: whether that command has ended, by what commands have
# printed there since that byte: then its status and its output are in the file.  What
# the kernel says has the same console, and may come in the middle of a line.
answered() {
	tail -c "+$2" "$1" | awk -v mark="#$3=" '
		{ gsub(/\r/, "") }
		match($0, /\[ *[0-9]+\.[0-9]+\] /) {
			begun = begun substr($0, 1, RSTART - 1)
			next
		}
		{
			line = begun $0
			begun = ""
			at = index(line, mark)
			rest = substr(line, at + length(mark))
			if (at > 0 && match(rest, /^[0-9]+#/)) {
				status = substr(rest, 1, RLENGTH - 1)
				if (at > 1)
					text = text substr(line, 1, at - 1) "\n"
				exit
			}
			text = text line "\n"
		}
		END {
			if (status == "")
				exit 1
			printf "%s\n%s", status, text
		}' > "$4"
}

# send_in NAME COMMAND: tell the guest to do what nothing comes back from
send_in() {
	echo "0 $2" > "$(cat "/run/$1.tty")"
}

# destroy NAME: on one processor not before vdisk has unmapped what an idle guest had,
# at which Xen would look again and again (CAVEATS in vdisk(8))
destroy() {
	[ "$(nproc)" != 1 ] || sleep 3
	xl destroy "$1" && rm -f "/run/$1.domid"
}

# only_dom0: whether no other domain is left, dead or alive
only_dom0() {
	[ "$(xl list | wc -l)" = 2 ]
}

# guest_symbols: of the kernel of guest bench, if boot.sh's $PROFILE wants to name them
guest_symbols() {
	[ -z "$PROFILE" ] ||
	    patience=1000 do_in bench 'gzip -c /proc/kallsyms | base64' > /log/kallsyms-guest
}
