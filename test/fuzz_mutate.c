/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutation by whole operations, so that what comes after a change stays what it
 * was; libFuzzer's own changes bytes.
 */
#include <string.h>

#include "fuzz.h"

size_t
LLVMFuzzerCustomMutator(
    uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	struct op *op = (struct op *)(void *)data, some;
	size_t n = size / sizeof(*op), max = max_size / sizeof(*op), i, k;
	uint32_t r = seed * 2654435761u ^ seed >> 7;

	if (n == 0 || (r & 3) == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	i = (r >> 8) % n;
	k = (r >> 20) % n;
	switch (r >> 2 & 7) {
	case 0: /* take one out */
		memmove(&op[i], &op[i + 1], (n - i - 1) * sizeof(*op));
		return (n - 1) * sizeof(*op);
	case 1: /* repeat one elsewhere */
	case 2: /* put in a new one */
	case 3:
		if (n >= max)
			break;
		some = op[k];
		if ((r >> 2 & 7) != 1) {
			memset(&some, 0, sizeof(some));
			some.code = (r >> 16) % CODES;
			LLVMFuzzerMutate(&some.a, 7, 7);
		}
		memmove(&op[i + 1], &op[i], (n - i) * sizeof(*op));
		op[i] = some;
		return (n + 1) * sizeof(*op);
	case 4: /* exchange two */
		some = op[i];
		op[i] = op[k];
		op[k] = some;
		return n * sizeof(*op);
	case 5:
		op[i].code = (r >> 16) % CODES;
		return n * sizeof(*op);
	default:
		break;
	}
	LLVMFuzzerMutate((uint8_t *)&op[i], sizeof(*op), sizeof(*op));
	return n * sizeof(*op);
}
