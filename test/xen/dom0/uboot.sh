# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2059
# For U-Boot as a guest.  It is Debian's, made for QEMU's machine.

# configure_uboot NAME DISKS: 'configure' for it.  Where it looks for it there is the
# flash memory with its environment, that of the emulated computer, which has none; a
# UART for its first messages, for which the computer's clock stands in, which takes
# them and says nothing; and, by its device tree, the UART that Xen emulates.
configure_uboot() {
	configure "$1" 1 "$2" 'device_tree = "/guest/u-boot.dtb"' 'vuart = "sbsa_uart"' \
	    'iomem = [ "4000,40", "9010,1@9000" ]'
	sed -i '/^ramdisk/d; s|/guest/Image|/guest/u-boot|' "/log/$1.cfg"
}

# bootable PATH: make a disk of 16 MiB that it boots from, with the commands in the
# input as its script and a file of 1 MiB, which is copied to /tmp/file.  The file
# system ends at the tenth MiB.  U-Boot looks for a script only in a partition.
bootable() {
	rm -rf /tmp/files
	mkdir /tmp/files
	script > /tmp/files/boot.scr
	dd if=/dev/urandom of=/tmp/files/file bs=64k count=16 2>/dev/null
	cp /tmp/files/file /tmp
	image /tmp/partition 9
	mkfs.ext4 -q -F -b 1024 -d /tmp/files /tmp/partition || return
	image "$1" 16
	printf '\200\0\0\0\203\0\0\0\0\010\0\0\0\110\0\0' |
	    dd of="$1" bs=1 seek=446 conv=notrunc 2>/dev/null
	printf '\125\252' | dd of="$1" bs=1 seek=510 conv=notrunc 2>/dev/null
	dd if=/tmp/partition of="$1" bs=1M seek=1 conv=notrunc 2>/dev/null
}

# script: the commands in the input as U-Boot wants them
script() {
	cat > /tmp/commands
	{
		printf "$(octal "$(wc -c < /tmp/commands)")\\0\\0\\0\\0"
		cat /tmp/commands
	} > /tmp/body
	header '\0\0\0\0' > /tmp/header
	header "$(crc /tmp/header)"
	cat /tmp/body
}
# header CRC: the 64 bytes before that; their own CRC is made with none there
header() {
	printf "\\047\\005\\031\\126$1\\0\\0\\0\\0$(octal "$(wc -c < /tmp/body)")"
	printf "\\0\\0\\0\\0\\0\\0\\0\\0$(crc /tmp/body)\\005\\026\\006\\0"
	head -c 32 /dev/zero
}
# octal NUMBER: its four bytes, the highest first, as printf wants them
octal() {
	printf '\\%03o\\%03o\\%03o\\%03o' \
	    $(($1 >> 24)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255))
}
# crc PATH: the file's CRC-32, likewise; gzip has it near its end
crc() {
	gzip -c "$1" | tail -c 8 |
	    od -An -v -t o1 | awk '{ print "\\" $4 "\\" $3 "\\" $2 "\\" $1 }'
}
