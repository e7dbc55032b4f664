/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A plugin for QEMU (11.1): how many instructions were executed where, while
 * rate.c measured.
 *
 *	-plugin profile.so,out=DIRECTORY
 *		Between two marks, which are instructions of rate.c that do
 *		nothing, counts what each translated block executes; at the
 *		second mark writes it to DIRECTORY/N, N from 1, a line
 *		"ADDRESS INSTRUCTIONS" for each block.
 *
 * For time that is counted in instructions, on one processor: then it is all
 * the time there was, but for idling.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profile.h"

/* As much of qemu-plugin.h as is used, which Debian does not have. */
typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
typedef void (*tb_trans_cb)(struct qemu_plugin_tb *, void *);
typedef void (*udata_cb)(unsigned, void *);

int qemu_plugin_install(
    qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);
void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t, tb_trans_cb, void *);
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *, udata_cb, enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(
    struct qemu_plugin_insn *, udata_cb, enum qemu_plugin_cb_flags, void *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(
    const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);

int qemu_plugin_version = 7;

/* A block in this table is its place and, above that, its length. */
#define BLOCKS (1U << 21)

static struct {
	uint64_t address;
	uint64_t executed;
	unsigned len;
} blocks[BLOCKS];
static const char *directory = ".";
static bool counting;
static unsigned dumps;

static uint64_t
find(uint64_t address)
{
	uint64_t i = (address >> 2) * 0x9e3779b97f4a7c15 >> 43;

	while (blocks[i].address != 0 && blocks[i].address != address)
		i = (i + 1) % BLOCKS;
	blocks[i].address = address;
	return i;
}

static void
executed(unsigned cpu, void *block)
{
	uintptr_t b = (uintptr_t)block;

	(void)cpu;
	if (counting)
		blocks[b % BLOCKS].executed += b / BLOCKS;
}

static void
begin(unsigned cpu, void *unused)
{
	(void)cpu;
	(void)unused;
	counting = true;
}

static void
end(unsigned cpu, void *unused)
{
	char name[4096];
	FILE *f;

	(void)cpu;
	(void)unused;
	counting = false;
	snprintf(name, sizeof(name), "%s/%u", directory, ++dumps);
	f = fopen(name, "w");
	for (unsigned i = 0; i < BLOCKS; i++) {
		if (f != NULL && blocks[i].executed > 0)
			fprintf(f, "%" PRIx64 " %" PRIu64 " %u\n",
			    blocks[i].address, blocks[i].executed,
			    blocks[i].len);
		blocks[i].executed = 0;
	}
	if (f == NULL || fclose(f) != 0) {
		perror(name);
		exit(1);
	}
}

static void
translated(struct qemu_plugin_tb *tb, void *unused)
{
	uint64_t n = qemu_plugin_tb_n_insns(tb);
	uint64_t place = find(qemu_plugin_tb_vaddr(tb));
	uintptr_t block = n * BLOCKS + place;

	(void)unused;
	blocks[place].len = n;
	qemu_plugin_register_vcpu_tb_exec_cb(
	    tb, executed, QEMU_PLUGIN_CB_NO_REGS, (void *)block);
	for (uint64_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint32_t opcode = 0;

		qemu_plugin_insn_data(insn, &opcode, sizeof(opcode));
		if (opcode == PROFILE_BEGIN || opcode == PROFILE_END)
			qemu_plugin_register_vcpu_insn_exec_cb(insn,
			    opcode == PROFILE_BEGIN ? begin : end,
			    QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

int
qemu_plugin_install(
    qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++)
		if (strncmp(argv[i], "out=", 4) == 0)
			directory = argv[i] + 4;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	return 0;
}
