// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Attacks by VTL0's own kernel, to see them stopped. Built with ATTACKS=1 only, and for nothing but a simulator.
 *
 * A name written to debugfs' vtl0/attack runs one; its line in the log is "attack NAME: VERDICT: TEXT", where the verdict is
 * "stopped", "open" (VTL1 by design does not stop it) or "NOT STOPPED". VTL1 stops an access by a general-protection fault at
 * the instruction; all of these can take one.
 */
#include "vtl0.h"

#include <linux/debugfs.h>
#include <linux/kdebug.h>
#include <linux/kexec.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/stop_machine.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <asm/asm.h>
#include <asm/desc.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>

#define INT3 0xcc
#define RET 0xc3
#define JMP32 0xe9
/* mov $42, %eax; ret */
static const u8 answer_code[] = { 0xb8, 42, 0, 0, 0, RET };
#define ANSWER 42
#define FAULTED (-1)

static const struct region *region;
static bool flip_memory, flip_file;

static void verdict(const char *name, bool stopped, const char *by)
{
	if (stopped)
		pr_info("attack %s: stopped: %s\n", name, by);
	else
		pr_err("attack %s: NOT STOPPED\n", name);
}

/* Runs `instruction`, whose operand is %1; 1 when it faulted. */
#define FAULTS(instruction, operand) ({ \
	int faulted = 0; \
	asm volatile("1: " instruction "\n\tjmp 3f\n2: movl $1, %0\n3:" \
		     _ASM_EXTABLE(1b, 2b) : "+r"(faulted) : "r"(operand) : "memory"); \
	faulted; \
})

static int write_faults(void *at, u8 value)
{
	int faulted = 0;

	asm volatile("1: movb %2, (%1)\n\tjmp 3f\n2: movl $1, %0\n3:"
		     _ASM_EXTABLE(1b, 2b) : "+r"(faulted) : "r"(at), "q"(value) : "memory");
	return faulted;
}

/* What is called, if it faults on its first instruction, comes back with FAULTED. */
static void *called;

static int on_fault(struct notifier_block *block, unsigned long reason, void *data)
{
	struct pt_regs *registers = ((struct die_args *)data)->regs;

	if (reason != DIE_GPF || !called || registers->ip != (unsigned long)called)
		return NOTIFY_DONE;
	registers->ip = *(u64 *)registers->sp;
	registers->sp += sizeof(u64);
	registers->ax = FAULTED;
	return NOTIFY_STOP;
}

static struct notifier_block fault_block = { .notifier_call = on_fault, .priority = INT_MAX };

static noinline int call_at(void *at)
{
	int result;

	called = at;
	asm volatile(ANNOTATE_RETPOLINE_SAFE "call *%1"
		     : "=a"(result) : "b"(at), "0"(0) : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
	called = NULL;
	return result;
}

static int set_memory(const char *how, const void *at)
{
	int (*set)(unsigned long, int) = (void *)symbol(how);

	return set ? set((unsigned long)at & PAGE_MASK, 1) : -ENOENT;
}

static struct page *page_of(const void *at)
{
	return pfn_to_page(physical(at) >> PAGE_SHIFT);
}

/* A writable alias of the page at `at`. The caller unmaps it. */
static void *alias_of(const void *at)
{
	struct page *page = page_of(at);
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	return alias ? alias + offset_in_page(at) : NULL;
}

static void unmap(void *alias)
{
	vunmap((void *)((unsigned long)alias & PAGE_MASK));
}

static void text_alias(const char *name)
{
	u8 *text = (void *)symbol("do_exit"), *alias = alias_of(text);

	if (!alias)
		return;
	verdict(name, write_faults(alias, *text), "a write through another mapping faults");
	unmap(alias);
}

static void vtl1_memory(const char *name)
{
	void *at = memremap(region->start + PMD_SIZE, PAGE_SIZE, MEMREMAP_WB);
	u64 value = 0;

	if (!at)
		return;
	if (!strcmp(name, "vtl1-read")) {
		verdict(name, copy_from_kernel_nofault(&value, at, sizeof(value)), "the read faults");
	} else if (!strcmp(name, "vtl1-write")) {
		verdict(name, write_faults(at, 0), "the write faults");
	} else {
		set_memory("set_memory_x", at);
		verdict(name, call_at(at) == FAULTED, "the instruction fetch faults");
		set_memory("set_memory_nx", at);
	}
	memunmap(at);
}

static void cr0(const char *name)
{
	unsigned long value = read_cr0();

	verdict(name, FAULTS("mov %1, %%cr0", value & ~X86_CR0_WP), "the write of CR0 faults");
	if (FAULTS("mov %1, %%cr0", value))
		pr_err("CR0 cannot be written at all\n");
}

static void cr4(const char *name)
{
	unsigned long value = __read_cr4();

	if (!(value & X86_CR4_SMEP)) {
		pr_info("attack %s: open: this processor has no SMEP\n", name);
		return;
	}
	verdict(name, FAULTS("mov %1, %%cr4", value & ~X86_CR4_SMEP), "the write of CR4 faults");
	FAULTS("mov %1, %%cr4", value);
}

/* Writes a register with another value, and puts it back if that was possible. */
static void msr(const char *name, u32 number, u64 flip)
{
	u64 value;
	int error;

	rdmsrl(number, value);
	error = wrmsrl_safe(number, value ^ flip);
	if (!error)
		wrmsrl_safe(number, value);
	verdict(name, error, "WRMSR faults");
}

static void registers(const char *name)
{
	struct desc_ptr table;

	if (!strcmp(name, "cr0-wp"))
		cr0(name);
	else if (!strcmp(name, "cr4-smep"))
		cr4(name);
	else if (!strcmp(name, "efer-nxe"))
		msr(name, MSR_EFER, EFER_NX);
	else if (!strcmp(name, "lstar"))
		msr(name, MSR_LSTAR, 0x1000);
	else {
		store_idt(&table);
		/* The same table: if it is loaded nothing is lost. */
		verdict(name, FAULTS("lidt (%1)", &table), "LIDT faults");
	}
}

static void data_execute(const char *name)
{
	void *page = (void *)get_zeroed_page(GFP_KERNEL);

	if (!page)
		return;
	memcpy(page, answer_code, sizeof(answer_code));
	set_memory("set_memory_x", page);
	verdict(name, call_at(page) == FAULTED, "the instruction fetch faults, though Linux' page tables allow it");
	set_memory("set_memory_nx", page);
	free_page((unsigned long)page);
}

static u8 *text_of(const struct module *module)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	return module->mem[MOD_TEXT].size ? module->mem[MOD_TEXT].base : NULL;
#else
	return module->core_layout.text_size ? module->core_layout.base : NULL;
#endif
}

