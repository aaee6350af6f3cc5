// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * KexecValidate: kernels that Linux is to start by kexec.
 *
 * kexec_file_load() first makes VTL1 forget the image of its kind, then loads, then shows VTL1 what it has loaded; an image
 * that VTL1 refuses is unloaded again. The kernel's file is copied on its way from the file to the loader, which frees it.
 * kexec_load() has no signed file: it may unload only.
 */
#include "vtl0.h"

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/kexec.h>
#include <linux/kernel_read_file.h>
#include <linux/mutex.h>
#include <linux/pfn.h>
#include <linux/slab.h>
#include <linux/syscalls.h>
#include <linux/vmalloc.h>
#include <asm/ptrace.h>

/* Bits of an entry of the page list that are no address. */
#define ENTRY_FLAGS (~PAGE_MASK)

static DEFINE_MUTEX(kexec_lock);
static struct task_struct *loader;
static void *file;
static size_t file_bytes;
/* What VTL1 has frozen as the description of each image; see describe(). */
static struct page *descriptions[2];

/* Instead of kernel_read_file(): keeps the kernel of a kexec_file_load() that is going on. */
ssize_t wrap_kernel_read_file(struct file *from, loff_t offset, void **buffer, size_t size, size_t *file_size, int id)
{
	ssize_t result = real_kernel_read_file(from, offset, buffer, size, file_size, id);

	if (result > 0 && id == READING_KEXEC_IMAGE && READ_ONCE(loader) == current && !file) {
		file = vmalloc(result);
		if (file) {
			memcpy(file, *buffer, result);
			file_bytes = result;
		}
	}
	return result;
}

static void add_page(struct list *list, u64 pa)
{
	list_add_range(list, (u64)__va(pa), pa, PAGE_SIZE, VSM_KEXEC_PAGES);
}

/* Control pages: the code that copies, the page that it exchanges pages through, page tables. */
static void add_control_pages(struct list *list, const struct kimage *image)
{
	struct page *page;
	unsigned long i;

	list_for_each_entry(page, &image->control_pages, lru)
		for (i = 0; i < 1UL << page_private(page); i++)
			add_page(list, page_to_phys(page) + i * PAGE_SIZE);
}

/* The page list and all that it names. */
static void add_page_list(struct list *list, const struct kimage *image)
{
	const kimage_entry_t *at = &image->head;

	while (*at && !(*at & IND_DONE) && !list->error) {
		if (*at & (IND_SOURCE | IND_INDIRECTION))
			add_page(list, *at & PAGE_MASK);
		at = *at & IND_INDIRECTION ? phys_to_virt(*at & PAGE_MASK) : at + 1;
	}
}

/* The description in a page of its own: Linux' lies among other objects, whose frame must stay writable. */
static int describe(struct list *list, const struct kimage *image, bool crash)
{
	struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);

	BUILD_BUG_ON(sizeof(*image) > PAGE_SIZE);
	if (!page)
		return -ENOMEM;
	memcpy(page_address(page), image, sizeof(*image));
	list_add_range(list, (u64)page_address(page), page_to_phys(page), PAGE_SIZE, VSM_KEXEC_IMAGE);
	descriptions[crash] = page;
	return 0;
}

static int forget(bool crash)
{
	s64 result = vtl_call(VSM_CALL_KEXEC_VALIDATE, 0, 0, crash);

	if (result) {
		pr_err("KexecValidate does not forget the %s image: %lld\n", crash ? "crash" : "kexec", result);
		return result;
	}
	if (descriptions[crash])
		__free_page(descriptions[crash]);
	descriptions[crash] = NULL;
	return 0;
}

static int validate(bool crash)
{
	struct kimage **slot = (void *)symbol(crash ? "kexec_crash_image" : "kexec_image");
	struct list list = {};
	u64 ranges;
	s64 result;

	if (!slot || !*slot || !file) {
		pr_err("the kexec image or its file is not to be found\n");
		return -ENOENT;
	}
	result = describe(&list, *slot, crash);
	if (result)
		return result;
	list_add_bytes(&list, file, file_bytes, VSM_KEXEC_KERNEL_BLOB);
	if (!crash)
		add_page_list(&list, *slot);
	add_control_pages(&list, *slot);
	ranges = list.total;
	result = list_call(&list, VSM_CALL_KEXEC_VALIDATE, crash);
	if (!result) {
		pr_info("the %s image is valid: %llu ranges\n", crash ? "crash" : "kexec", ranges);
		return 0;
	}
	pr_err("the %s image is refused: KexecValidate: %lld\n", crash ? "crash" : "kexec", result);
	__free_page(descriptions[crash]);
	descriptions[crash] = NULL;
	return result;
}

static long unload(unsigned long flags)
{
	struct pt_regs registers = { .di = -1, .si = -1, .r8 = flags | KEXEC_FILE_UNLOAD };

	return real_kexec_file_load(&registers);
}

/* Instead of the system call: its arguments are file, initrd, length and address of the command line, flags. */
long wrap_kexec_file_load(const struct pt_regs *registers)
{
	unsigned long flags = registers->r8;
	bool crash = flags & KEXEC_FILE_ON_CRASH;
	long result;

	if (!vtl1_protects || !capable(CAP_SYS_BOOT)) {
		result = real_kexec_file_load(registers);
		barrier_data(&result);
		return result;
	}
	if (mutex_lock_interruptible(&kexec_lock))
		return -EINTR;
	result = forget(crash);
	if (!result) {
		WRITE_ONCE(loader, current);
		result = real_kexec_file_load(registers);
		WRITE_ONCE(loader, NULL);
		if (!result && !(flags & KEXEC_FILE_UNLOAD)) {
			result = validate(crash);
			if (result)
				unload(flags & KEXEC_FILE_ON_CRASH);
		}
	}
	vfree(file);
	file = NULL;
	mutex_unlock(&kexec_lock);
	return result;
}

/* Instead of the system call: its arguments are entry, number of segments, segments, flags. */
long wrap_kexec_load(const struct pt_regs *registers)
{
	long result = 0;

	if (vtl1_protects && capable(CAP_SYS_BOOT)) {
		if (registers->si) {
			pr_err("kexec_load is refused: it has no signed file; there is kexec_file_load\n");
			return -EPERM;
		}
		mutex_lock(&kexec_lock);
		result = forget(registers->r10 & KEXEC_ON_CRASH);
		mutex_unlock(&kexec_lock);
	}
	if (!result)
		result = real_kexec_load(registers);
	barrier_data(&result);
	return result;
}
