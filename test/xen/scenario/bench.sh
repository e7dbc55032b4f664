# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2086,SC2154
# make bench-xen: vdisk beside Xen's PV block backend.  One guest has disks on
# files alike, in memory: one of vdisk's with $OPTIONS, two with fixed settings,
# and a PV one, which needs a device for that.  It does the same with each of
# them in turns.
image /tmp/disk3 64
losetup /dev/loop1 /tmp/disk3
pv_disk="'format=raw,vdev=xvdi,access=rw,backendtype=phy,script=block-plain,target=/dev/loop1'," \
    configure bench "$VCPUS" 3
create bench || exit
disk=0
for options in "$OPTIONS" --poll=0 --poll=50; do
	image /tmp/disk$disk 64
	vdisk_start bench $disk /tmp/disk$disk $options || exit
	disk=$((disk + 1))
done
start bench || exit
# While it is measured dom0 sleeps: to look for an answer again and again would
# take a processor from the disks, and most from the one that waits by looking.
do_in bench "(sleep 2; exec rate $ROUNDS 0.4 /dev/vda /dev/vdb /dev/vdc /dev/xvdi) > /tmp/rates 2>&1 &"
sleep $((ROUNDS * 10 + 5))
patience=1000 do_in bench 'wait $!; status=$?; cat /tmp/rates; [ $status = 0 ]' > /log/rates ||
    { cat /log/rates; exit 1; }

cp /proc/kallsyms /log/
guest_symbols
echo 'Medians of the rates, and of the ratios of neighbours (and their range):'
awk -v least="$LEAST" -v least_of_pv="$LEAST_OF_PV" -f rates.awk /log/rates || {
	echo "vdisk does less than $LEAST of what it does with a fixed setting, or less"
	echo "than $LEAST_OF_PV of what PV does of single requests of 4k"
	exit 1
}
