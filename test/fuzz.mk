# SPDX-License-Identifier: BSD-2-Clause
# The device under clang's libFuzzer, see fuzz.c.
#
# make fuzz [SECONDS=60]  look for programs that break a rule; what is new and
#                         interesting goes to build/fuzz/found
# make fuzz-coverage      lines of the device that the corpus reaches
# make fuzz-corpus        the corpus anew: the smallest that reaches as much as
#                         test/corpus and build/fuzz/found together
FUZZ    := $(BUILD)/fuzz
FUZZ_CC := clang
SECONDS ?= 60

# The device tells the fuzzer where it goes, and fuzz.c what it touches.
FUZZ_DEVICE := device virtio_mmio virtqueue blk engine disk log
FUZZ_REST   := fuzz fuzz_mutate fake_ioreq fake_log
FUZZ_FLAGS  := -max_len=512 -timeout=300 -detect_leaks=0 -print_final_stats=1 \
               -artifact_prefix=$(FUZZ)/

$(FUZZ)/%.o: SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
$(FUZZ_DEVICE:%=$(FUZZ)/%.o): SANITIZE += -fsanitize=fuzzer-no-link \
    -fsanitize-coverage=trace-loads,trace-stores $(FUZZ_COUNT)

$(FUZZ)/engine.o: DEFINES += -Daligned_alloc=fuzz_alloc

$(FUZZ)/%.o: %.c GNUmakefile test/fuzz.mk | fuzz-packages
	@mkdir -p $(@D)
	$(call say,CC)$(FUZZ_CC) $(ALL_CFLAGS) -c -o $@ $<

$(FUZZ)/%.o: test/%.c GNUmakefile test/fuzz.mk | fuzz-packages
	@mkdir -p $(@D)
	$(call say,CC)$(FUZZ_CC) $(ALL_CFLAGS) -c -o $@ $<

$(FUZZ)/fuzz: $(FUZZ_DEVICE:%=$(FUZZ)/%.o) $(FUZZ_REST:%=$(FUZZ)/%.o)
	$(call say,LD)$(FUZZ_CC) -fsanitize=fuzzer,address,undefined $(FUZZ_COUNT) -o $@ $^ \
	    $(shell $(PKG_CONFIG) --libs xentoollog)

fuzz-packages:
	@test/fuzz-packages.sh

fuzz: $(FUZZ)/fuzz
	@mkdir -p $(FUZZ)/found
	ASAN_OPTIONS=detect_leaks=0 $< $(FUZZ_FLAGS) -max_total_time=$(SECONDS) $(FUZZ)/found test/corpus

fuzz-corpus: $(FUZZ)/fuzz
	@rm -rf $(FUZZ)/corpus
	@mkdir -p $(FUZZ)/corpus $(FUZZ)/found
	ASAN_OPTIONS=detect_leaks=0 $< $(FUZZ_FLAGS) -merge=1 $(FUZZ)/corpus test/corpus $(FUZZ)/found
	@rm -rf test/corpus
	@mv $(FUZZ)/corpus test/corpus

# Counted by clang, since only with its ticks the corpus gets everywhere.
fuzz-coverage:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/coverage \
	    FUZZ_COUNT='-fprofile-instr-generate -fcoverage-mapping' \
	    $(BUILD)/coverage/fuzz/fuzz
	@mkdir -p $(FUZZ)
	@ASAN_OPTIONS=detect_leaks=0 LLVM_PROFILE_FILE=$(BUILD)/coverage/fuzz.profraw \
	    $(BUILD)/coverage/fuzz/fuzz $(FUZZ_FLAGS) -runs=0 test/corpus 2>/dev/null
	@llvm-profdata merge -o $(BUILD)/coverage/fuzz.profdata $(BUILD)/coverage/fuzz.profraw
	@llvm-cov report $(BUILD)/coverage/fuzz/fuzz \
	    -instr-profile=$(BUILD)/coverage/fuzz.profdata $(FUZZ_DEVICE:%=%.c)

.PHONY: fuzz fuzz-packages fuzz-corpus fuzz-coverage
