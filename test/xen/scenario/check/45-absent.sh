# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC1091,SC2013,SC2016,SC2034,SC2154
# dom0's room for foreign pages belongs to everybody: a guest that names memory that
# it has not takes nothing of it.
[ "$arch" = arm64 ] || { skip "absent memory: on x86 dom0 is PV, and has no such room"; return; }
. /memory.sh

title 'A guest names memory that it has not'

# scratch: KiB that Linux has set aside for foreign pages
scratch() {
	local sum=0
	for range in $(sed -n 's/^ *\([0-9a-f]*-[0-9a-f]*\) : Xen scratch/\1/p' /proc/iomem); do
		sum=$((sum + (0x${range#*-} - 0x${range%-*} + 1) / 1024))
	done
	echo "$sum"
}

driver=/sys/bus/platform/drivers/virtio-mmio
said=$(dmesg | wc -l)
image /tmp/hostile 1
image /tmp/other 16
image /tmp/third 1
configure hostile 1 1
configure other 1 1
configure third 1 1
check 'two guests are created, paused' eval 'create hostile && create other' || return
check 'and served' eval \
    'vdisk_start hostile 0 /tmp/hostile && vdisk_start other 0 /tmp/other' || return
check 'they boot' eval 'start hostile && start other' || return
check 'the driver of one lets go of its device' do_in hostile "cd $driver &&
	for d in *virtio*; do [ ! -L \$d ] || echo \$d > unbind; done"
place=$(place 0)
before=$(scratch)
do_in other 'verify -t 2 -s 25 /dev/vda > /tmp/verify 2>&1 &'
patience=300 check 'it names memory that is not there, 1,000 times' \
    says '1000 queues, 0 ready, status 0x4b' do_in hostile "absent ${place% *} 100 900"
check 'its vdisk has nothing mapped for that' at_most 2048 taken hostile 0
check 'nor has Linux set more aside' at_most "$before" scratch
check 'a third guest is created, served and booted' eval \
    'create third && vdisk_start third 0 /tmp/third && start third'
check 'its disk works' do_in third 'verify -s 1 /dev/vda'
patience=120 check 'the load of the other guest never noticed' \
    do_in other 'wait; cat /tmp/verify; grep -q right /tmp/verify'
figures
check 'its vdisk has mapped no more than a sixteenth of what dom0 has' \
    at_most $((1024 * 1024 / 16)) taken other 0
check 'nobody had anything to complain about' eval \
    'without_trouble other && without_trouble third'
check 'what the hostile guest did is called its fault, and nothing else is said' \
    eval 'grep -q "guest fault: ring not in guest memory" /log/hostile-vdisk0.err &&
	! grep -v "guest fault: ring not in guest memory" /log/hostile-vdisk0.err'
check "dom0's kernel said nothing" silent
for name in hostile other third; do
	check "guest $name is destroyed" destroy "$name"
done
check 'no zombie is left' within 5 only_dom0
