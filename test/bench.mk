# SPDX-License-Identifier: BSD-2-Clause
# Measurements on the fake Xen, beside other disks on the same image.
#
# make bench    all of it, into $(BUILD)/bench/   QUICK=1: shorter   ROWS=…: some
# make bench-instructions                         instructions per request
# make charts                                     docs/charts/*.svg of the newest results
# test/bench/compare OLD.json NEW.json            two of them side by side
BENCH := $(BUILD)/test/bench

$(BENCH)/drive-vdisk: $(addprefix $(BUILD)/test/,bench/drive.o bench/ring.o \
    bench/mmio.o fake_xen.o)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(shell $(PKG_CONFIG) --libs xentoollog)

$(BENCH)/drive-vhost: $(addprefix $(BENCH)/,drive.o ring.o vhost_user.o)
	$(CC) $(ALL_LDFLAGS) -o $@ $^

$(BENCH)/copy: $(BENCH)/copy.o
	$(CC) $(ALL_LDFLAGS) -o $@ $^

bench-programs: $(PROGRAM) $(FAKE_XEN_LIBS) $(BENCH)/drive-vdisk \
    $(BENCH)/drive-vhost $(BENCH)/copy

bench bench-instructions:
	@test/bench/packages.sh $@
	@$(MAKE) --no-print-directory bench-programs
	@VDISK=$(PROGRAM) FAKE_XEN_LIBS=$(abspath $(BUILD)/test/lib) \
	    BENCH=$(BENCH) RESULTS=$(BUILD)/bench STRIP=$(CROSS_COMPILE)strip \
	    test/bench/$@

# Of bench-xen, too; PROCESSORS=2 says that its machine had two.
charts:
	@test/bench/packages.sh $@
	@BUILD=$(BUILD) test/bench/charts

-include $(wildcard $(BENCH)/*.d)

.PHONY: bench bench-instructions bench-programs charts
