// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Lists of ranges of VTL0 memory, as the calls take them: pages in a chain, each with up to 127 ranges.
 *
 * A range lies in one piece in virtual and in physical memory; what follows the last range in both is added to it.
 */
#include "vtl0.h"

#include <asm/pgtable.h>

/* The physical address of what the kernel has mapped, or 0. */
u64 physical(const void *at)
{
	unsigned int level;
	pte_t *entry;
	u64 size;

	if (virt_addr_valid(at))
		return virt_to_phys((void *)at);
	entry = lookup_address((unsigned long)at, &level);
	if (!entry || !(pte_val(*entry) & _PAGE_PRESENT))
		return 0;
	size = page_level_size(level);
	return (pte_val(*entry) & PTE_PFN_MASK & ~(size - 1)) | ((unsigned long)at & (size - 1));
}

static struct heki_page *page_with_room(struct list *list)
{
	struct heki_page *page = list->last;

	if (page && page->nranges < ARRAY_SIZE(page->ranges))
		return page;
	page = (struct heki_page *)get_zeroed_page(GFP_KERNEL);
	if (!page) {
		list->error = -ENOMEM;
		return NULL;
	}
	if (list->last) {
		list->last->next = (u64)page;
		list->last->next_pa = virt_to_phys(page);
	} else {
		list->first = page;
	}
	list->last = page;
	return page;
}

/* Adds a range; an error is kept in the list. */
void list_add_range(struct list *list, u64 va, u64 pa, u64 size, u64 attributes)
{
	struct heki_page *page = list->last;

	if (list->error)
		return;
	if (page) {
		struct heki_range *last = &page->ranges[page->nranges - 1];

		if (last->epa == pa && last->attributes == attributes && last->va + (last->epa - last->pa) == va) {
			last->epa += size;
			return;
		}
	}
	page = page_with_room(list);
	if (!page)
		return;
	page->ranges[page->nranges++] = (struct heki_range){ va, pa, pa + size, attributes };
	list->total++;
}

/* Adds bytes that lie in one piece in virtual memory only. */
void list_add_bytes(struct list *list, const void *from, u64 size, u64 attributes)
{
	while (size && !list->error) {
		u64 step = min_t(u64, size, PAGE_SIZE - offset_in_page(from));
		u64 pa = physical(from);

		if (!pa)
			list->error = -EFAULT;
		list_add_range(list, (u64)from, pa, step, attributes);
		from += step;
		size -= step;
	}
}

void list_free(struct list *list)
{
	struct heki_page *page = list->first;

	while (page) {
		struct heki_page *next = (struct heki_page *)page->next;

		free_page((unsigned long)page);
		page = next;
	}
	*list = (struct list){};
}

/* Makes a call with the list, and frees it. */
s64 list_call(struct list *list, u64 id, u64 third)
{
	s64 result = list->error;

	if (!result)
		result = vtl_call(id, list->first ? virt_to_phys(list->first) : 0, list->total, third);
	list_free(list);
	return result;
}
