/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cases of a test program, and their run.
 */
#include <signal.h>

#include "cases.h"

TCase *
cases_add(Suite *s, const char *name, SFun before, SFun after)
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, 600); /* it ends what hangs, and nothing else */
	tcase_add_checked_fixture(tc, before, after);
	suite_add_tcase(s, tc);
	return tc;
}

int
cases_run(Suite *s)
{
	SRunner *runner = srunner_create(s);
	int failed;

	/* Of nohup, or a shell's background: vdisk would keep them ignored. */
	signal(SIGHUP, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
