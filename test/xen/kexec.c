/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Another kernel, in place of the one that runs, or for when that has crashed.
 *
 *	kexec [-p] KERNEL INITRD COMMAND-LINE
 *		Boots it at once, without stopping anything first; with -p, loads
 *		it to where "crashkernel=" has reserved memory.
 *
 * On x86 the kernel has all that this needs.  On Arm Debian's has only the half of
 * it: its image, its device tree and a few instructions are put where they belong
 * from here.  Such a tree does not tell of Xen, which would not let the new kernel
 * register its vcpu_info where there is one of the old kernel's already; and Linux
 * takes that for a bug.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/kexec.h>
#include <linux/reboot.h>

#ifdef __aarch64__
#include <elf.h>
#include <libfdt.h>

#define PAGE	 UINT64_C(4096)
#define ALIGN	 UINT64_C(0x200000)
#define CPUS	 "/sys/devices/system/cpu/cpu"
#define MAX_CPUS 8

struct range {
	uint64_t start, size;
};

/* The first range of that name in /proc/iomem, from 'after' on. */
static struct range
iomem(const char *name, uint64_t after)
{
	unsigned long long start, end;
	char line[128], is[64];
	struct range r = {0, 0};
	FILE *f = fopen("/proc/iomem", "r");

	if (f == NULL)
		err(1, "/proc/iomem");
	while (r.size == 0 && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "%llx-%llx : %63[^\n]", &start, &end, is) ==
			3 &&
		    strcmp(is, name) == 0 && start >= after)
			r = (struct range){start, end - start + 1};
	fclose(f);
	return r;
}

static uint64_t
up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* A whole file, and room behind it. */
static void *
contents(const char *path, size_t room, size_t *len)
{
	FILE *f = fopen(path, "r");
	size_t size = 0, n;
	char *p = NULL;

	if (f == NULL)
		err(1, "%s", path);
	do {
		p = realloc(p, size + (1 << 20) + room);
		if (p == NULL)
			err(1, "memory");
		n = fread(p + size, 1, 1 << 20, f);
		size += n;
	} while (n > 0);
	fclose(f);
	*len = size;
	return p;
}

/* The note in memory of which these files tell, if there is one. */
static Elf64_Phdr *
note(Elf64_Phdr *ph, const char *file, const char *size_file)
{
	unsigned long long at, size;
	FILE *f = fopen(file, "r");
	int got;

	if (f == NULL)
		return ph;
	got = fscanf(f, "%llx %llx", &at, &size);
	fclose(f);
	if (got == 1 && (f = fopen(size_file, "r")) != NULL) {
		got += fscanf(f, "%llu", &size);
		fclose(f);
	}
	if (got != 2)
		return ph;
	ph->p_type = PT_NOTE;
	ph->p_offset = ph->p_paddr = at;
	ph->p_filesz = ph->p_memsz = size;
	return ph + 1;
}

/* What /proc/vmcore will be like: the memory outside of 'crash'. */
static size_t
core_header(char *buf, struct range crash)
{
	Elf64_Ehdr *eh = (Elf64_Ehdr *)buf;
	Elf64_Phdr *ph = (Elf64_Phdr *)(eh + 1);
	uint64_t end = crash.start + crash.size;
	struct range r = {0, 0};
	char file[64], size_file[64];

	memcpy(eh->e_ident, ELFMAG, SELFMAG);
	eh->e_ident[EI_CLASS] = ELFCLASS64;
	eh->e_ident[EI_DATA] = ELFDATA2LSB;
	eh->e_ident[EI_VERSION] = EV_CURRENT;
	eh->e_type = ET_CORE;
	eh->e_machine = EM_AARCH64;
	eh->e_version = EV_CURRENT;
	eh->e_phoff = eh->e_ehsize = sizeof(*eh);
	eh->e_phentsize = sizeof(*ph);
	for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
		snprintf(file, sizeof(file), CPUS "%d/crash_notes", cpu);
		snprintf(size_file, sizeof(size_file),
		    CPUS "%d/crash_notes_size", cpu);
		ph = note(ph, file, size_file);
	}
	ph = note(ph, "/sys/kernel/vmcoreinfo", "");
	while ((r = iomem("System RAM", r.start + r.size)).size != 0) {
		struct range part[2] = {r, {end, 0}};

		if (crash.start >= r.start && end <= r.start + r.size) {
			part[0].size = crash.start - r.start;
			part[1].size = r.start + r.size - end;
		}
		for (int i = 0; i < 2; i++) {
			if (part[i].size == 0)
				continue;
			ph->p_type = PT_LOAD;
			ph->p_offset = ph->p_paddr = part[i].start;
			ph->p_filesz = ph->p_memsz = part[i].size;
			ph++;
		}
	}
	eh->e_phnum = ph - (Elf64_Phdr *)(eh + 1);
	return (char *)ph - buf;
}

