# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2046,SC2086,SC2154
# Nothing is served that was not asked for in so many words.
title 'Wrong arguments'

case $arch in
arm64) low=31 high=1020 ;;
amd64) low=0 high=16 ;;
esac

image /tmp/disk 1
configure arguments 1 1
check 'a guest is created, paused' create arguments || return
domid=$(cat /run/arguments.domid)
place=$(place 0)
base=${place% *}
check 'no arguments: usage, exit status 2' refuses 2
check 'a fifth argument: 2' refuses 2 "$domid" $place /tmp/disk more
check 'a domain that is no number: 2' refuses 2 arguments $place /tmp/disk
check 'an address that is no number: 2' refuses 2 "$domid" here ${place#* } /tmp/disk
check 'an address that is not aligned: 2' refuses 2 "$domid" $((base + 4)) ${place#* } /tmp/disk
check 'an IRQ too low: 2' refuses 2 "$domid" "$base" "$low" /tmp/disk
check 'an IRQ too high: 2' refuses 2 "$domid" "$base" "$high" /tmp/disk
check 'a serial that is too long: 2' refuses 2 -s 123456789012345678901 \
    "$domid" $place /tmp/disk
check 'a domain that does not exist: 1' refuses 1 4242 $place /tmp/disk
check 'dom0 itself: 1' refuses 1 0 $place /tmp/disk
check 'a file that does not exist: 1' refuses 1 "$domid" $place /tmp/none
check 'a directory: 1' refuses 1 "$domid" $place /tmp
check 'a character device: 1' refuses 1 "$domid" $place /dev/zero
check 'after all that the right arguments are taken' \
    vdisk_start arguments 0 /tmp/disk
check 'the guest is destroyed before it ever ran' destroy arguments
check 'vdisk notices and exits with status 0 within 2 s' \
    vdisk_ended arguments 0 0 2
check 'no zombie is left' within 5 only_dom0
