# SPDX-License-Identifier: BSD-2-Clause
# make prove   CBMC on virtqueue.c, see prove.c.  Debian has CBMC from 13 on, but
#              not in 12; CBMC=/path/to/cbmc names another.
CBMC       ?= cbmc
PROVE      := enable pop push publish set_notify adopt pop_inflight
# Descriptors of the largest ring and indirect table, and the longest way through
# both and back to where the loop is noticed.  To adopt is to look at all heads.
PROVE_NUM  ?= 2
PROVE_LOOP ?= 7
PROVE_FLAGS := -I. -D_GNU_SOURCE -DNUM=$(PROVE_NUM) -DTABLE=$(PROVE_NUM) \
               --unwind $(PROVE_LOOP) --unwindset virtqueue_adopt.0:256 \
               --unwinding-assertions \
               --no-standard-checks --bounds-check --pointer-check \
               --pointer-overflow-check --signed-overflow-check \
               --undefined-shift-check --div-by-zero-check

prove: $(PROVE:%=prove-%)

prove-%: test/prove.c virtqueue.c virtqueue.h guest.h
	@command -v $(CBMC) >/dev/null || { echo "no $(CBMC) here" >&2; exit 1; }
	$(call say,PROVE)$(CBMC) $(PROVE_FLAGS) --function prove_$* $< >$(BUILD)/$@.log || \
	    { grep FAILURE $(BUILD)/$@.log; exit 1; }

.PHONY: prove
