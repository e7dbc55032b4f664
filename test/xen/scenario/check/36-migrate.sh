# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2016,SC2154
# A guest is copied while it reads: what vdisk fills meanwhile must be copied
# again.  Only where pages are not zeroed when they are allocated does it show.
[ "$arch" = amd64 ] || { skip "migration: Xen has none on Arm"; return; }
title 'Migrated while it reads'

# right NAME: whether every file is, as the guest has them in its memory
right() {
	do_in "$1" 'cd /mnt; sha256sum -c /tmp/sums > /tmp/result 2>&1;
		grep -v OK /tmp/result; [ $(grep -c OK /tmp/result) = 40 ]'
}


# migrate NAME: to this very computer, paused there
migrate() {
	timeout 300 xl migrate -p -s '' "$1" 'xl migrate-receive -p' 2>&1
}

image /tmp/0 64
cmdline='init_on_alloc=0 init_on_free=0' configure travels 1 1
check 'a guest is created, paused' create travels || return
check 'vdisk is ready' vdisk_start travels 0 /tmp/0 || return
check 'the guest boots' start travels || return
patience=200
check 'it has 40 files, and their checksums' do_in travels 'mkfs.ext4 -q /dev/vda &&
	mount /dev/vda /mnt && for i in $(seq 40); do
	dd if=/dev/urandom of=/mnt/$i bs=1M count=1 2>/dev/null; done;
	cd /mnt; sha256sum [0-9]* > /tmp/sums; sync; echo 3 > /proc/sys/vm/drop_caches'
do_in travels '(for i in $(seq 40); do cat /mnt/$i > /dev/null; echo $i >> /tmp/at;
	sleep 0.25; done; touch /tmp/done) > /dev/null 2>&1 &'
check 'while it reads them it is migrated' migrate travels
check 'its vdisk exits with status 0 within 2 s' vdisk_ended travels 0 0 2
mv /log/guest-travels.log /log/guest-departed.log
moved travels guest-travels--incoming.log
check 'a new vdisk serves it' vdisk_start travels 0 /tmp/0 || return
xl unpause travels
sleep 5
check 'it goes on reading' do_in travels 'while [ ! -e /tmp/done ]; do sleep 1; done'
check 'every file is right in its memory' right travels
do_in travels 'echo 3 > /proc/sys/vm/drop_caches'
check 'and on the disk' right travels
check 'it had nothing to complain about' without_trouble travels
destroy travels
check 'vdisk exits with status 0 within 2 s' vdisk_ended travels 0 0 2
check 'no zombie is left' within 5 only_dom0
