# SPDX-License-Identifier: BSD-2-Clause
# Real Xen on emulated hardware; see README.md here.

# The machine, built if it is not there or out of date
xen-machine:
	test/xen/build.sh

xen-vdisk: xen-machine
	test/xen/vdisk.sh

# On x86 all takes long: unless told otherwise, only what was seen to pass there.
ifeq ($(ARCH),amd64)
ONLY ?= [123]*
endif

# ONLY='20-*' runs only those, ONLY=dom0less the second boot alone, which there is
# on Arm.
check-xen: xen-vdisk
	$(if $(filter dom0less,$(ONLY)),,CHECKS='$(ONLY)' test/xen/boot.sh check)
	$(if $(filter-out dom0less,$(ONLY))$(filter amd64,$(ARCH)),,test/xen/boot.sh dom0less)

# vdisk beside Xen's own backend
bench-xen: xen-vdisk
	test/xen/boot.sh bench

demo: xen-vdisk
	test/xen/demo.sh

shell: xen-vdisk
	test/xen/boot.sh shell

.PHONY: xen-machine xen-vdisk check-xen bench-xen demo shell