/* A property of two 64-bit numbers. */
static void
set_pair(void *fdt, int node, const char *name, struct range r)
{
	fdt64_t v[2] = {cpu_to_fdt64(r.start), cpu_to_fdt64(r.size)};

	fdt_setprop(fdt, node, name, v, sizeof(v));
}

static void
load(const char *kernel, const char *initrd, const char *line, bool crash)
{
	enum { KERNEL, INITRD, TREE, CORE, ENTRY, SEGMENTS };
	static uint64_t core[512], entry[512];
	/* x0: the tree; to the kernel */
	static const uint32_t code[] = {0x580000c0, 0x580000e4, 0xd2800001,
	    0xd2800002, 0xd2800003, 0xd61f0080};
	struct kexec_segment s[SEGMENTS] = {0};
	struct range ram = iomem(crash ? "Crash kernel" : "System RAM", 0);
	uint64_t at = up(ram.start, ALIGN);
	size_t len;
	void *fdt;
	int node;

	s[KERNEL].buf = contents(kernel, 0, &s[KERNEL].bufsz);
	s[KERNEL].memsz = ((uint64_t *)s[KERNEL].buf)[2];
	s[INITRD].buf = contents(initrd, 0, &s[INITRD].bufsz);
	fdt = contents("/sys/firmware/fdt", PAGE, &len);
	s[TREE].buf = fdt;
	s[TREE].bufsz = len + PAGE;
	s[CORE].buf = core;
	s[CORE].bufsz = sizeof(core);
	s[ENTRY].buf = entry;
	s[ENTRY].bufsz = sizeof(entry);
	for (int i = 0; i < SEGMENTS; i++) {
		if (s[i].memsz < s[i].bufsz)
			s[i].memsz = s[i].bufsz;
		s[i].memsz = up(s[i].memsz, PAGE);
		s[i].mem = (void *)at;
		at = up(at + s[i].memsz, ALIGN);
	}
	if (at > ram.start + ram.size)
		errx(1, "no room: %#llx to %#llx of %#llx",
		    (long long)ram.start, (long long)at,
		    (long long)(ram.start + ram.size));

	memcpy(entry, code, sizeof(code));
	entry[3] = (uintptr_t)s[TREE].mem;
	entry[4] = (uintptr_t)s[KERNEL].mem;
	if (fdt_open_into(fdt, fdt, len + PAGE) != 0)
		errx(1, "/sys/firmware/fdt");
	node = fdt_path_offset(fdt, "/hypervisor");
	if (node >= 0)
		fdt_del_node(fdt, node);
	node = fdt_path_offset(fdt, "/chosen");
	fdt_setprop_string(fdt, node, "bootargs", line);
	fdt_setprop_u64(
	    fdt, node, "linux,initrd-start", (uintptr_t)s[INITRD].mem);
	fdt_setprop_u64(fdt, node, "linux,initrd-end",
	    (uintptr_t)s[INITRD].mem + s[INITRD].bufsz);
	if (crash) {
		core_header((char *)core, ram);
		set_pair(fdt, node, "linux,usable-memory-range", ram);
		set_pair(fdt, node, "linux,elfcorehdr",
		    (struct range){(uintptr_t)s[CORE].mem, sizeof(core)});
	}
	if (syscall(SYS_kexec_load, s[ENTRY].mem, SEGMENTS, s,
		(crash ? KEXEC_ON_CRASH : 0) | KEXEC_ARCH_DEFAULT) < 0)
		err(1, "kexec_load");
}
#else
static void
load(const char *kernel, const char *initrd, const char *line, bool crash)
{
	int k = open(kernel, O_RDONLY | O_CLOEXEC);
	int i = open(initrd, O_RDONLY | O_CLOEXEC);

	if (syscall(SYS_kexec_file_load, k, i, strlen(line) + 1, line,
		crash ? KEXEC_FILE_ON_CRASH : 0) < 0)
		err(1, "kexec_file_load");
}
#endif

int
main(int argc, char **argv)
{
	bool crash = argc == 5 && strcmp(argv[1], "-p") == 0;

	if (argc != 4 + crash)
		errx(2, "see kexec.c");
	load(argv[1 + crash], argv[2 + crash], argv[3 + crash], crash);
	if (crash)
		return 0;
	reboot(LINUX_REBOOT_CMD_KEXEC);
	err(1, "reboot");
}
