# SPDX-License-Identifier: BSD-2-Clause
# Real Xen on emulated hardware; see README.md here.

# The machine, built if it is not there or out of date, for what is to run on it
xen-machine:
	test/xen/build.sh '$(MACHINE_FOR)'

xen-vdisk: xen-machine
	test/xen/vdisk.sh

# Scenarios with boots of their own, which there are on Arm
BOOTS := $(if $(filter amd64,$(ARCH)),,dom0less dom0less-root driver-domain)

# ONLY='20-*' runs only those, ONLY=dom0less only that boot.
check-xen: MACHINE_FOR = $(or $(ONLY),*)
check-xen: xen-vdisk
	$(if $(filter $(BOOTS),$(ONLY)),,CHECKS='$(ONLY)' test/xen/boot.sh check)
	$(foreach boot,$(if $(ONLY),$(filter $(BOOTS),$(ONLY)),$(BOOTS)),test/xen/boot.sh $(boot) &&) true

# vdisk beside Xen's own backend and with fixed settings, on one processor, where
# it is the same in every run, or with PROCESSORS=2 as fast as it goes here
# GRANTS=1: with grants, beside the same without
BENCH_XEN := bench$(if $(GRANTS),-grants)
bench-xen profile-xen: MACHINE_FOR = $(BENCH_XEN)
bench-xen: xen-vdisk
	PROCESSORS=$(or $(PROCESSORS),1) test/xen/boot.sh $(BENCH_XEN)

# Instructions per request, by whom; TOP=N: and by which functions; GRANTS=1
profile-xen: xen-vdisk
	set -e; here=test/xen; . test/xen/common.sh; \
	[ "$$arch" = arm64 ] || { echo 'profile-xen is for ARCH=arm64'; exit 2; }; \
	traps_wfe $(BENCH_XEN) || \
	    { echo 'profile-xen needs QEMU 11, which is not there'; exit 1; }; \
	gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o "$$dir/profile.so" test/xen/profile.c; \
	PROCESSORS=1 PROFILE=yes LEAST=0 test/xen/boot.sh $(BENCH_XEN); \
	test/xen/profile "$$dir/run/$(BENCH_XEN)" "$$dir/source/xen/xen/xen-syms" $(TOP)

demo: xen-vdisk
	test/xen/demo.sh

shell: xen-vdisk
	test/xen/boot.sh shell

# XEN_SOURCE=DIRECTORY: the patch for libxl applies to that
check-libxl-patch:
	test/xen/check-libxl-patch.sh

.PHONY: check-libxl-patch xen-machine xen-vdisk check-xen bench-xen profile-xen \
        demo shell
