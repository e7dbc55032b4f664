# SPDX-License-Identifier: BSD-2-Clause
# The tests that need no hypervisor: one program per check_*.c, linked with the
# shipped objects it tests and, at a seam, with fakes of the rest.
#
# make check        all of them        make check-asan   under ASan and UBSan
# make check-kill   check_kill's full programme, which takes some minutes
# make checks       all of their programs, built only
# make check-cross  arm64 with the gcc and clang of Debian 13, see cross.sh
# make check-debian  the Debian package: built, installed and removed
# make check-systemd  the unit under a real systemd, see systemd.sh
# make check-build  how it is built and installed by others, see build.sh
# make soak         a disk's whole life, over and over, for $(MINUTES)
# make record       traces/*.trace anew, on real Xen
CHECK_SHIPPED := $(filter-out vdisk loop sandbox,$(SOURCES:%.c=%))
CHECK_DEVICE  := $(filter-out ioreq guest,$(CHECK_SHIPPED))

check_guest       := log guest grant test/fake_xen test/fake_log
check_ioreq       := log ioreq test/fake_xen test/fake_log
check_virtqueue   := log virtqueue grant test/fake_guest test/fake_driver
check_blk         := log blk engine disk grant test/fake_uring test/fake_log
check_virtio_mmio := $(CHECK_DEVICE) test/fake_guest test/fake_ioreq \
                     test/fake_driver test/fake_uring test/fake_log test/unit
check_device      := $(CHECK_SHIPPED) test/stack test/fake_xen test/driver test/fake_log
check_trace       := $(CHECK_SHIPPED) test/child test/fake_xen test/driver test/load \
                     test/trace test/fake_log
check_vdisk       := test/child test/fake_xen test/driver
check_memory      := $(check_vdisk)
check_kill        := test/child test/fake_xen test/driver test/load
check_grants      := $(check_device)
check_loop        := loop
check_sandbox     := log sandbox test/fake_log
check_hostile     := $(check_virtio_mmio)
check_legacy      := $(check_virtio_mmio)
check_host        := test/child test/fake_xen test/driver
check_disk        := $(check_host)
check_fuzz        := $(filter-out grant,$(CHECK_DEVICE)) test/fuzz test/fake_ioreq test/fake_log

# The kernel may refuse to map and unmap.
check_guest_LDFLAGS := -Wl,--wrap=mmap

# A slow disk: the test decides when blk.c gives its requests back.
check_device_LDFLAGS := -Wl,--wrap=blk_reap,--wrap=blk_inflight
check_trace_LDFLAGS := $(check_device_LDFLAGS),--wrap=ioreq_interrupt,--wrap=blk_features

# A clock and sleeps of the test's own.
check_loop_LDFLAGS := -Wl,--wrap=clock_gettime,--wrap=nanosleep \
    -Wl,--wrap=sched_yield,--wrap=poll

# What engine.c submits can be watched, held back, shortened or made to fail.
check_hostile_LDFLAGS := -Wl,--wrap=io_uring_submit,--wrap=fstatfs
check_legacy_LDFLAGS := $(check_hostile_LDFLAGS)
check_virtio_mmio_LDFLAGS := $(check_hostile_LDFLAGS),--wrap=fdatasync
check_blk_LDFLAGS := $(check_hostile_LDFLAGS),--wrap=open,--wrap=__open_2 \
    -Wl,--wrap=pread,--wrap=pwrite,--wrap=clock_gettime \
    -Wl,--wrap=io_uring_register_buffers,--wrap=aligned_alloc,--wrap=fallocate

CHECKS := $(patsubst test/%.c,$(BUILD)/test/%,$(wildcard test/check_*.c))
CHECK_LIBS := xentoollog liburing check
CHECK_WRAP := -Wl,--wrap=_mark_point
check_virtio_mmio_LIBS := xentoollog xengnttab liburing check
check_hostile_LIBS := $(check_virtio_mmio_LIBS)
check_legacy_LIBS := $(check_virtio_mmio_LIBS)
check_blk_LIBS := $(check_virtio_mmio_LIBS)
check_virtqueue_LIBS := $(check_virtio_mmio_LIBS)
check_sandbox_LIBS := xentoollog liburing libseccomp check
check_fuzz_LIBS := xentoollog check

$(BUILD)/test/%.o: DEFINES += $(shell $(PKG_CONFIG) --cflags check)

.SECONDEXPANSION:
$(CHECKS): $(BUILD)/test/check_%: $(BUILD)/test/check_%.o \
    $(BUILD)/test/cases.o $$(addprefix $(BUILD)/,$$(addsuffix .o,$$(check_$$*)))
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $(CHECK_WRAP) $(check_$*_LDFLAGS) -o $@ $^ \
	    $(shell $(PKG_CONFIG) --libs $(or $(check_$*_LIBS),$(CHECK_LIBS)))

# The same fake as the five libraries that vdisk is linked with, one file under
# five names: put in front of the real ones it is a Xen for any vdisk.
FAKE_XEN_LIBS := $(foreach l,devicemodel foreignmemory evtchn gnttab toolcore,\
                   $(BUILD)/test/lib/libxen$(l).so.1)

