# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2016,SC2034,SC2154
# Another kernel comes to an HVM guest: its Linux asks Xen for a soft reset, and xl gives
# it another QEMU.  Its memory and its vdisks stay as they are.
[ "$arch" = amd64 ] || { skip "soft reset: on Arm kexec needs none"; return; }
. /guests.sh

# prepare NAME: a guest with a disk that is loaded, and the other kernel
prepare() {
	image /tmp/0 4
	rm -f /tmp/1
	tar -C /guest -cf /tmp/1 Image guest.cpio
	truncate -s 64M /tmp/1
	check 'a guest is created, paused' create "$1" || return
	check 'a file is served as the first disk' vdisk_start "$1" 0 /tmp/0 || return
	check 'another one, with the kernel, as the second' vdisk_start "$1" 1 /tmp/1 || return
	check 'the guest boots' start "$1" || return
	check 'it has the other kernel' do_in "$1" 'tar -xf /dev/vdb -C /tmp'
	do_in "$1" '(while :; do verify -t 4 -s 2 /dev/vda; done) > /tmp/verify 2>&1 &'
	check 'it is at work' within 10 do_in "$1" 'grep -q "read in order" /tmp/verify'
}

# follows NAME COMMAND: the guest is told to do what nothing comes back from
follows() {
	send_in "$1" "$2"
	check 'the other kernel boots' up "$1" 2 || return
	patience=120
	check 'no sector is torn' do_in "$1" 'verify -c -g 1 /dev/vda'
	check 'every byte is right then' do_in "$1" 'verify -t 2 -s 2 /dev/vda'
	check 'it is another one' do_in "$1" 'grep -q another /proc/cmdline'
}

# ended NAME: the guest is destroyed
ended() {
	local disk
	check 'the guest is destroyed' destroy "$1"
	for disk in 0 1; do
		check "vdisk $disk exits with status 0 within 2 s" vdisk_ended "$1" "$disk" 0 2
		check 'and had nothing to say' fails grep -v 'the guest is gone' "/log/$1-vdisk$disk.err"
	done
	check 'no zombie is left' within 5 only_dom0
}

title 'Another kernel, by kexec, under load'

memory=384 configure kexec 2 2
prepare kexec || return
follows kexec 'kexec /tmp/Image /tmp/guest.cpio "console=hvc0 mitigations=off another"' &&
    ended kexec

title 'A kernel for when another one has crashed'

memory=512 cmdline='crashkernel=192M' configure kdump 2 2
prepare kdump || return
check 'it loads the other kernel' do_in kdump \
    'kexec -p /tmp/Image /tmp/guest.cpio "console=hvc0 mitigations=off another nr_cpus=1"'
follows kdump 'echo c > /proc/sysrq-trigger' && ended kdump