/* A module's text, when its frames are taken for something else and VTL1 has not been told. */
static void freed_frame(const char *name)
{
	struct list_head *modules = (void *)symbol("modules");
	struct module *module;
	u8 *text = NULL, *page;

	list_for_each_entry(module, modules, list)
		if (module != THIS_MODULE && module->state == MODULE_STATE_LIVE)
			text = text_of(module) ?: text;
	if (!text) {
		pr_err("attack %s: there is no module\n", name);
		return;
	}
	page = page_address(page_of(text));
	/* As vfree() does it. */
	set_memory("set_memory_rw", page);
	verdict(name, write_faults(page, *page), "a write to what was a module's text faults");
	set_memory("set_memory_ro", page);
}

struct poke {
	u8 *at;
	s64 breakpoint, tail, head;
};

static s64 ask(struct heki_patch *patch, u8 *at, const void *code, size_t size)
{
	*patch = (struct heki_patch){ .pa = { physical(at) }, .size = size };
	memcpy(patch->code, code, size);
	return vtl_call(VSM_CALL_PATCH_TEXT, physical(patch), 0, 0);
}

static int poke_here(void *data)
{
	/* On a line of its own, so that it crosses no page. */
	static struct heki_patch patch __aligned(32);
	struct poke *poke = data;
	const u8 breakpoint = INT3, before = *poke->at;
	s32 other = 0x1000;

	poke->breakpoint = ask(&patch, poke->at, &breakpoint, 1);
	if (poke->breakpoint)
		return 0;
	poke->tail = ask(&patch, poke->at + 1, &other, sizeof(other));
	poke->head = ask(&patch, poke->at, &before, 1);
	return 0;
}

/* A jump label of the kernel's, of five bytes and in one page. */
static u8 *label_site(void)
{
	struct jump_entry *entry = (void *)symbol("__start___jump_table"), *end = (void *)symbol("__stop___jump_table");

	for (; entry < end; entry++) {
		u8 *at = (void *)jump_entry_code(entry);

		if (!jump_entry_is_init(entry) && offset_in_page(at) < PAGE_SIZE - 5 && (*at == 0x0f || *at == JMP32))
			return at;
	}
	return NULL;
}

/* A jump label's jump, to another place than its own. */
static void jump_label(const char *name)
{
	struct mutex *text_mutex = (void *)symbol("text_mutex");
	struct poke poke = { .at = label_site() };

	if (!poke.at || !text_mutex)
		return;
	mutex_lock(text_mutex);
	stop_machine(poke_here, &poke, NULL);
	mutex_unlock(text_mutex);
	if (poke.breakpoint || poke.head)
		pr_err("attack %s: the site was not to be written: %lld, %lld\n", name, poke.breakpoint, poke.head);
	verdict(name, poke.tail == -EINVAL, "PatchText answers -EINVAL");
}

/* The same by Linux' own means: the driver's wrapper asks for each step, and puts the site back. */
static void jump_label_poke(const char *name)
{
	void (*poke)(void *, const void *, size_t, const void *) = (void *)symbol("text_poke_bp");
	struct mutex *text_mutex = (void *)symbol("text_mutex");
	u8 *at = label_site(), before[5], jump[5] = { JMP32, 0, 0x10 };

	if (!poke || !text_mutex || !at)
		return;
	memcpy(before, at, sizeof(before));
	mutex_lock(text_mutex);
	poke(at, jump, sizeof(jump), NULL);
	mutex_unlock(text_mutex);
	verdict(name, !memcmp(before, at, sizeof(before)), "PatchText refuses the target, and the site holds what it held");
}

