/* SPDX-License-Identifier: MIT */
/*
 * The calls from VTL0 to VTL1, and what VTL0 writes into memory for them.
 * Written by `cargo xtask abi` from the table of the calls; see vsm.md.
 *
 * A call: RCX = 0, RDI = id, RSI, RDX, R8 = parameters; R8 = result, not negative or a negative errno.
 *
 * A driver with structures of its own includes them first and defines VSM_OWN_STRUCTURES: their layout is then
 * asserted, and nothing is defined twice.
 */
#ifndef VSM_ABI_H
#define VSM_ABI_H

#include <linux/types.h>

#ifdef __cplusplus
#define VSM_ASSERT(holds, words) static_assert(holds, words)
#else
#define VSM_ASSERT(holds, words) _Static_assert(holds, words)
#endif
#define VSM_ASSERT_FIELD(type, field, offset) \
	VSM_ASSERT(__builtin_offsetof(struct type, field) == (offset), #type "." #field)

/* What is raised with every change that VTL0 can see, and a number for all of it. */
#define VSM_ABI_VERSION 3
#define VSM_ABI_HASH 0xa2e0122caabad428ULL

/*
 * EnableAPsVtl: Enables VTL1 on the processors of a cpu mask, before Linux starts them.
 * When: before the end of boot. From: the boot processor.
 * RSI = present: pages of 4096 bytes from the start of guest-physical memory (a PFN), below 2^40, outside VTL1
 * Returns 0.
 * -EPERM: the boot has ended
 * -EPERM: the call comes from another than the boot processor
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: present: not a frame number: 2^40 or more
 * -EACCES: present: a frame of VTL1
 * -EINVAL: a processor that is not possible
 * -EFAULT: the mask is not in memory
 * -ENOMEM: VTL1 has no memory for a processor
 * -EIO: the hypervisor refuses
 */
#define VSM_CALL_ENABLE_APS_VTL 0x1ffe0

/*
 * BootAPs: Brings every online processor into VTL1 for the first time.
 * When: before the end of boot. From: the boot processor.
 * RSI = online: pages of 4096 bytes from the start of guest-physical memory (a PFN), below 2^40, outside VTL1
 * RDX = signal: as a frame number, or 0; a loader of the third generation may pass anything
 * Returns 0.
 * -EPERM: the boot has ended
 * -EPERM: the call comes from another than the boot processor
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: online: not a frame number: 2^40 or more
 * -EACCES: online: a frame of VTL1
 * -EFAULT: signal: not a frame number: 2^40 or more
 * -EACCES: signal: a frame of VTL1
 * -EINVAL: a processor that is not possible
 * -EFAULT: the mask or the boot-signal page is not in memory
 * -EACCES: the boot-signal page is not VTL0's own
 * -ENOMEM: VTL1 has no memory for a processor
 * -EIO: the hypervisor refuses
 * -ETIMEDOUT: a processor has not come to VTL1 in time
 */
#define VSM_CALL_BOOT_APS 0x1ffe1

/*
 * LockRegs: Locks the control registers and MSRs of the calling processor.
 * When: before the end of boot. From: any processor.
 * Returns 0.
 * -EPERM: the boot has ended
 * -EIO: VTL1 has failed and serves no calls
 * -EIO: the hypervisor refuses
 */
#define VSM_CALL_LOCK_REGS 0x1ffe2

/*
 * SignalEndOfBoot: Ends the boot phase, for good.
 * When: before the end of boot. From: any processor.
 * Returns 0.
 * -EPERM: the boot has ended
 * -EIO: VTL1 has failed and serves no calls
 * -EPERM: another has ended it first
 */
#define VSM_CALL_SIGNAL_END_OF_BOOT 0x1ffe3

/*
 * ProtectMemory: Gives ranges of VTL0 memory their permissions.
 * When: before the end of boot. From: any processor.
 * RSI, RDX = list: the physical address in bytes of a `struct heki_page`, a multiple of 4096, below 2^52, outside VTL1; then how many ranges all pages of the list have together, 1 to 2^20
 * Returns 0.
 * -EPERM: the boot has ended
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: list: an address that is none, a list page or a range that breaks a rule or is not memory
 * -EINVAL: list: a list page that is not page-aligned
 * -EACCES: list: a list page in a frame of VTL1
 * -ENOMEM: list: a list in more places than VTL1 has memory to remember
 * -EFAULT: a range that breaks a rule
 * -EACCES: a later page of the list in a frame of VTL1
 * -EINVAL: a range that is not page-aligned, or attributes that are no permission
 * -ENOMEM: VTL1 has no memory for the registry
 * -EIO: the hypervisor lacks memory or time for it
 */
#define VSM_CALL_PROTECT_MEMORY 0x1ffe4

/*
 * LoadKData: Hands over certificates and kernel data.
 * When: before the end of boot. From: any processor.
 * RSI, RDX = list: the physical address in bytes of a `struct heki_page`, a multiple of 4096, below 2^52, outside VTL1; then how many ranges all pages of the list have together, 1 to 2^20
 * Returns 0.
 * -EPERM: the boot has ended
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: list: an address that is none, a list page or a range that breaks a rule or is not memory
 * -EINVAL: list: a list page that is not page-aligned
 * -EACCES: list: a list page in a frame of VTL1
 * -ENOMEM: list: a list in more places than VTL1 has memory to remember
 * -EBUSY: kernel data have been taken already
 * -EFAULT: a range that is not memory, or bytes that are named twice
 * -EINVAL: an unknown kind, data that break a rule, a trampoline that is not made of pages
 * -EACCES: frames of VTL1, or a trampoline in frames of somebody else
 * -ENOMEM: VTL1 has no memory for the data
 * -ENOSPC: more certificates than VTL1 keeps
 * -EBADMSG: not any more: a revoked certificate counts whatever its encoding
 * -ENOPKG: not any more: a revoked certificate counts whatever its key
 * -EIO: the hypervisor refuses
 */
#define VSM_CALL_LOAD_KDATA 0x1ffe5

/*
 * ValidateModule: Verifies a kernel module and makes it executable.
 * When: at any time. From: any processor.
 * RSI, RDX = list: the physical address in bytes of a `struct heki_page`, a multiple of 4096, below 2^52, outside VTL1; then how many ranges all pages of the list have together, 1 to 2^20
 * R8 = flags: one bit each
 * Returns token.
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: list: an address that is none, a list page or a range that breaks a rule or is not memory
 * -EINVAL: list: a list page that is not page-aligned
 * -EACCES: list: a list page in a frame of VTL1
 * -ENOMEM: list: a list in more places than VTL1 has memory to remember
 * -EINVAL: flags: a flag that is not defined
 * -ENODATA: the module has no signature
 * -ENOPKG: the signature is of a kind that is not supported
 * -EBADMSG: the signature is no message
 * -ENOKEY: nobody whom VTL1 knows has signed it
 * -EKEYREJECTED: the signature does not hold, or its signer may not sign
 * -EINVAL: memory or a file that VTL1 cannot explain, a part that breaks a rule
 * -EFAULT: a part that is not memory
 * -EACCES: frames of somebody else
 * -ENOMEM: VTL1 has no memory for the module
 * -EIO: the hypervisor refuses
 */
#define VSM_CALL_VALIDATE_MODULE 0x1ffe6

/*
 * FreeModuleInit: Releases the init sections of a module.
 * When: at any time. From: any processor.
 * RSI = token: what ValidateModule returned: 1 to 0x7fffffff
 * Returns 0.
 * -EIO: VTL1 has failed and serves no calls
 * -EINVAL: token: a token outside 1..=0x7fffffff
 * -EINVAL: there is no such module
 * -EBUSY: the module has been initialised
 * -ENOMEM: VTL1 has no memory for the registry
 * -EIO: the hypervisor refuses
 */
#define VSM_CALL_FREE_MODULE_INIT 0x1ffe7

/*
 * UnloadModule: Releases all memory of a module.
 * When: at any time. From: any processor.
 * RSI = token: what ValidateModule returned: 1 to 0x7fffffff
 * Returns 0.
 * -EIO: VTL1 has failed and serves no calls
 * -EINVAL: token: a token outside 1..=0x7fffffff
 * -EINVAL: there is no such module
 * -EBUSY: another module uses it
 * -ENOMEM: VTL1 has no memory for the registry
 * -EIO: the hypervisor refuses
 */
#define VSM_CALL_UNLOAD_MODULE 0x1ffe8

/*
 * CopySecondaryKey: Adds a certificate to the secondary trusted keys.
 * When: at any time. From: any processor.
 * RSI, RDX = list: the physical address in bytes of a `struct heki_page`, a multiple of 4096, below 2^52, outside VTL1; then how many ranges all pages of the list have together, 1 to 2^20
 * Returns 0.
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: list: an address that is none, a list page or a range that breaks a rule or is not memory
 * -EINVAL: list: a list page that is not page-aligned
 * -EACCES: list: a list page in a frame of VTL1
 * -ENOMEM: list: a list in more places than VTL1 has memory to remember
 * -ENOKEY: no trusted certificate has the issuer's name
 * -EKEYREJECTED: a signature that does not hold, an issuer that may not certify it, what is critical or revoked
 * -EBADMSG: no certificate
 * -ENOPKG: a key that is not supported
 * -ENOSPC: there are 64 secondary keys
 * -EFAULT: a range that is not memory
 * -EINVAL: a list that breaks a rule
 * -EACCES: frames of VTL1
 * -ENOMEM: VTL1 has no memory for the key
 */
#define VSM_CALL_COPY_SECONDARY_KEY 0x1ffe9

/*
 * KexecValidate: Verifies a kexec image, or forgets one.
 * When: at any time. From: any processor.
 * RSI, RDX = list: as a HEKI list; 0 and 0 for none
 * R8 = flags: one bit each
 * Returns 0.
 * -EIO: VTL1 has failed and serves no calls
 * -EINVAL: list: a number of ranges without a list
 * -EFAULT: list: as for a HEKI list
 * -EACCES: list: as for a HEKI list
 * -ENOMEM: list: as for a HEKI list
 * -EINVAL: flags: a flag that is not defined
 * -EINVAL: an image that breaks a rule, or is not made of the signed kernel
 * -EACCES: a frame or a destination that is somebody else's
 * -ENODATA: the kernel has no signature
 * -ENOPKG: the signature is of a kind that is not supported
 * -EBADMSG: the file or the signature is broken
 * -ENOKEY: nobody whom VTL1 knows has signed it
 * -EKEYREJECTED: the signature does not hold, its signer may not sign, or signer or file is revoked
 * -EFAULT: a part that is not memory
 * -ENOMEM: VTL1 has no memory for the image
 * -EIO: the hypervisor refuses
 */
#define VSM_CALL_KEXEC_VALIDATE 0x1ffea

/*
 * PatchText: Writes a jump-label patch into protected text.
 * When: at any time. From: any processor.
 * RSI = request: bytes from the start of guest-physical memory, any alignment, below 2^52, outside VTL1
 * RDX = second: as a page address; 0 for none
 * Returns 0.
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: request: not a physical address: 2^52 or more
 * -EACCES: request: a frame of VTL1
 * -EFAULT: second: not a physical address: 2^52 or more
 * -EINVAL: second: not page-aligned
 * -EACCES: second: a frame of VTL1
 * -ENOENT: an address that VTL1 does not protect: VTL0 then writes itself
 * -EINVAL: no step of a recorded site, or one out of turn; a second page that is missing or not needed
 * -EACCES: memory that is nobody's text
 * -EFAULT: a request that is not in memory
 */
#define VSM_CALL_PATCH_TEXT 0x1ffeb

/*
 * AllocateRingbufferMemory: Gives VTL1 memory for its log.
 * When: before the end of boot. From: any processor.
 * RSI = memory: bytes from the start of guest-physical memory, a multiple of 4096, below 2^52, outside VTL1
 * RDX = size: 1 to 2^52 bytes
 * Returns 0.
 * -EPERM: the boot has ended
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: memory: not a physical address: 2^52 or more
 * -EINVAL: memory: not page-aligned
 * -EACCES: memory: a frame of VTL1
 * -EINVAL: size: no bytes, or more than 2^52
 * -EINVAL: a size that is not page-aligned, or more than 16 MiB
 * -EFAULT: memory that ends beyond physical addresses
 * -EACCES: a frame that belongs to somebody
 * -EBUSY: there is a ring already
 * -ENOMEM: VTL1 has no memory or no addresses for the ring
 * -EIO: the hypervisor refuses, as it does for memory that does not exist
 */
#define VSM_CALL_ALLOCATE_RINGBUFFER_MEMORY 0x1ffec

/*
 * SetPlatformRootKey: Hands over the platform's root key.
 * When: before the end of boot. From: any processor.
 * RSI = key: bytes from the start of guest-physical memory, any alignment, below 2^52, outside VTL1
 * Returns 0.
 * -EPERM: the boot has ended
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: key: not a physical address: 2^52 or more
 * -EACCES: key: a frame of VTL1
 * -EBUSY: there is a root key already
 * -EFAULT: bytes that are not memory
 * -EACCES: a key that ends in a frame of VTL1
 */
#define VSM_CALL_SET_PLATFORM_ROOT_KEY 0x1ffed

/*
 * OpteeMessage: Passes an OP-TEE message.
 * When: at any time. From: any processor.
 * RSI = registers: pages of 4096 bytes from the start of guest-physical memory (a PFN), below 2^40, outside VTL1
 * Returns 0.
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: registers: not a frame number: 2^40 or more
 * -EACCES: registers: a frame of VTL1
 * -EACCES: a page that VTL0 has given away, as a module's or the kernel's text; no answer is written
 * -EFAULT: a page that is no memory
 */
#define VSM_CALL_OPTEE_MESSAGE 0x1fff0

/*
 * Query: Says which version of this table VTL1 has, and which calls there are.
 * When: at any time. From: any processor.
 * RSI = answer: bytes from the start of guest-physical memory, a multiple of 4096, below 2^52, outside VTL1
 * Returns 0.
 * -EIO: VTL1 has failed and serves no calls
 * -EFAULT: answer: not a physical address: 2^52 or more
 * -EINVAL: answer: not page-aligned
 * -EACCES: answer: a frame of VTL1
 * -EACCES: a page that VTL0 has given away; nothing is written
 * -EFAULT: a page that is no memory
 */
#define VSM_CALL_QUERY 0x1fff1

/* heki_range.attributes of ProtectMemory: bits */
#define VSM_MEM_ATTR_READ 1 /* required with the others */
#define VSM_MEM_ATTR_WRITE 2 /* VTL0 may write */
#define VSM_MEM_ATTR_EXEC 4 /* VTL0 may execute */
#define VSM_MEM_ATTR_IMMUTABLE 8 /* a wish, not a permission */

/* heki_range.attributes of LoadKData: one of */
#define VSM_KDATA_SYSTEM_CERTS 0 /* DER certificates in a row; required */
#define VSM_KDATA_REVOCATION_CERTS 1 /* the same, of what must not be trusted */
#define VSM_KDATA_BLACKLIST_HASHES 2 /* records of 133 bytes: "tbs:" or "bin:" and a hash in hexadecimal */
#define VSM_KDATA_KERNEL_INFO 3 /* struct heki_kinfo */
#define VSM_KDATA_KERNEL_DATA 4 /* the kernel's read-only data */
#define VSM_KDATA_PATCH_INFO 5 /* struct heki_patch_info and its sites */
#define VSM_KDATA_KEXEC_TRAMPOLINE 6 /* whole pages; read-only from then on */

/* heki_range.attributes of ValidateModule: one of (Linux enum mod_mem_type, then the file, its sites and its thunks) */
#define VSM_MOD_TEXT 0 /* readable and executable */
#define VSM_MOD_DATA 1 /* readable and writable */
#define VSM_MOD_RODATA 2 /* readable */
#define VSM_MOD_RO_AFTER_INIT 3 /* writable until FreeModuleInit */
#define VSM_MOD_INIT_TEXT 4 /* executable until FreeModuleInit */
#define VSM_MOD_INIT_DATA 5 /* readable and writable */
#define VSM_MOD_INIT_RODATA 6 /* readable until FreeModuleInit */
#define VSM_MOD_ELF 7 /* the file with its signature */
#define VSM_MOD_PATCH 8 /* struct heki_patch_info and its sites */
#define VSM_MOD_THUNKS 9 /* the pages of thunks against ITS that Linux allocated for the module, each with its address */

/* heki_range.attributes of KexecValidate: one of */
#define VSM_KEXEC_IMAGE 0 /* struct kimage, in a page of its own */
#define VSM_KEXEC_KERNEL_BLOB 1 /* the kernel's file with its signature */
#define VSM_KEXEC_PAGES 2 /* the pages that it is loaded in, and those of the page list */

/* flags of ValidateModule: bits (Linux MODULE_INIT_*) */
#define VSM_MODULE_INIT_IGNORE_MODVERSIONS 1 /* changes nothing for VTL1 */
#define VSM_MODULE_INIT_IGNORE_VERMAGIC 2 /* changes nothing for VTL1 */
#define VSM_MODULE_INIT_COMPRESSED_FILE 4 /* changes nothing for VTL1 */

/* heki_patch_info.type */
#define VSM_HEKI_JUMP_LABEL 0 /* jumps that may become NOPs and back */
#define VSM_HEKI_STATIC_CALL 1 /* the kernel's own static calls and their trampolines: the call or jump that was compiled, in LoadKData only */

#ifndef VSM_OWN_STRUCTURES

/* A range of VTL0 memory. First and last may lie within a page. */
struct heki_range {
	__u64 va; /* virtual address of the first byte */
	__u64 pa; /* physical address of the first byte */
	__u64 epa; /* physical address after the last byte */
	__u64 attributes; /* what it is; depends on the call */
};

/* A page of a list, page-aligned. */
struct heki_page {
	__u64 next; /* virtual address of the next page; not read */
	__u64 next_pa; /* physical address of the next page, 0 in the last */
	__u64 nranges; /* how many ranges are used, at least 1 */
	struct heki_range ranges[127]; /* the ranges */
	__u64 pad; /* not read */
};

/* Bytes to write into text (PatchText), or a site: the jump of a jump label, the call or jump of a static call. */
struct heki_patch {
	__u64 pa[2]; /* physical address of the first byte; of the page it goes on in, or 0 */
	__u8 size; /* how many bytes: 1 to 5; a site's 2 or 5 */
	__u8 code[5]; /* the bytes */
	__u8 pad[2]; /* not read */
};

/* The head of a record of sites of one type; `patch_idx` of `struct heki_patch` follow it. */
struct heki_patch_info {
	__u32 type; /* HEKI_JUMP_LABEL or HEKI_STATIC_CALL */
	__u32 pad; /* not read */
	__u64 list[2]; /* not read */
	__u64 mod; /* not read */
	__u64 patch_idx; /* how many sites follow */
	__u64 max_patch_count; /* for how many there is room, at least as many */
};

/* What every kernel's information begins with; the rest depends on its configuration. */
struct heki_kinfo {
	__u64 ksymtab_start; /* virtual address of __start___ksymtab */
	__u64 ksymtab_end; /* virtual address of __stop___ksymtab */
	__u64 ksymtab_gpl_start; /* virtual address of __start___ksymtab_gpl */
	__u64 ksymtab_gpl_end; /* virtual address of __stop___ksymtab_gpl */
};

#endif

/* What an OP-TEE message is, at the start of its page: the registers of a secure monitor call, and of its answer. */
struct vsm_optee_registers {
	__u64 args[9]; /* a0 to a8; the answer from a0 on */
};

/* What Query writes. Bit n of a mask is for the call with id base + n. */
struct vsm_query {
	__u32 size; /* bytes of this structure */
	__u32 version; /* VSM_ABI_VERSION of VTL1 */
	__u64 hash; /* VSM_ABI_HASH of VTL1 */
	__u64 base; /* id of the first call */
	__u64 supported; /* calls that VTL1 implements */
	__u64 boot; /* calls that may be made before the end of boot */
	__u64 runtime; /* calls that may be made after it */
	__u32 phase; /* 0 before the end of boot, 1 after it */
	__u32 pad; /* 0 */
};

VSM_ASSERT(sizeof(struct heki_range) == 32, "heki_range");
VSM_ASSERT_FIELD(heki_range, va, 0);
VSM_ASSERT_FIELD(heki_range, pa, 8);
VSM_ASSERT_FIELD(heki_range, epa, 16);
VSM_ASSERT_FIELD(heki_range, attributes, 24);
VSM_ASSERT(sizeof(struct heki_page) == 4096, "heki_page");
VSM_ASSERT_FIELD(heki_page, next, 0);
VSM_ASSERT_FIELD(heki_page, next_pa, 8);
VSM_ASSERT_FIELD(heki_page, nranges, 16);
VSM_ASSERT_FIELD(heki_page, ranges, 24);
VSM_ASSERT(sizeof(struct heki_patch) == 24, "heki_patch");
VSM_ASSERT_FIELD(heki_patch, pa, 0);
VSM_ASSERT_FIELD(heki_patch, size, 16);
VSM_ASSERT_FIELD(heki_patch, code, 17);
VSM_ASSERT(sizeof(struct heki_patch_info) == 48, "heki_patch_info");
VSM_ASSERT_FIELD(heki_patch_info, type, 0);
VSM_ASSERT_FIELD(heki_patch_info, patch_idx, 32);
VSM_ASSERT_FIELD(heki_patch_info, max_patch_count, 40);
VSM_ASSERT(sizeof(struct heki_kinfo) >= 32, "heki_kinfo");
VSM_ASSERT_FIELD(heki_kinfo, ksymtab_start, 0);
VSM_ASSERT_FIELD(heki_kinfo, ksymtab_end, 8);
VSM_ASSERT_FIELD(heki_kinfo, ksymtab_gpl_start, 16);
VSM_ASSERT_FIELD(heki_kinfo, ksymtab_gpl_end, 24);
VSM_ASSERT(sizeof(struct vsm_optee_registers) >= 72, "vsm_optee_registers");
VSM_ASSERT_FIELD(vsm_optee_registers, args, 0);
VSM_ASSERT(sizeof(struct vsm_query) >= 56, "vsm_query");
VSM_ASSERT_FIELD(vsm_query, size, 0);
VSM_ASSERT_FIELD(vsm_query, version, 4);
VSM_ASSERT_FIELD(vsm_query, hash, 8);
VSM_ASSERT_FIELD(vsm_query, base, 16);
VSM_ASSERT_FIELD(vsm_query, supported, 24);
VSM_ASSERT_FIELD(vsm_query, boot, 32);
VSM_ASSERT_FIELD(vsm_query, runtime, 40);
VSM_ASSERT_FIELD(vsm_query, phase, 48);
VSM_ASSERT_FIELD(vsm_query, pad, 52);

#endif
