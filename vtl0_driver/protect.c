// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * ProtectMemory: every frame of VTL0 gets what the kernel's own page tables allow on it, over all of its mappings.
 *
 * A frame that is writable in one place and executable in another stays executable only: such is the hypercall page, which
 * the hypervisor writes and VTL0 must not. A frame that no table maps, or that is no memory of Linux', can be written and
 * not executed. VTL1's region is left out; VTL1 has closed it. Nor is the code executable, below 1 MiB, that processors start
 * with, once all are there: kexec puts its segments over it.
 */
#include "vtl0.h"

#include <linux/pfn.h>
#include <linux/sizes.h>
#include <linux/vmalloc.h>
#include <asm/mshyperv.h>
#include <asm/pgtable.h>

#define R VSM_MEM_ATTR_READ
#define W VSM_MEM_ATTR_WRITE
#define X VSM_MEM_ATTR_EXEC

struct walk {
	u8 *frames;
	u64 count;
};

/* Entries from the kernel's half of a table on; `w` and `x` are what the tables above allow. */
static void walk_table(struct walk *walk, u64 table, int level, bool w, bool x)
{
	u64 *entries = phys_to_virt(table);
	int top = pgtable_l5_enabled() ? 4 : 3, i;

	for (i = level == top ? PTRS_PER_PGD / 2 : 0; i < PTRS_PER_PTE; i++) {
		u64 entry = READ_ONCE(entries[i]), pages = 1ULL << 9 * level, pfn, n;
		bool entry_w = w && entry & _PAGE_RW, entry_x = x && !(entry & _PAGE_NX);

		if (!(entry & _PAGE_PRESENT))
			continue;
		if (level && !(entry & _PAGE_PSE)) {
			walk_table(walk, entry & PTE_PFN_MASK, level - 1, entry_w, entry_x);
			continue;
		}
		pfn = (entry & PTE_PFN_MASK) >> PAGE_SHIFT & ~(pages - 1);
		for (n = 0; n < pages && pfn + n < walk->count; n++)
			walk->frames[pfn + n] |= R | (entry_w ? W : 0) | (entry_x ? X : 0);
	}
}

static u8 settle(u64 pfn, u8 mapped)
{
	if (!mapped)
		return R | W;
	if (!page_is_ram(pfn) && !(mapped & X))
		return R | W;
	if (!PROCESSORS_COME_BACK && pfn < PFN_DOWN(SZ_1M) && num_online_cpus() == num_possible_cpus())
		return R | W;
	if (mapped & W && mapped & X) {
		if (pfn != vmalloc_to_pfn(hv_hypercall_pg))
			pr_warn("frame %#llx is writable and executable: it can be executed only from now on\n", pfn);
		return R | X;
	}
	return mapped;
}

/* Protects all frames below the end of memory. */
int protect_memory(const struct region *region)
{
	u64 first = region->start >> PAGE_SHIFT, last = (region->start + region->size) >> PAGE_SHIFT, pfn, end;
	u64 *max = (u64 *)symbol("max_pfn"), count[8] = {};
	struct walk walk = {};
	struct list list = {};
	u64 total;
	s64 result;

	if (!max)
		return -ENOENT;
	walk.count = *max;
	walk.frames = vzalloc(walk.count);
	if (!walk.frames)
		return -ENOMEM;
	walk_table(&walk, read_cr3_pa(), pgtable_l5_enabled() ? 4 : 3, true, true);
	for (pfn = 0; pfn < walk.count; pfn++)
		walk.frames[pfn] = pfn >= first && pfn < last ? 0 : settle(pfn, walk.frames[pfn]);
	for (pfn = 0; pfn < walk.count; pfn = end) {
		u8 attributes = walk.frames[pfn];

		for (end = pfn + 1; end < walk.count && walk.frames[end] == attributes; end++)
			;
		count[attributes & 7] += end - pfn;
		if (attributes)
			list_add_range(&list, (u64)__va(PFN_PHYS(pfn)), PFN_PHYS(pfn), PFN_PHYS(end - pfn), attributes);
	}
	vfree(walk.frames);
	total = list.total;
	result = list_call(&list, VSM_CALL_PROTECT_MEMORY, 0);
	if (result)
		pr_err("ProtectMemory: %lld\n", result);
	else
		pr_info("memory: %llu ranges; frames readable %llu, writable %llu, executable %llu\n", total, count[R],
			count[R | W], count[R | X]);
	return result;
}
