# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154
# Where things are.  Sourced by every script here, which sets 'here' to this
# directory first.
top=$(cd "$here/../.." && pwd)
dir=${VDISK_XEN_DIR:-$top/build/xen}	# the machine and all that it leaves
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
tree=$dir/tree				# the arm64 packages, unpacked
lib=$tree/usr/lib/aarch64-linux-gnu
cross=aarch64-linux-gnu-
PATH=$PATH:/usr/sbin:/sbin		# depmod and modprobe, for others than root
