/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory for unit programs.  Like the real thing it is a linear window,
 * so that what is contiguous for the guest is contiguous here; every page that
 * is not guest memory is inaccessible.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <check.h>

#include "fake_guest.h"
#include "guest.h"

struct guest {
	uint64_t base;
	size_t size;
	uint8_t *window;
	uint8_t *present; /* per page */
	size_t top;	  /* where fake_guest_alloc() goes on */
	int shortage;	  /* why what is not present is not */
	unsigned lookups;
	unsigned forgets;
};

/* What is single-stepped; a signal handler has no other way to know. */
static struct {
	uint8_t *page;
	unsigned nth;
	void (*after)(unsigned nth);
} step;

struct guest *
fake_guest_open(uint64_t base, size_t size)
{
	struct guest *guest = calloc(1, sizeof(*guest));

	ck_assert_ptr_nonnull(guest);
	ck_assert_uint_eq(base % FAKE_GUEST_PAGE, 0);
	guest->base = base;
	guest->size = size;
	guest->present = calloc(1, size / FAKE_GUEST_PAGE);
	ck_assert_ptr_nonnull(guest->present);
	guest->window = mmap(NULL, size, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert_ptr_ne(guest->window, MAP_FAILED);
	return guest;
}

void
fake_guest_close(struct guest *guest)
{
	munmap(guest->window, guest->size);
	free(guest->present);
	free(guest);
}

void *
fake_guest_at(struct guest *guest, uint64_t gpa)
{
	return guest->window + (gpa - guest->base);
}

static void
protect(struct guest *guest, size_t from, size_t to, int prot)
{
	ck_assert_int_eq(mprotect(guest->window + from, to - from, prot), 0);
	memset(guest->present + from / FAKE_GUEST_PAGE, prot != PROT_NONE,
	    (to - from) / FAKE_GUEST_PAGE);
}

static size_t
page_up(size_t n)
{
	return (n + FAKE_GUEST_PAGE - 1) & -(size_t)FAKE_GUEST_PAGE;
}

uint64_t
fake_guest_alloc(struct guest *guest, size_t len, size_t align)
{
	size_t from = guest->top + FAKE_GUEST_PAGE;
	size_t to = from + page_up(len);

	ck_assert_uint_lt(to, guest->size);
	protect(guest, from, to, PROT_READ | PROT_WRITE);
	guest->top = to;
	return guest->base + ((to - len) & -align);
}

void
fake_guest_hole(struct guest *guest, uint64_t gpa, size_t len)
{
	size_t from = (gpa - guest->base) & -(size_t)FAKE_GUEST_PAGE;

	protect(guest, from, page_up(gpa - guest->base + len), PROT_NONE);
}

void
fake_guest_fill(struct guest *guest, uint64_t gpa, size_t len)
{
	size_t from = (gpa - guest->base) & -(size_t)FAKE_GUEST_PAGE;

	protect(guest, from, page_up(gpa - guest->base + len),
	    PROT_READ | PROT_WRITE);
}

void
fake_guest_revoke(struct guest *guest)
{
	protect(guest, 0, guest->size, PROT_NONE);
}

unsigned
fake_guest_lookups(const struct guest *guest)
{
	return guest->lookups;
}

unsigned
fake_guest_forgets(const struct guest *guest)
{
	return guest->forgets;
}

void *
guest_map(struct guest *guest, uint64_t gpa, size_t len)
{
	uint64_t from = gpa - guest->base;
	uint64_t page, to;

	guest->lookups++;
	errno = EFAULT;
	if (gpa < guest->base || __builtin_add_overflow(from, len, &to) ||
	    to > guest->size)
		return NULL;
	for (page = from / FAKE_GUEST_PAGE; page * FAKE_GUEST_PAGE < to; page++)
		if (!guest->present[page]) {
			errno = guest->shortage;
			return NULL;
		}
	return guest->window + from;
}

void
guest_wrote(struct guest *guest, uint64_t gpa, uint64_t len)
{
	(void)guest;
	(void)gpa;
	(void)len;
}

void
guest_report(struct guest *guest)
{
	(void)guest;
}

void
fake_guest_shortage(struct guest *guest, int error)
{
	guest->shortage = error;
}

bool
guest_reclaim(struct guest *guest)
{
	(void)guest;
	return false;
}

void
guest_pin(struct guest *guest, const void *p, size_t len)
{
	(void)guest;
	(void)p;
	(void)len;
}

uint64_t
guest_mapped(const struct guest *guest)
{
	return guest->size;
}

void
guest_unmap_all(struct guest *guest)
{
	guest->forgets++;
}

#if defined(__x86_64__)

#define TRAP_FLAG 0x100 /* single-step */

static void
on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint8_t *at = info->si_addr;

	if (at < step.page || at >= step.page + FAKE_GUEST_PAGE) {
		signal(sig, SIG_DFL); /* a fault of the program's own */
		return;
	}
	mprotect(step.page, FAKE_GUEST_PAGE, PROT_READ | PROT_WRITE);
	uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void
on_step(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	step.after(++step.nth);
	mprotect(step.page, FAKE_GUEST_PAGE, PROT_NONE);
}

bool
fake_guest_step(struct guest *guest, uint64_t gpa, void (*after)(unsigned nth))
{
	struct sigaction fault = {
	    .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	struct sigaction trap = {
	    .sa_sigaction = on_step, .sa_flags = SA_SIGINFO};

	step.page = fake_guest_at(guest, gpa & -(uint64_t)FAKE_GUEST_PAGE);
	step.nth = 0;
	step.after = after;
	if (after == NULL) {
		fault = trap = (struct sigaction){.sa_handler = SIG_DFL};
		mprotect(step.page, FAKE_GUEST_PAGE, PROT_READ | PROT_WRITE);
	}
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGTRAP, &trap, NULL);
	if (after != NULL)
		mprotect(step.page, FAKE_GUEST_PAGE, PROT_NONE);
	return true;
}

#else

bool
fake_guest_step(struct guest *guest, uint64_t gpa, void (*after)(unsigned nth))
{
	(void)guest;
	(void)gpa;
	(void)after;
	return false;
}

#endif
