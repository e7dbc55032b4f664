# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2086,SC2154
# make bench-xen: vdisk beside Xen's PV block backend.  One guest has a disk of
# each on files alike, in memory, and does the same with one and the other in
# turns.  The PV backend needs a device for that.
for disk in 0 1; do
	image /tmp/disk$disk 64
done
losetup /dev/loop1 /tmp/disk1
pv_disk="'format=raw,vdev=xvdi,access=rw,backendtype=phy,script=block-plain,target=/dev/loop1'," \
    configure bench 2 1
create bench || exit
vdisk_start bench 0 /tmp/disk0 $OPTIONS || exit
start bench || exit
# While it is measured dom0 sleeps: to look for an answer again and again would
# take a processor from both disks, and most from the one that waits by looking.
do_in bench "(sleep 2; exec rate $ROUNDS 0.4 /dev/vda /dev/xvdi) > /tmp/rates 2>&1 &"
sleep $((ROUNDS * 5 + 6))
patience=1000 do_in bench 'wait $!; status=$?; cat /tmp/rates; [ $status = 0 ]' > /log/rates ||
    { cat /log/rates; exit 1; }

echo 'Medians of the rates, and of the ratios of neighbours:'
sort -s -k 1,1 /log/rates | awk -f rates.awk
