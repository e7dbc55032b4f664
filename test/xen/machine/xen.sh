#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# arm64: build the hypervisor with xen.config, from Debian's source package or from
# XEN_SOURCE.
# amd64: Debian's own has IOREQ servers.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/common.sh"

if [ "$arch" = amd64 ]; then
	gunzip -c "$tree"/boot/xen-*-amd64.gz > "$dir/xen"
	exit
fi

[ -z "$source" ] || version_of "$source" > "$dir/version"
unpack_xen "$dir/source/xen"

cp "$here/machine/xen.config" xen/arch/arm/configs/vdisk_defconfig
cp "$top/xen/vdisk.te" tools/flask/policy/modules/
echo 'vdisk = on' >> tools/flask/policy/modules/modules.conf
# From 4.21 on the daemon of Xenstore asks Xen this, and Xen's own policy lets it do so
# in a domain of its own, but not in dom0.
! grep -q '^ *get_domain_state$' xen/xsm/flask/policy/access_vectors ||
    echo 'allow dom0_t domxen_t:domain2 get_domain_state;' >> tools/flask/policy/modules/dom0.te
# The make that started us may have flags and variables of its own.
unset MAKEFLAGS MAKELEVEL MFLAGS CFLAGS LDFLAGS CPPFLAGS
export XEN_TARGET_ARCH=arm64 CROSS_COMPILE="$cross"
make -C xen vdisk_defconfig
make -C xen -j"$(nproc)"
for option in IOREQ_SERVER XSM_FLASK_POLICY; do
	grep -qx "CONFIG_$option=y" xen/.config
done
cp xen/xen "$dir/xen"
