// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Symbols that the kernel does not export. A kprobe says where kallsyms_lookup_name() is, which says the rest.
 */
#include "vtl0.h"

#include <linux/kprobes.h>

static unsigned long (*lookup)(const char *name);

int symbols_find(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	int error = register_kprobe(&probe);

	if (error) {
		pr_err("kallsyms_lookup_name is not to be found: %d; the kernel needs CONFIG_KPROBES and CONFIG_KALLSYMS_ALL\n",
		       error);
		return error;
	}
	lookup = (void *)probe.addr;
	unregister_kprobe(&probe);
	return 0;
}

/* The address of a symbol that this kernel may lack, or 0. */
unsigned long symbol_or_none(const char *name)
{
	return lookup(name);
}

/* The address of a symbol, or 0 and a line in the log. */
unsigned long symbol(const char *name)
{
	unsigned long address = lookup(name);

	if (!address)
		pr_err("this kernel has no %s\n", name);
	return address;
}
