// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * CopySecondaryKey: a certificate that Linux has taken into .secondary_trusted_keys is shown to VTL1.
 *
 * VTL1 judges for itself who has signed it. What it refuses stays a key of Linux', and vouches for nothing in VTL1.
 */
#include "vtl0.h"

#include <linux/key-type.h>

static struct key *secondary;

int keys_prepare(void)
{
	struct key **ring = (void *)symbol_or_none("secondary_trusted_keys");

	secondary = ring ? *ring : NULL;
	if (!secondary)
		pr_warn("this kernel has no secondary trusted keys\n");
	return 0;
}

/* Instead of key_create_or_update(). */
void *wrap_key_create_or_update(void *keyring, const char *type, const char *description, const void *payload,
				size_t size, u32 permissions, unsigned long flags)
{
	void *key = real_key_create_or_update(keyring, type, description, payload, size, permissions, flags);
	struct list list = {};
	s64 result;

	if (!vtl1_protects || IS_ERR(key) || !secondary || key_ref_to_ptr(keyring) != secondary ||
	    strcmp(key_ref_to_ptr(key)->type->name, "asymmetric"))
		return key;
	list_add_bytes(&list, payload, size, 0);
	result = list_call(&list, VSM_CALL_COPY_SECONDARY_KEY, 0);
	if (result)
		pr_err("the key \"%s\" is refused: CopySecondaryKey: %lld; no module signed with it will load\n",
		       key_ref_to_ptr(key)->description, result);
	else
		pr_info("the key \"%s\" is VTL1's too\n", key_ref_to_ptr(key)->description);
	return key;
}
