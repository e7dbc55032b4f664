/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How the benchmark's guest driver and a disk reach each other.  There is one
 * implementation per kind of disk; each makes a program of its own.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct ring;

/*
 * Times in ns, as many as there were.
 */
struct samples {
	uint32_t *ns;
	size_t n, room;
};

void sample(struct samples *s, uint64_t ns);
uint64_t now(void);

/*
 * In a new process: become 'argv', the disk, on processor 'cpu' (-1: any), and
 * die with the guest.
 */
_Noreturn void become(char **argv, int cpu);

/*
 * Make a guest with 'ram' bytes of memory, start the disk with command 'argv'
 * on processor 'cpu' (-1: any), and have it use the ring, which is initialised.
 * Exits on failure.
 */
void transport_start(struct ring *r, uint64_t ram, char **argv, int cpu);
pid_t transport_pid(void);

/*
 * Notify the disk; returns when the guest may go on.
 */
void transport_kick(void);

/*
 * Wait for an interrupt and do what is to be done before the used ring is
 * looked at.
 */
void transport_interrupt(void);

/*
 * Start counting at 0; print what was counted as members of a JSON object, each
 * preceded by a comma, 'requests' being how many were served.
 */
void transport_reset(void);
void transport_report(FILE *f, uint64_t requests);

/*
 * Print 'name' and the distribution of what was sampled, as such a member.
 */
void report_samples(FILE *f, const char *name, struct samples *s);

#endif
