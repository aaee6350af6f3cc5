// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * PatchText: what the kernel writes into text that VTL1 protects.
 *
 * __text_poke() is where all of the kernel's late writes to text come by: one for each step of a patch (breakpoint, tail,
 * head). VTL1 answers -ENOENT where the memory is nobody's; the kernel then writes itself. A patch that VTL1 refuses is
 * undone: its site gets back what it held before the breakpoint, or the processor that comes by there would stop for good.
 * All of it runs under text_mutex, so that there is one at a time.
 */
#include "vtl0.h"

#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

#define INT3 0xcc
#define LOCK_PREFIX_BYTE 0xf0
/* Bytes of the longest instruction at a site, a jump under a condition; VTL1 takes 5 at once. */
#define LONGEST 6
#define MOST_AT_ONCE 5
/* The kernel patches at most a page of sites together (TP_VEC_MAX of text_poke_bp_batch). */
#define SITES 512

/* Sites that hold a breakpoint. */
static struct {
	const u8 *at;
	u8 before[LONGEST];
} sites[SITES];

static struct heki_patch *request;
static text_poke_f *poke_memcpy;
static u64 written, not_protected, refused;

/* The kernel has wanted its LOCK prefixes back for a second processor, and could not have them. */
bool patch_lacks_locks;

int patch_prepare(void)
{
	request = (void *)get_zeroed_page(GFP_KERNEL);
	/* Static in some builds of the kernel; then each write counts as one of bytes. */
	poke_memcpy = (void *)symbol_or_none("text_poke_memcpy");
	return request ? 0 : -ENOMEM;
}

static s64 ask(const void *at, const void *code, size_t size)
{
	*request = (struct heki_patch){ .pa = { physical(at) }, .size = size };
	if (offset_in_page(at) + size > PAGE_SIZE)
		request->pa[1] = physical((void *)PAGE_ALIGN((unsigned long)at));
	memcpy(request->code, code, size);
	return vtl_call(VSM_CALL_PATCH_TEXT, virt_to_phys(request), 0, 0);
}

static int site_at(const u8 *at)
{
	int i;

	for (i = 0; i < SITES; i++)
		if (sites[i].at && at >= sites[i].at && at < sites[i].at + LONGEST)
			return i;
	return -1;
}

static void remember(const u8 *at)
{
	int i;

	for (i = 0; i < SITES && sites[i].at; i++)
		;
	if (i == SITES)
		return;
	sites[i].at = at;
	memcpy(sites[i].before, at, LONGEST);
}

/* Ends a patch: `size` bytes of its site get back what they held. */
static void undo(const u8 *site, const u8 *before, size_t size)
{
	s64 result = size > 1 ? ask(site + 1, before + 1, size - 1) : 0;

	if (!result)
		result = ask(site, before, 1);
	if (result)
		pr_err("the text at %pS cannot be put back: %lld\n", site, result);
}

/* How long the instruction is that a site held; those that stand at sites. */
static size_t length(const u8 *code)
{
	bool two = code[0] == 0xeb || (code[0] == 0x66 && code[1] == 0x90);

	return code[0] == 0x0f && (code[1] & 0xf0) == 0x80 ? 6 : two ? 2 : 5;
}

static void refuse(const u8 *at, const u8 *code, size_t size, s64 result)
{
	static const u8 *last;
	int i = site_at(at);

	refused++;
	if (size == 1 && *code == LOCK_PREFIX_BYTE) {
		patch_lacks_locks = true;
		return;
	}
	/* One line for a site, whose later steps come as well. */
	if (!last || at < last || at >= last + LONGEST || *code == INT3) {
		pr_err("PatchText refuses to patch %pS: %lld; the text stays as it is\n", at, result);
		last = at;
	}
	if (i < 0 || *sites[i].at != INT3)
		return;
	undo(sites[i].at, sites[i].before, length(sites[i].before));
	sites[i].at = NULL;
}

static bool patch(u8 *at, const u8 *code, size_t size)
{
	bool breakpoint = size == 1 && *code == INT3;
	s64 result;
	int i;

	if (breakpoint)
		remember(at);
	result = ask(at, code, size);
	if (result == -ENOENT)
		not_protected++;
	else if (result)
		refuse(at, code, size, result);
	else
		written++;
	i = site_at(at);
	if (i >= 0 && (breakpoint ? result != 0 : sites[i].at == at))
		sites[i].at = NULL;
	return result != -ENOENT;
}

/* Instead of __text_poke(): the kernel writes itself only where VTL1 has nothing to say. */
void *wrap_text_poke(text_poke_f *function, void *at, const void *source, size_t size)
{
	const u8 nothing = 0;
	void *result;

	if (vtl1_protects) {
		s64 answer;

		if (size <= MOST_AT_ONCE && (!poke_memcpy || function == poke_memcpy)) {
			if (patch(at, source, size))
				return at;
		} else {
			/* No patch of a site. A byte that no site may hold tells whether the memory is protected. */
			answer = ask(at, &nothing, 1);
			if (answer != -ENOENT) {
				refused++;
				pr_err("%zu bytes at %pS are no patch of a site: refused\n", size, at);
				return at;
			}
			not_protected++;
		}
	}
	result = real_text_poke(function, at, source, size);
	/* No tail call: the hook knows the driver by the return address. */
	barrier_data(result);
	return result;
}

void patch_show(struct seq_file *file)
{
	seq_printf(file, "text: written %llu, not protected %llu, refused %llu\n", written, not_protected, refused);
}
