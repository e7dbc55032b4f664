/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every check_*.c ends with: its tests in cases, and main().
 */
#ifndef CASES_H
#define CASES_H

#include <stdint.h>

#include <check.h>

/* Elements of an array, as tcase_add_loop_test() wants their number. */
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/*
 * A new case of 's', of which each test has ten minutes, and is run between
 * 'before' and 'after' (NULL: nothing).
 */
TCase *cases_add(Suite *s, const char *name, SFun before, SFun after);

/*
 * Milliseconds on a clock that only goes forward.
 */
int64_t milliseconds(void);

/*
 * Run all cases: the program's exit status.
 */
int cases_run(Suite *s);

#endif