/* A crash image with a segment where the kernel's text is. */
static void kexec_over_text(const char *name)
{
	struct kimage *image = (void *)get_zeroed_page(GFP_KERNEL);
	void *file = (void *)get_zeroed_page(GFP_KERNEL);
	u64 text = physical((void *)symbol("_text"));
	struct list list = {};
	s64 result;

	if (!image || !file)
		return;
	image->nr_segments = 1;
	image->start = text;
	image->segment[0].mem = text;
	image->segment[0].memsz = PAGE_SIZE;
	image->segment[0].bufsz = PAGE_SIZE;
	image->type = KEXEC_TYPE_CRASH;
	list_add_bytes(&list, image, PAGE_SIZE, VSM_KEXEC_IMAGE);
	list_add_bytes(&list, file, PAGE_SIZE, VSM_KEXEC_KERNEL_BLOB);
	result = list_call(&list, VSM_CALL_KEXEC_VALIDATE, 1);
	verdict(name, result == -EACCES, "KexecValidate answers -EACCES");
	if (result != -EACCES)
		pr_err("attack %s: %lld\n", name, result);
	free_page((unsigned long)image);
	free_page((unsigned long)file);
}

/* From now on each module is changed before ValidateModule, until the name comes again. */
static void change_modules(const char *name)
{
	bool *which = strcmp(name, "module-file") ? &flip_memory : &flip_file;

	*which = !*which;
	pr_info("attack %s: %s\n", name, *which ? "armed" : "over");
}

/*
 * What a kernel could do to a module: turn a bit of its text in memory, or, with Linux' own check of the signature out of the
 * way, of its file.
 */
void attack_module(struct module *module, u8 *file, size_t size)
{
	u8 *text = text_of(module), *alias;

	if (flip_file)
		file[size / 2] ^= 1;
	if (!flip_memory || !text)
		return;
	alias = alias_of(text);
	if (alias) {
		*alias ^= 1;
		unmap(alias);
	}
}

/* Accepted text at another address: VTL1 guards frames, and page tables are VTL0's. */
static void text_elsewhere(const char *name)
{
	u8 *text = (void *)((symbol("do_exit") + PAGE_SIZE) & PAGE_MASK), *alias = alias_of(text);
	int i;

	for (i = 0; alias && i < PAGE_SIZE && alias[i] != RET; i++)
		;
	if (!alias || i == PAGE_SIZE)
		return;
	set_memory("set_memory_ro", alias);
	set_memory("set_memory_x", alias);
	if (call_at(alias + i) == FAULTED)
		pr_info("attack %s: stopped: the instruction fetch faults\n", name);
	else
		pr_info("attack %s: open: an instruction of the kernel's text ran at another address\n", name);
	set_memory("set_memory_nx", alias);
	set_memory("set_memory_rw", alias);
	unmap(alias);
}

static int meant(void) { return 1; }
static int not_meant(void) { return 2; }

static int (*volatile pointer)(void) = meant;

/* A function pointer in writable data. */
static void function_pointer(const char *name)
{
	pointer = not_meant;
	if (pointer() == 2)
		pr_info("attack %s: open: a pointer in writable data was turned to another function\n", name);
	pointer = meant;
}

static const struct {
	const char *name;
	void (*run)(const char *name);
} attacks[] = {
	{ "text-alias", text_alias },
	{ "vtl1-read", vtl1_memory },
	{ "vtl1-write", vtl1_memory },
	{ "vtl1-execute", vtl1_memory },
	{ "cr0-wp", registers },
	{ "cr4-smep", registers },
	{ "efer-nxe", registers },
	{ "lstar", registers },
	{ "idt", registers },
	{ "data-execute", data_execute },
	{ "freed-frame", freed_frame },
	{ "jump-label", jump_label },
	{ "jump-label-poke", jump_label_poke },
	{ "kexec-over-text", kexec_over_text },
	{ "module-memory", change_modules },
	{ "module-file", change_modules },
	{ "text-elsewhere", text_elsewhere },
	{ "function-pointer", function_pointer },
};

static ssize_t write_attack(struct file *file, const char __user *text, size_t size, loff_t *offset)
{
	char name[32] = {};
	int i;

	if (size >= sizeof(name) || copy_from_user(name, text, size))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(attacks); i++)
		if (!strcmp(strim(name), attacks[i].name)) {
			attacks[i].run(attacks[i].name);
			return size;
		}
	return -ENOENT;
}

static const struct file_operations attack_fops = { .owner = THIS_MODULE, .write = write_attack };

void attack_debugfs(struct dentry *directory, const struct region *vtl1)
{
	region = vtl1;
	if (register_die_notifier(&fault_block))
		pr_err("faults cannot be watched: no attack can be tried\n");
	else
		debugfs_create_file("attack", 0200, directory, NULL, &attack_fops);
}
