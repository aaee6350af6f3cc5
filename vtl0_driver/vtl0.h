/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the files of the VTL0 driver share. The calls, their numbers and layouts are those of abi/vsm.h.
 *
 * Nothing here is trusted by VTL1: the driver is VTL0's kernel, and VTL1 checks all that it is told.
 */
#ifndef VTL0_H
#define VTL0_H

#define pr_fmt(fmt) "vtl0: " fmt

#include <linux/cpumask.h>
#include <linux/errno.h>
#include <linux/io.h>
#include <linux/jump_label.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/types.h>
#include <linux/version.h>
#include <vsm.h>

struct dentry;
struct module;
struct seq_file;

/* call.c: VTL calls and hypercalls. */
struct vtl_arguments {
	u64 id, first, second, third;
};

int call_prepare(void);
s64 vtl_call(u64 id, u64 first, u64 second, u64 third);
s64 vtl_call_on(unsigned int cpu, u64 id, u64 first, u64 second, u64 third);
int get_register(u32 name, u64 *value);
u16 hypercall(u64 control, const void *input, size_t size);
void call_debugfs(struct dentry *directory);

/* loader.c: the image in VTL1's region, as the loaders of LVBS kernels leave it. */
struct region {
	u64 start, size;
};

/* A segment register, a table register and a processor's first state, as HvCallEnableVpVtl takes them (TLFS). */
struct vp_segment {
	u64 base;
	u32 limit;
	u16 selector, attributes;
};

struct vp_table {
	u16 pad[3], limit;
	u64 base;
};

struct vp_context {
	u64 rip, rsp, rflags;
	struct vp_segment cs, ds, es, fs, gs, ss, tr, ldtr;
	struct vp_table idtr, gdtr;
	u64 efer, cr0, cr3, cr4, pat;
};

struct vtl1_start {
	struct vp_context context;
	struct vtl_arguments arguments;
};

int load_image(const struct region *region, bool second_generation, const void *image, size_t size,
	       struct vtl1_start *start);

/*
 * start.c: VTL1 on all processors.
 *
 * Linux before 6.9 puts kexec images into the first memory that it has, which is where the code lies that processors start
 * with. There that code is not executable once all are there, and none goes offline.
 */
#define PROCESSORS_COME_BACK (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0))
int start_check(void);
int start_vtl1(const struct vtl1_start *start, bool second_generation);
int start_watch_processors(void);
void start_unwatch_processors(void);
int lock_processors(void);

/* list.c: lists of ranges in pages. */
struct list {
	struct heki_page *first, *last;
	u64 total;
	int error;
};

u64 physical(const void *at);
void list_add_range(struct list *list, u64 va, u64 pa, u64 size, u64 attributes);
void list_add_bytes(struct list *list, const void *from, u64 size, u64 attributes);
void list_free(struct list *list);
s64 list_call(struct list *list, u64 id, u64 third);

/* symbols.c: what the kernel does not export. */
int symbols_find(void);
unsigned long symbol(const char *name);
unsigned long symbol_or_none(const char *name);

/* hooks.c: functions of the kernel that go through the driver. */
struct hook;
int hooks_install(void);
void hooks_remove(void);

/* kdata.c, certificates.c, protect.c */
int load_kernel_data(const void *certificates, size_t size, const void *more, size_t more_size);
int certificates_check(const u8 *certificates, size_t size);
int certificates_trust(const u8 *certificates, size_t size);
ssize_t certificate_size(const u8 *at, size_t left);
int protect_memory(const struct region *region);

/* modules.c */
int modules_watch(void);
void modules_unwatch(void);
void modules_pin(void);
int wrap_load_module(void *info, const char __user *arguments, int flags);

/* sites.c: jump labels as patch sites. */
struct heki_patch_info *sites_of(const struct jump_entry *from, const struct jump_entry *to, bool kernel, size_t *size);

/* patch.c */
typedef void text_poke_f(void *destination, const void *source, size_t size);
extern bool patch_lacks_locks;
int patch_prepare(void);
void *wrap_text_poke(text_poke_f *function, void *at, const void *source, size_t size);
void patch_show(struct seq_file *file);

/* kexec.c */
struct pt_regs;
struct file;
long wrap_kexec_file_load(const struct pt_regs *registers);
long wrap_kexec_load(const struct pt_regs *registers);
ssize_t wrap_kernel_read_file(struct file *file, loff_t offset, void **buffer, size_t size, size_t *file_size,
			      int id);

/* keys.c */
int keys_prepare(void);
void *wrap_key_create_or_update(void *keyring, const char *type, const char *description, const void *payload,
				size_t size, u32 permissions, unsigned long flags);

/* ring.c */
int ring_give(void);
void ring_debugfs(struct dentry *directory);

/* main.c: VTL1's answers are asked for from here on. */
extern bool vtl1_protects;
int check_version(void);

#ifdef VTL0_ATTACKS
void attack_debugfs(struct dentry *directory, const struct region *region);
void attack_module(struct module *module, u8 *file, size_t size);
#else
static inline void attack_debugfs(struct dentry *directory, const struct region *region) { }
static inline void attack_module(struct module *module, u8 *file, size_t size) { }
#endif

/* hooks.c: what the wrappers go on with. */
extern int (*real_load_module)(void *, const char __user *, int);
extern void *(*real_text_poke)(text_poke_f *, void *, const void *, size_t);
extern long (*real_kexec_file_load)(const struct pt_regs *);
extern long (*real_kexec_load)(const struct pt_regs *);
extern ssize_t (*real_kernel_read_file)(struct file *, loff_t, void **, size_t, size_t *, int);
extern void *(*real_key_create_or_update)(void *, const char *, const char *, const void *, size_t, u32, unsigned long);

#endif
