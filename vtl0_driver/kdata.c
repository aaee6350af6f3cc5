// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * LoadKData: certificates, addresses, read-only data and jump labels of the kernel, in one list.
 *
 * Revoked certificates and hashes are not sent: their lists are init data, which is gone when a module runs. Nor is the kexec
 * trampoline, which shares its page with other text in a stock kernel; all of it is read-only as text.
 */
#include "vtl0.h"

#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <asm/paravirt.h>

/* What follows struct heki_kinfo on x86 (LVBS contract, 5.5). */
struct kernel_information {
	struct heki_kinfo symbols;
	struct paravirt_patch_template operations;
	u64 bug, nop, indirect_thunks, return_thunk, return_thunk_in_use;
};

static const char *const tables[] = {
	"__start___ksymtab", "__stop___ksymtab", "__start___ksymtab_gpl", "__stop___ksymtab_gpl"
};

/* Linux 6.8 has given the two functions other names. */
static unsigned long either(const char *name, const char *former_name)
{
	return symbol_or_none(name) ?: symbol(former_name);
}

static struct kernel_information *information(void)
{
	struct kernel_information *info = (void *)get_zeroed_page(GFP_KERNEL);
	u64 *table = info ? &info->symbols.ksymtab_start : NULL;
	unsigned long in_use;
	int i;

	BUILD_BUG_ON(sizeof(*info) > PAGE_SIZE);
	if (!info)
		return NULL;
	for (i = 0; i < ARRAY_SIZE(tables); i++)
		table[i] = symbol(tables[i]);
	memcpy(&info->operations, &pv_ops, sizeof(info->operations));
	info->bug = either("BUG_func", "paravirt_BUG");
	info->nop = either("nop_func", "_paravirt_nop");
	/* A kernel without these mitigations has no thunks: 0. */
	info->indirect_thunks = symbol_or_none("__x86_indirect_thunk_array");
	info->return_thunk = symbol_or_none("__x86_return_thunk");
	in_use = symbol_or_none("x86_return_thunk");
	info->return_thunk_in_use = in_use ? *(u64 *)in_use : 0;
	return info;
}

/* Tells VTL1 about the kernel. `certificates` are the kernel's, `more` the machine owner's, or none. */
int load_kernel_data(const void *certificates, size_t size, const void *more, size_t more_size)
{
	unsigned long rodata = symbol("__start_rodata"), end = symbol("__end_rodata");
	unsigned long labels = symbol("__start___jump_table"), labels_end = symbol("__stop___jump_table");
	struct heki_patch_info *sites = NULL;
	struct kernel_information *info;
	void *all = NULL;
	struct list list = {};
	size_t sites_size;
	s64 result = -ENOENT;

	if (!rodata || !end || !labels || !labels_end)
		return -ENOENT;
	info = information();
	sites = sites_of((void *)labels, (void *)labels_end, true, &sites_size);
	/* An object is in one piece. */
	all = vmalloc(size + more_size);
	if (info && sites && all) {
		memcpy(all, certificates, size);
		memcpy(all + size, more, more_size);
		list_add_bytes(&list, all, size + more_size, VSM_KDATA_SYSTEM_CERTS);
		list_add_bytes(&list, info, sizeof(*info), VSM_KDATA_KERNEL_INFO);
		list_add_bytes(&list, (void *)rodata, end - rodata, VSM_KDATA_KERNEL_DATA);
		list_add_bytes(&list, sites, sites_size, VSM_KDATA_PATCH_INFO);
		result = list_call(&list, VSM_CALL_LOAD_KDATA, 0);
		if (!result)
			pr_info("kernel data: %zu bytes of certificates, %lu KiB of read-only data, %llu jump labels\n",
				size + more_size, (end - rodata) >> 10, sites->patch_idx);
	} else {
		result = -ENOMEM;
	}
	if (result)
		pr_err("LoadKData: %lld\n", result);
	vfree(all);
	vfree(sites);
	free_page((unsigned long)info);
	return result;
}
