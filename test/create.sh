#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# shellcheck disable=SC2016,SC2015,SC2317 # what is quoted is run later
# xen/vdisk-create, with an xl, a Xenstore and a vdisk that are as much of the
# real ones as it needs.  The guest $NAME has the disks $DISKS or $ENTRIES entries,
# its configuration says $ON of events, and it has $LIVES, each as another domain
# from number 5 on.
cd "$(dirname "$0")/.." || exit 1
fake=$(mktemp -d) || exit 1
trap 'rm -rf "$fake"' EXIT
trap 'exit 130' INT TERM HUP
mkdir "$fake/bin" "$fake/log"
sed "s|/var/log/xen|$fake/log|" xen/vdisk-create > "$fake/bin/vdisk-create"
export fake PATH="$fake/bin:$PATH" NAME=guest DISKS='' ENTRIES=0 ON='' LIVES=1 BUSY=0 GRANTS=0

# program NAME: it is what is on standard input
program() {
	{ echo '#!/bin/sh'; cat; } > "$fake/bin/$1"
	chmod 755 "$fake/bin/$1"
}
program xenstore-list <<-'END'
	ls "$fake/xs/$1"
END
program xenstore-rm <<-'END'
	rm "$fake/xs/$1"
END
program xenstore-watch <<-'END'
	exec cat 0<> "$fake/news"
END
# Nobody sees half of it.
program xenstore-write <<-'END'
	mkdir -p "$(dirname "$fake/xs/$1")"
	printf %s "$2" > "$fake/new.$$"
	mv "$fake/new.$$" "$fake/xs/$1"
END
# What is not printable is escaped, unless it is wanted as it is.
program xenstore-read <<-'END'
	[ "$1" != -R ] || exec cat "$fake/xs/$2"
	[ -e "$fake/xs/$1" ] || exit 1
	LC_ALL=C sed 's/[^ -~]/\\x??/g' "$fake/xs/$1"
	echo
END
# The vdisk of a former life has the disk for $BUSY tries.
program vdisk <<-'END'
	printf '%s\n' "$*" >> "$fake/started"
	case $* in *' 5 '*) exit 0 ;; esac
	echo >> "$fake/tries"
	[ "$(wc -l < "$fake/tries")" -gt "$BUSY" ]
END
program xl <<-'END'
	tell() {
		for pair; do
			xenstore-write "$dir/${pair%%=*}" "${pair#*=}"
		done
	}
	announced() {
		state=$(xenstore-read "$dir/state" 2>/dev/null) && [ "$state" = 1 ]
	}
	backend=/local/domain/0/backend
	case "$*" in
	'domid '*) exit 1 ;;
	'-N create '*)
		printf '{\n  "name": "%s",\n%s\n' "$NAME" "$ON"
		[ -z "$DISKS" ] || echo '  "specification": "virtio"'
		for i in $(seq "$ENTRIES"); do echo '  "type": "virtio,device2"'; done
		;;
	'create '*)
		printf '%s\n' "$*" > "$fake/create"
		trap 'echo > "$fake/gone"' EXIT
		for life in $(seq "$LIVES"); do
			id=$((life + 4))
			xenstore-write "/local/domain/$id/name" "$NAME"
			dir=$backend/virtio_disk/$id/51712
			if [ "$DISKS" ]; then
				tell base=0x2000000 irq=33 dev=xvda mode=w grant_usage="$GRANTS" \
				    discard-enable=1 params="$DISKS" state=1
				echo "$dir/state" > "$fake/news"
				while announced; do sleep 0.01; done
				[ "$state" = 2 ] || exit 1
			fi
			for i in $(seq "$ENTRIES"); do
				dir=$backend/virtio/$id/$i
				tell base=0x2000000 irq=33 type=virtio,device2 grant_usage="$GRANTS"
			done
			echo "Waiting for domain $NAME (domid $id) to die [pid 1]"
		done
		echo > "$fake/ended"
		;;
	esac
END

