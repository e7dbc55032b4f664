#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# systemd.sh PROGRAM: run PROGRAM (test/systemd.c) in a container in which this
# computer's systemd is the first process, and vdisk and its unit are installed
# as by make install PREFIX=/usr.  Nothing outside of it changes: what is written
# goes to a file system in memory that lies over this computer's own.
#
# ROOT is where vdisk is installed; FAKE_XEN_LIBS where the fake Xen is.
set -eu

if [ "${1:-}" != inside ]; then
	command -v systemd-analyze > /dev/null || "${0%/*}"/install.sh systemd
	unit=$ROOT/usr/lib/systemd/system/vdisk@.service
	mkdir -p "$ROOT/run"
	systemd-analyze verify --man=no "$unit"
	cgroup2=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)
	if [ "$(id -u)" != 0 ] || [ -z "$cgroup2" ]; then
		echo 'skipped: systemd: it needs root and cgroup2' >&2
		exit 0
	fi
	group=$cgroup2/vdisk-test-$$
	work=$(mktemp -d)
	container=
	clean() {
		[ -z "$container" ] || kill -KILL "$container" 2> /dev/null || true
		until [ ! -d "$group" ] ||
		    find "$group" -depth -type d -exec rmdir {} + 2> /dev/null; do
			sleep 0.1 # for its last process to be gone
		done
		rmdir "$work"
	}
	trap clean EXIT
	trap 'exit 130' INT TERM HUP
	mkdir "$group"
	rm -f "$ROOT/run/status"
	# With unshare ends all that it has started.
	sh -c 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"' sh "$group" \
	    unshare --kill-child -mpfCiu "$0" inside "$work" "$1" &
	container=$!
	seconds=0
	until [ -s "$ROOT/run/status" ] || [ $seconds = 600 ] || ! kill -0 "$container" 2> /dev/null; do
		sleep 1
		seconds=$((seconds + 1))
	done
	kill -KILL "$container" 2> /dev/null || true
	wait || true
	container=
	cat "$ROOT/run/output"
	[ "$(cat "$ROOT/run/status" || true)" = 0 ] || exit 1
	exit
fi

work=$2
program=$3
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
root=$work/root
mount -t overlay overlay \
    -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$root"
cp -r "$ROOT/usr" "$root/"
mount --bind "$ROOT/run" "$root/mnt"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mount --bind /dev/null "$root/dev/console"
: > "$ROOT/run/output"

# The fake Xen in front of the real libraries; it has no /proc/xen.
mkdir -p "$root/run/systemd/system/vdisk@.service.d"
cp -r "$FAKE_XEN_LIBS" "$root/run/lib"
cp "$program" "$root/run/program"
cat > "$root/run/systemd/system/vdisk@.service.d/fake.conf" <<-END
	[Unit]
	ConditionPathExists=
	PartOf=host.target
	[Service]
	Environment=LD_LIBRARY_PATH=/run/lib
	EnvironmentFile=/run/fake-xen
END
# As Xen's own unit, as far as it says when.
cat > "$root/run/systemd/system/xendomains.service" <<-END
	[Unit]
	PartOf=host.target
	[Service]
	Type=oneshot
	RemainAfterExit=true
	ExecStart=/bin/true
	ExecStop=/bin/sh -c 'sleep 1; systemctl is-active vdisk@web-0 > /run/at-shutdown'
END
printf "[Unit]\n" > "$root/run/systemd/system/host.target"
cat > "$root/run/systemd/system/test.service" <<-END
	[Service]
	Type=oneshot
	ExecStart=/bin/sh -c '/run/program > /mnt/output 2>&1; echo \$\$? > /mnt/status'
END
cat > "$root/usr/bin/xl" <<-END
	#!/bin/sh
	[ "\$1 \$2" = 'domid web' ] && echo 7
END
chmod +x "$root/usr/bin/xl"
exec env -i container=unshare PATH="$PATH" chroot "$root" \
    /lib/systemd/systemd --system --unit=test.service --log-target=null
