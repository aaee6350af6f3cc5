// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The certificates that VTL1 is to trust, held against the kernel's own.
 *
 * The built-in certificates are init data and gone when a module runs, so a file brings them. The kernel still has their
 * keys: each certificate of the file must hold one of them, and each of them must be in the file.
 */
#include "vtl0.h"

#include <linux/assoc_array.h>
#include <linux/key-type.h>
#include <crypto/public_key.h>
#include <keys/asymmetric-type.h>
#include <keys/keyring-type.h>

/* A tag for a sequence, and a length in two bytes: every certificate is that long. */
#define DER_SEQUENCE 0x30
#define DER_TWO_BYTES 0x82

/* In assoc_array's objects of a keyring bit 1 says that it is a keyring. */
#define IS_KEYRING 0x2UL

struct comparison {
	const u8 *certificates;
	size_t size;
	int keys, missing;
	/* Of the certificate that is looked for, or none. */
	const u8 *one;
	size_t one_size;
	bool found;
};

/* Bytes of the certificate at `at`, or a negative errno. */
ssize_t certificate_size(const u8 *at, size_t left)
{
	size_t size;

	if (left < 4 || at[0] != DER_SEQUENCE || at[1] != DER_TWO_BYTES)
		return -EBADMSG;
	size = 4 + (at[2] << 8 | at[3]);
	return size <= left ? size : -EBADMSG;
}

static bool holds(const u8 *in, size_t size, const void *what, size_t length)
{
	size_t i;

	for (i = 0; length && i + length <= size; i++)
		if (!memcmp(in + i, what, length))
			return true;
	return false;
}

static int compare_key(const void *object, void *data)
{
	const struct key *key = (void *)((unsigned long)object & ~IS_KEYRING);
	struct comparison *comparison = data;
	const struct public_key *public;

	if ((unsigned long)object & IS_KEYRING || strcmp(key->type->name, "asymmetric"))
		return 0;
	public = key->payload.data[asym_crypto];
	if (!public)
		return 0;
	if (comparison->one) {
		comparison->found |= holds(comparison->one, comparison->one_size, public->key, public->keylen);
		return comparison->found;
	}
	comparison->keys++;
	if (!holds(comparison->certificates, comparison->size, public->key, public->keylen)) {
		comparison->missing++;
		pr_err("the kernel's key \"%s\" is not among the certificates\n", key->description);
	}
	return 0;
}

static int each_key(struct comparison *comparison)
{
	int (*iterate)(const struct assoc_array *, int (*)(const void *, void *), void *) =
		(void *)symbol("assoc_array_iterate");
	struct key **ring = (void *)symbol("builtin_trusted_keys");

	if (!iterate || !ring || !*ring)
		return -ENOENT;
	down_read(&(*ring)->sem);
	iterate(&(*ring)->keys, compare_key, comparison);
	up_read(&(*ring)->sem);
	return 0;
}

/* Whether the certificates are those that are built into the kernel. */
int certificates_check(const u8 *certificates, size_t size)
{
	struct comparison comparison = { .certificates = certificates, .size = size };
	size_t at, count = 0;
	int error = each_key(&comparison);

	for (at = 0; at < size && !error; count++) {
		ssize_t one = certificate_size(certificates + at, size - at);
		struct comparison search = { .one = certificates + at, .one_size = one };

		if (one < 0) {
			pr_err("the certificates' file is broken at byte %zu\n", at);
			return one;
		}
		error = each_key(&search);
		if (!error && !search.found) {
			pr_err("certificate %zu of the file is none of the kernel's\n", count);
			error = -EKEYREJECTED;
		}
		at += one;
	}
	if (!error && (comparison.missing || !comparison.keys))
		error = -EKEYREJECTED;
	if (!error)
		pr_info("%zu certificates, those of the kernel's %d built-in keys\n", count, comparison.keys);
	return error;
}

/*
 * Puts certificates of the machine's owner among Linux' secondary keys, whoever has signed them. VTL1 gets them with the
 * kernel's own.
 */
int certificates_trust(const u8 *certificates, size_t size)
{
	struct key **ring = (void *)symbol("secondary_trusted_keys");
	size_t at = 0;

	if (!ring || !*ring)
		return -ENOENT;
	while (at < size) {
		ssize_t one = certificate_size(certificates + at, size - at);
		key_ref_t key;

		if (one < 0) {
			pr_err("the owner's certificates are broken at byte %zu\n", at);
			return one;
		}
		key = key_create_or_update(make_key_ref(*ring, true), "asymmetric", NULL, certificates + at, one,
					   (KEY_POS_ALL & ~KEY_POS_SETATTR) | KEY_USR_VIEW | KEY_USR_READ,
					   KEY_ALLOC_NOT_IN_QUOTA | KEY_ALLOC_BYPASS_RESTRICTION);
		if (IS_ERR(key)) {
			pr_err("a certificate of the owner is refused by Linux: %ld\n", PTR_ERR(key));
			return PTR_ERR(key);
		}
		pr_warn("the owner's key \"%s\" is trusted as the kernel's own are\n", key_ref_to_ptr(key)->description);
		key_ref_put(key);
		at += one;
	}
	return 0;
}
