# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016
# Four vCPUs at once, while the driver comes and goes, memory comes and goes, and
# at last the guest itself.
title 'Four vCPUs under load'

driver=/sys/bus/virtio/drivers/virtio_blk

image /tmp/disk 64
# Half of 128 MiB would be set aside for devices by the guest's kernel, and too
# little left to give any back.
memory=256 configure load 4 1
check 'a guest is created, paused' create load || return
check 'vdisk is ready' vdisk_start load 0 /tmp/disk -v || return
check 'the guest boots' start load || return
check 'four threads write and read all and everywhere; every byte is right' \
    do_in load 'verify -t 4 -s 4 /dev/vda'
figures
check 'sixteen threads do' do_in load 'verify -t 16 -s 4 /dev/vda'
figures
check 'the file in dom0 is as the guest believes' verify -c -g 1 /tmp/disk
check 'the guest had nothing to complain about' without_trouble load

title 'Memory is taken from the guest and given back'

# The guest's own idea of how much it has differs a little from xl's.
memory='cat /sys/devices/system/xen_memory/xen_memory0/info/current_kb'
full=$(do_in load "$memory")

# resize MIB: let the guest have that much less than at first; prints how long it
# took to follow.
resize() {
	local from
	clock; from=$now
	xl mem-set load $((256 - $1)) || return 1
	within 60 says $((full - $1 * 1024)) do_in load "$memory" || return 1
	clock; echo "in $(((now - from) * 10)) ms"
}
check 'xl takes 32 MiB, and the guest gives them up' resize 32
figures
check 'xl gives them back, and the guest takes them' resize 0
do_in load 'verify -t 4 -s 6 /dev/vda > /tmp/verify 2>&1 &'
check 'under load, xl takes 16 MiB, and the guest gives them up' resize 16
figures
check 'xl gives them back, and the guest takes them' resize 0
patience=300 check 'the load never noticed' \
    do_in load 'wait; cat /tmp/verify; grep -q right /tmp/verify'
figures
check 'the guest had nothing to complain about' without_trouble load

title 'The driver is unbound and bound again, under load'

for round in first second third fourth fifth; do
	check "the $round time" do_in load "verify -p -t 4 /dev/vda > /tmp/verify 2>&1 &
		$(busy vda); echo virtio0 > $driver/unbind; wait; cat /tmp/verify;
		grep -q errors /tmp/verify && echo virtio0 > $driver/bind"
done
check 'the disk works as before' do_in load 'verify -t 4 -s 3 /dev/vda'
check 'the guest complained of nothing but requests after unbinding' \
    without_trouble load 'I/O error, dev vda'

title 'The guest is destroyed under load'

do_in load 'verify -p -t 4 /dev/vda > /tmp/verify 2>&1 &'
check 'it is at it' within 10 do_in load 'grep -q generation /tmp/verify'
check 'it is destroyed' destroy load
check 'vdisk notices by itself and exits with status 0 within 2 s' \
    vdisk_ended load 0 0 2
check 'no zombie is left' within 5 only_dom0
check 'no sector of the file is torn' verify -c -g 1 /tmp/disk