$(BUILD)/test/lib/libfakexen.so: test/fake_xen.c test/fake_xen.h test/fake_xen.map \
    test/fake_sandbox.c
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(ALL_CFLAGS) -DFAKE_XEN_LIBRARY -MF $(BUILD)/test/libfakexen.d -fPIC -shared \
	    -Wl,--version-script=test/fake_xen.map -o $@ $(filter %.c,$^) \
	    $(shell $(PKG_CONFIG) --libs xentoollog libseccomp)

# Before liburing, for check_host.
$(BUILD)/test/lib/fake_host.so: test/fake_host.c test/fake_host.h
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(ALL_CFLAGS) -MF $(BUILD)/test/fake_host.d -fPIC -shared -o $@ $<

# Beside vdisk, on real Xen or for check_trace.
$(BUILD)/test/lib/record.so: test/record.c
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(ALL_CFLAGS) -MF $(BUILD)/test/record.d -fPIC -shared -o $@ $<

$(BUILD)/test/check_trace: | $(PROGRAM) $(FAKE_XEN_LIBS) $(BUILD)/test/lib/record.so

$(BUILD)/test/check_host $(BUILD)/test/check_disk: | $(PROGRAM) $(FAKE_XEN_LIBS) $(BUILD)/test/lib/fake_host.so

$(FAKE_XEN_LIBS): $(BUILD)/test/lib/libfakexen.so
	@ln -sf libfakexen.so $@

$(addprefix $(BUILD)/test/,check_vdisk check_memory check_kill): | $(PROGRAM) $(FAKE_XEN_LIBS)

checks: $(CHECKS) $(PROGRAM)

check:
	@test/packages.sh
	@$(MAKE) --no-print-directory check-run

# Where child.c finds what it starts.
UNDER_TEST := VDISK=$(abspath $(PROGRAM)) FAKE_XEN_LIBS=$(abspath $(BUILD)/test/lib)

check-run: $(CHECKS)
	@test/musts.sh
	@test/messages.pl man/vdisk.8 $(SOURCES)
	@test/manual.sh
	@test/create.sh
	@test/vdisk-bind.sh
	@failed=; for t in $(CHECKS); do \
	    $(UNDER_TEST) $$t || failed="$$failed $${t##*/}"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

check-kill: $(BUILD)/test/check_kill
	@$(UNDER_TEST) VDISK_KILLS=2000 VDISK_KILL_STRIDE=1 $<

# Two at a time: one that is killed again and again, and one that lives.
MINUTES ?= 3
SOAK    := $(BUILD)/test/soak

$(SOAK): $(addprefix $(BUILD)/test/,soak.o cases.o child.o fake_xen.o driver.o load.o) \
    | $(PROGRAM) $(FAKE_XEN_LIBS) $(BUILD)/test/lib/fake_host.so
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $(CHECK_WRAP) -o $@ $(filter %.o,$^) \
	    $(shell $(PKG_CONFIG) --libs $(CHECK_LIBS))

soak: $(SOAK)
	@case '$(MINUTES)' in '' | *[!0-9]*) echo 'MINUTES=$(MINUTES): not a number'; exit 2; esac
	@export MINUTES=$(MINUTES) $(UNDER_TEST); \
	    CK_RUN_CASE=killed $< & killed=$$!; CK_RUN_CASE=living $<; living=$$?; \
	    wait $$killed && exit $$living

# Leaks are not looked for: setting up has no undoing, the kernel does that.
check-asan:
	@ASAN_OPTIONS=detect_leaks=0 VDISK_KILLS=50 VDISK_KILL_STRIDE=70 \
	    $(MAKE) --no-print-directory check \
	    BUILD=$(BUILD)/asan PROGRAM=$(BUILD)/asan/vdisk \
	    SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=all"

check-build:
	@test/packages.sh
	@MAKE=$(MAKE) test/build.sh

$(BUILD)/test/systemd: $(addprefix $(BUILD)/test/,systemd.o cases.o fake_xen.o driver.o)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $(CHECK_WRAP) -o $@ $^ $(shell $(PKG_CONFIG) --libs $(CHECK_LIBS))

check-cross:
	@WORK=$(abspath $(BUILD)/cross) test/cross.sh

check-debian:
	@test/packages.sh
	@WORK=$(abspath $(BUILD)/debian) test/debian.sh

check-systemd:
	@test/packages.sh
	@$(MAKE) --no-print-directory check-systemd-run

check-systemd-run: $(BUILD)/test/systemd $(FAKE_XEN_LIBS)
	@rm -rf $(BUILD)/systemd
	@$(MAKE) -s PREFIX=/usr DESTDIR=$(BUILD)/systemd install
	@ROOT=$(abspath $(BUILD)/systemd) $(UNDER_TEST) test/systemd.sh $<

record: xen-vdisk
	test/record.sh

.PHONY: checks check check-run check-kill check-asan check-build check-cross \
        check-debian check-systemd check-systemd-run soak record
