# SPDX-License-Identifier: BSD-2-Clause
# Real Xen on emulated hardware; see README.md here.

# The machine, built if it is not there or out of date
xen-machine:
	test/xen/build.sh

xen-vdisk: xen-machine
	test/xen/vdisk.sh

# Scenarios with boots of their own, which there are on Arm
BOOTS := $(if $(filter amd64,$(ARCH)),,dom0less driver-domain)

# ONLY='20-*' runs only those, ONLY=dom0less only that boot.
check-xen: xen-vdisk
	$(if $(filter $(BOOTS),$(ONLY)),,CHECKS='$(ONLY)' test/xen/boot.sh check)
	$(foreach boot,$(if $(ONLY),$(filter $(BOOTS),$(ONLY)),$(BOOTS)),test/xen/boot.sh $(boot) &&) true

# vdisk beside Xen's own backend
bench-xen: xen-vdisk
	test/xen/boot.sh bench

demo: xen-vdisk
	test/xen/demo.sh

shell: xen-vdisk
	test/xen/boot.sh shell

# XEN_SOURCE=DIRECTORY: the patch for libxl applies to that
check-libxl-patch:
	test/xen/check-libxl-patch.sh

.PHONY: check-libxl-patch xen-machine xen-vdisk check-xen bench-xen demo shell
