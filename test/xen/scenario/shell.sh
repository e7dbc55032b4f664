# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=dash disable=SC2154
# make shell: dom0, and you type.  A guest is configured and a disk image is there.
cd /root || exit
image disk.img 64
configure guest 2 1
sed 's/console=hvc0/console=hvc0 shell/' /log/guest.cfg > guest.cfg
cat <<END

${bold}This is dom0.${plain}  A guest with a disk:

    xl create -p guest.cfg
    vdisk -v \$(xl domid guest) $(place 0) disk.img &
    xl unpause guest
    xl console guest               Ctrl-] leaves it; it has mkfs.ext4, e2fsck,
                                   and verify, which tests /dev/vda
    xl destroy guest

'exit' switches the machine off.

END
# shellcheck disable=SC2086
[ -z "$size" ] || stty $size
PS1='dom0:\w# ' sh
true
