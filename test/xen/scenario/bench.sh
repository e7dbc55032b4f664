# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2086,SC2154
# make bench-xen: vdisk beside Xen's PV block backend.  One guest has a disk of
# each on files alike, in memory, and does the same with one and the other in
# turns.  The PV backend needs a device for that.
for disk in 0 1; do
	image /tmp/disk$disk 64
done
losetup /dev/loop1 /tmp/disk1
configure bench 2 1 \
    "disk = [ 'format=raw,vdev=xvda,access=rw,backendtype=phy,script=block-plain,target=/dev/loop1' ]"
create bench || exit
vdisk_start bench 0 /tmp/disk0 $OPTIONS || exit
start bench || exit
patience=1000 do_in bench "rate $ROUNDS 0.4 /dev/vda /dev/xvda" > /log/rates ||
    { cat /log/rates; exit 1; }

echo 'Medians of the rates, and of the ratios of neighbours:'
sort -s -k 1,1 /log/rates | awk -f rates.awk
