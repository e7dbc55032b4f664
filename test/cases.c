/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cases of a test program, and their run.
 */
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cases.h"

/*
 * libcheck writes down each assertion that holds, to say behind which one a test
 * has crashed: two thirds of the time of some programs.  So it is told when a test
 * crashes or exits.
 */
void __real__mark_point(const char *file, int line);
void __wrap__mark_point(const char *file, int line);

static const char *last_file;
static int last_line;
static pid_t runner_pid; /* the parent of all tests */
static struct sigaction former[NSIG];

void
__wrap__mark_point(const char *file, int line)
{
	last_file = file;
	last_line = line;
}

static void
tell_last(void)
{
	if (getpid() != runner_pid && last_file != NULL)
		__real__mark_point(last_file, last_line);
}

/* It crashes once more, as it would have done. */
static void
crashed(int number)
{
	tell_last();
	sigaction(number, &former[number], NULL);
}

TCase *
cases_add(Suite *s, const char *name, SFun before, SFun after)
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, 600); /* it ends what hangs, and nothing else */
	tcase_add_checked_fixture(tc, before, after);
	suite_add_tcase(s, tc);
	return tc;
}

int64_t
milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int
cases_run(Suite *s)
{
	static const int crashes[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV};
	SRunner *runner = srunner_create(s);
	int failed;

	/* Of nohup, or a shell's background: vdisk would keep them ignored. */
	signal(SIGHUP, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	runner_pid = getpid();
	atexit(tell_last);
	for (int i = 0; i < COUNT(crashes); i++)
		sigaction(crashes[i],
		    &(struct sigaction){.sa_handler = crashed},
		    &former[crashes[i]]);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	/* $CK_RUN_CASE may name what is not there. */
	if (srunner_ntests_run(runner) == 0)
		failed = 1;
	srunner_free(runner);
	return failed != 0;
}
