/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The programs that the fuzzer found worth keeping, in test/corpus, each once
 * around.  Where the compiler does not tell of loads and stores there are fewer
 * ticks than under the fuzzer (fuzz.c), and the same rules.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <check.h>

#include "cases.h"
#include "fuzz.h"

#define CORPUS "test/corpus"

static struct dirent **names;
static int nnames;
static char path[512];

static int
is_program(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

/*
 * An oracle has spoken: say of which program.
 */
static void
on_abort(int sig)
{
	ssize_t n = write(STDERR_FILENO, path, strlen(path));

	(void)n;
	signal(sig, SIG_DFL);
	raise(sig);
}

START_TEST(no_program_of_the_corpus_breaks_a_rule)
{
	static uint8_t program[1 << 16];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), CORPUS "/%s\n", names[_i]->d_name);
	signal(SIGABRT, on_abort);
	path[strlen(path) - 1] = '\0';
	fd = open(path, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	path[strlen(path)] = '\n';
	len = read(fd, program, sizeof(program));
	ck_assert_int_ge(len, 0);
	close(fd);
	LLVMFuzzerTestOneInput(program, len);
}
END_TEST

START_TEST(there_is_a_corpus)
{
	ck_assert_int_gt(nnames, 50);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("fuzz");
	TCase *tc = cases_add(s, "corpus", NULL, NULL);

	nnames = scandir(CORPUS, &names, is_program, alphasort);
	tcase_add_test(tc, there_is_a_corpus);
	tcase_add_loop_test(tc, no_program_of_the_corpus_breaks_a_rule, 0,
	    nnames > 0 ? nnames : 0);
	return cases_run(s);
}
