// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Jump labels as patch sites: where each is, and the jump that it becomes.
 */
#include "vtl0.h"

#include <linux/vmalloc.h>

#define JMP8 0xeb
#define JMP32 0xe9
#define PREFIX_OF_NOP2 0x66

/*
 * A record of the sites of a table, and its size in bytes; NULL without memory. Whoever calls it frees it. Sites in the
 * kernel's init text, which is gone, are left out. In the table of a module that is being loaded the same bit still is the
 * compiler's: it says that the file has a NOP where it had a jump (objtool), so all of those are sites.
 */
struct heki_patch_info *sites_of(const struct jump_entry *from, const struct jump_entry *to, bool kernel, size_t *size)
{
	struct heki_patch_info *info = vzalloc(sizeof(*info) + (to - from) * sizeof(struct heki_patch));
	struct heki_patch *site = (void *)(info + 1);

	if (!info)
		return NULL;
	info->type = VSM_HEKI_JUMP_LABEL;
	info->max_patch_count = to - from;
	for (; from < to; from++) {
		const u8 *code = (void *)jump_entry_code(from);
		s32 distance = jump_entry_target(from) - jump_entry_code(from);

		if (kernel && jump_entry_is_init(from))
			continue;
		site->size = *code == JMP8 || *code == PREFIX_OF_NOP2 ? 2 : 5;
		site->pa[0] = physical(code);
		if (offset_in_page(code) + site->size > PAGE_SIZE)
			site->pa[1] = physical((void *)PAGE_ALIGN((unsigned long)code));
		distance -= site->size;
		site->code[0] = site->size == 2 ? JMP8 : JMP32;
		memcpy(site->code + 1, &distance, site->size - 1);
		site++;
		info->patch_idx++;
	}
	*size = sizeof(*info) + info->patch_idx * sizeof(*site);
	return info;
}
