#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Put together what is booted: the kernel (dom0 and guest run the same one) and
# the two initial RAM file systems, dom0.cpio and guest.cpio.  The guest's is a
# file in dom0's.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"

xen_bin=$(echo "$tree"/usr/lib/xen-*/bin)
kernel_version=$(basename "$tree"/usr/lib/modules/*)

# libraries FILE...: the shared libraries that these files ask for
libraries() {
	"${cross}readelf" -d "$@" 2>/dev/null |
	    sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u
}

# add ROOT DIRECTORY FILE...: copy programs, and the libraries they need
add() {
	root=$1
	mkdir -p "$root$2" "$root/usr/lib/$triplet"
	to=$root$2
	shift 2
	cp -L "$@" "$to"
	for library in $(libraries "$@"); do
		add_library "$library"
	done
}
add_library() {
	[ ! -e "$root/usr/lib/$triplet/$1" ] || return 0
	cp -L "$lib/$1" "$root/usr/lib/$triplet/"
	for library in $(libraries "$lib/$1"); do
		add_library "$library"
	done
}

# add_modules ROOT MODULE...: copy kernel modules and those they need, unpacked
# because busybox can't; /lib/modules/order says in which order to load them.
add_modules() {
	root=$1
	mkdir -p "$root/usr/lib/modules"
	shift
	for module in "$@"; do
		modprobe -d "$tree" -S "$kernel_version" --show-depends "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
	while read -r file; do
		name=$(basename "$file" .xz)
		case $file in
		*.xz) xz -dc "$file" > "$root/usr/lib/modules/$name" ;;
		*) cp "$file" "$root/usr/lib/modules/$name" ;;
		esac
		echo "$name" >> "$root/usr/lib/modules/order"
	done
}

# skeleton ROOT: what both file systems begin with
skeleton() {
	rm -rf "$1"
	mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/dev" "$1/proc" \
	    "$1/sys" "$1/tmp" "$1/run" "$1/mnt" "$1/root" "$1/etc"
	for link in bin sbin lib; do
		ln -s "usr/$link" "$1/$link"
	done
	ln -s "usr/lib" "$1/lib64"
	ln -s "$loader" "$1/usr/lib/"
	add "$1" /usr/bin "$tree/usr/bin/busybox" "$dir/verify"
	ln -s busybox "$1/usr/bin/sh"
	cat > "$1/etc/passwd" <<-END
		root:x:0:0:root:/root:/bin/sh
		nobody:x:65534:65534:nobody:/:/bin/false
	END
}

pack() {
	(cd "$1" && find . | sort | cpio --quiet -o -H newc -R 0:0) > "$2"
}

depmod -b "$tree" "$kernel_version"
# Newer packages of Debian's have it beside its modules.
for kernel in "$tree/boot/vmlinuz-$kernel_version" \
    "$tree/usr/lib/modules/$kernel_version/vmlinuz"; do
	[ ! -e "$kernel" ] || cp "$kernel" "$dir/Image"
done
for program in verify rate absent kexec; do
	# shellcheck disable=SC2086 # a command and an option
	$cc -O2 -Wall -Wextra -Werror -static -pthread -o "$dir/$program" "$here/$program.c" -lfdt
done

skeleton "$dir/guest"
add "$dir/guest" /usr/bin "$dir/rate" "$dir/absent" "$dir/kexec"
add "$dir/guest" /usr/sbin "$tree/usr/sbin/mkfs.ext4" "$tree/usr/sbin/e2fsck"
add_modules "$dir/guest" virtio_mmio virtio_blk xen-blkfront ext4 crc32c
cp "$here/machine/guest-init" "$dir/guest/init"
chmod 755 "$dir/guest/init"
pack "$dir/guest" "$dir/guest.cpio"

skeleton "$dir/dom0"
# Where these are is compiled into the toolstack.
add "$dir/dom0" "${xen_bin#"$tree"}" "$xen_bin/xl" "$xen_bin/xenstored" \
    "$xen_bin/xenconsoled" "$xen_bin/xenconsole" "$xen_bin/xen-init-dom0" \
    "$xen_bin/libxl-save-helper"
for command in list ls read rm watch write; do
	add "$dir/dom0" /usr/bin "$tree/usr/bin/xenstore-$command"
done
# For disks that are slow, suspended or fail
add "$dir/dom0" /usr/sbin "$tree/usr/sbin/dmsetup"
root=$dir/dom0
# vdisk's, and one that the C library loads when a thread is cancelled
for library in libxendevicemodel.so.1 libxenforeignmemory.so.1 \
    libxenevtchn.so.1 libxengnttab.so.1 libxentoolcore.so.1 libxentoollog.so.1 liburing.so.2 \
    libseccomp.so.2 libgcc_s.so.1; do
	add_library "$library"
done
add_modules "$dir/dom0" xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs \
    xen-blkback loop dm-delay virtio_mmio virtio_pci virtio_console
mkdir -p "$dir/dom0/var/lib/xen" "$dir/dom0/guest"
if [ "$arch" = amd64 ]; then
	# The device model of an HVM guest, and the tables that tell of its disks
	add "$dir/dom0" /usr/libexec "$tree/usr/libexec/xen-qemu-system-i386"
	add "$dir/dom0" "${xen_bin#"$tree"}/../boot" "$xen_bin/../boot/hvmloader"
	mkdir -p "$dir/dom0/usr/share/qemu" "$dir/dom0/usr/share/seabios"
	cp "$tree"/usr/share/seabios/*.bin "$dir/dom0/usr/share/seabios/"
	cp "$tree"/usr/share/qemu/*.bin "$dir/dom0/usr/share/qemu/"
	cp -r "$tree/usr/share/qemu/keymaps" "$dir/dom0/usr/share/qemu/"
	iasl -p "$dir/dom0/guest/vdisk" "$top/xen/vdisk.asl"
fi
u_boot=$tree/usr/lib/u-boot/qemu_arm64
if [ -e "$u_boot/u-boot.bin" ]; then
	# A guest that is not Linux, and what its device tree has beside
	# shellcheck disable=SC2086 # a command and options
	$cc -c -Wa,-I"$u_boot" -o "$dir/u-boot.o" "$here/machine/u-boot.S"
	"${cross}objcopy" -O binary "$dir/u-boot.o" "$dir/dom0/guest/u-boot"
	dtc -q -O dtb -o "$dir/dom0/guest/u-boot.dtb" "$here/machine/u-boot.dts"
	add "$dir/dom0" /usr/sbin "$tree/usr/sbin/mkfs.ext4"
fi
if libxl_is_patched; then
	# The libxl with vdisk, for those who ask for it
	mkdir -p "$dir/dom0/usr/lib/patched"
	for library in libxenlight libxlutil; do
		cp "$dir/$library.so" "$dir/dom0/usr/lib/patched/$(basename "$lib/$library".so.*.*.* .0)"
	done
fi
ln -s ../run "$dir/dom0/var/run"
ln -s ../run/lock "$dir/dom0/var/lock"
cp "$dir/Image" "$dir/guest.cpio" "$dir/dom0/guest/"
pack "$dir/dom0" "$dir/dom0.cpio"
