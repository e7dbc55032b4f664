# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2086,SC2154
# make bench-xen: vdisk beside Xen's PV block backend.  One guest has a disk of
# each on files alike, and does the same with one and the other in turns.
for disk in 0 1; do
	image /tmp/disk$disk 64
	losetup /dev/loop$disk /tmp/disk$disk
done
configure bench 2 1 \
    "disk = [ 'format=raw,vdev=xvda,access=rw,backendtype=phy,script=block-plain,target=/dev/loop1' ]"
create bench || exit
vdisk_start bench 0 /dev/loop0 $OPTIONS || exit
start bench || exit
patience=1000 do_in bench "rate $ROUNDS 0.4 /dev/vda /dev/xvda" > /log/rates ||
    { cat /log/rates; exit 1; }

echo 'Medians of the rates, and of the ratios of neighbours:'
sort -s -k 1,1 /log/rates | awk -f rates.awk