status=0
# check SENTENCE COMMAND...: say so if it is not true
check() {
	sentence=$1
	shift
	"$@" > "$fake/check" 2>&1 && return
	echo "vdisk-create: not true: $sentence" >&2
	sed 's/^/    /' "$fake/check" >&2
	status=1
}

# create STATUS [ARGUMENT...]: whether it exits so, and then its guest has had all
# of its lives
create() {
	want=$1
	shift
	rm -rf "$fake/xs" "$fake/news" "$fake/started" "$fake/tries" "$fake/ended" "$fake/gone" \
	    "$fake/create"
	mkfifo "$fake/news"
	timeout 200 sh "$fake/bin/vdisk-create" "$@" > "$fake/said" 2>&1
	got=$?
	tries=0
	while [ -e "$fake/create" ] && [ ! -e "$fake/gone" ] && [ $((tries += 1)) -lt 10000 ]; do
		sleep 0.01
	done
	cat "$fake/said" "$fake"/log/* 2>/dev/null
	[ "$got" = "$want" ]
}
one_line() {
	cat "$fake/said"
	[ "$(wc -l < "$fake/said")" = 1 ] && grep -q -e "$1" "$fake/said"
}
# started COMMAND: whether these are all vdisks that were started
started() {
	cat "$fake/started"
	[ "$(cat "$fake/started")" = "$1" ]
}

check 'asked for it, it says how it is used' create 0 -h
check 'in one line' one_line '^usage: vdisk-create CONFIG'
check 'and fails if that cannot be printed' \
    sh -c '! sh "$fake/bin/vdisk-create" --help > /dev/full'
for wrong in '' -x --bogus; do
	check "'$wrong' is no configuration" create 2 "$wrong"
	check 'and is told so in one line' one_line '^usage: vdisk-create CONFIG'
done

DISKS=/srv/dísk-ü
check 'a disk may have any name' create 0 guest.cfg
check 'and is served in the background, out of reach of a terminal' \
    started '-d -s xvda -- 5 0x2000000 33 /srv/dísk-ü'
NAME=gäst
check 'and so may a guest' create 0 guest.cfg
check 'whose disk is served' started '-d -s xvda -- 5 0x2000000 33 /srv/dísk-ü'
NAME=guest

DISKS=/srv/a LIVES=2 BUSY=3
check 'a guest reboots' create 0 guest.cfg
check 'and its disk is served as soon as the former vdisk leaves it' \
    sh -c 'cat "$fake/started"; [ "$(grep -c -e "-- 6 " "$fake/started")" = 4 ]'
check 'for which xl has waited' test -e "$fake/ended"
DISKS='' LIVES=1 BUSY=0 ENTRIES=1

GRANTS=1
check 'a guest that grants its memory is created' create 0 guest.cfg /srv/a
check 'and its disk is served so' started '-d --grants -- 5 0x2000000 33 /srv/a'
DISKS=/srv/b ENTRIES=0
check 'so is one with a disk' create 0 guest.cfg
check 'which is served so, too' started '-d --grants -s xvda -- 5 0x2000000 33 /srv/b'
DISKS='' ENTRIES=1 GRANTS=0

for event in poweroff reboot crash watchdog; do
	for action in restart restart_rename coredump_restart; do
		ON="  \"on_$event\": \"$action\","
		now=destroy
		[ "$action" != coredump_restart ] || now=coredump-destroy
		check 'a guest with an entry is created' create 0 guest.cfg /srv/a
		check "and ends at $event, for which it has $action" \
		    grep "on_$event=\"$now\"" "$fake/create"
		check 'its disk is served' started '-d -- 5 0x2000000 33 /srv/a'
	done
done
ON='  "on_crash": "preserve",'
check 'a guest that is to be preserved is created' create 0 guest.cfg /srv/a
check 'and will be' sh -c '! grep on_ "$fake/create"'
ON='' ENTRIES=2
check 'of a configuration that is refused' \
    create 1 "$(printf 'guest\n\033[31m.cfg')" /srv/a
check 'the name does nothing to a terminal' \
    one_line '^vdisk-create: guest??\[31m.cfg has 2 virtio entries'
exit $status
