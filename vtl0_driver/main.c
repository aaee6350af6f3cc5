// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The VTL0 driver for stock kernels: starts VTL1, hands over memory, modules and patches of this Linux, and ends the boot.
 *
 * Load it first of all, from the initramfs: what ran before is taken as it is. Whatever fails is one line in the log, and
 * Linux goes on; once memory is protected the module stays for good. Nothing in it is init text: the frames of that would be
 * executable in ProtectMemory, and freed afterwards. docs/src/driver.md says what it cannot do.
 */
#include "vtl0.h"

#include <linux/debugfs.h>
#include <linux/kernel_read_file.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

static char *region_text = "", *loader = "g3", *image = "/lib/vtl1.elf", *certificates = "/lib/certificates.der", *owner;
static bool end_of_boot = true;
module_param_named(region, region_text, charp, 0400);
MODULE_PARM_DESC(region, "SIZE@ADDRESS of VTL1's memory, which memmap=SIZE$ADDRESS keeps from Linux");
module_param(loader, charp, 0400);
MODULE_PARM_DESC(loader, "g3 (default) or g2: how VTL1 is started");
module_param(image, charp, 0400);
MODULE_PARM_DESC(image, "file of VTL1's image");
module_param(certificates, charp, 0400);
MODULE_PARM_DESC(certificates, "file of the kernel's built-in certificates (DER, one after the other)");
module_param(owner, charp, 0400);
MODULE_PARM_DESC(owner, "file of more certificates to trust, the machine owner's");
module_param(end_of_boot, bool, 0400);
MODULE_PARM_DESC(end_of_boot, "end the boot phase at once (default), or when 1 is written to debugfs' vtl0/end_of_boot");

bool vtl1_protects;
static struct region region;

struct file_bytes {
	void *bytes;
	size_t size;
};

static int read_file(const char *path, struct file_bytes *into)
{
	ssize_t size = kernel_read_file_from_path(path, 0, &into->bytes, INT_MAX, NULL, READING_FIRMWARE);

	if (size < 0) {
		pr_err("%s cannot be read: %zd\n", path, size);
		return size;
	}
	into->size = size;
	return 0;
}

static int parse_region(void)
{
	char *rest;

	region.size = memparse(region_text, &rest);
	if (*rest == '@')
		region.start = memparse(rest + 1, &rest);
	if (*rest || !region.start || !region.size || (region.start | region.size) & (PMD_SIZE - 1)) {
		pr_err("region=%s is not SIZE@ADDRESS with both a multiple of 2 MiB\n", region_text);
		return -EINVAL;
	}
	if (region_intersects(region.start, region.size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT) {
		pr_err("region=%s is memory that Linux uses: reserve it by memmap=SIZE$ADDRESS\n", region_text);
		return -EBUSY;
	}
	return 0;
}

/* Whether VTL1 speaks this driver's version of the calls. */
int check_version(void)
{
	struct vsm_query *answer = (void *)get_zeroed_page(GFP_KERNEL);
	s64 result;

	if (!answer)
		return -ENOMEM;
	result = vtl_call(VSM_CALL_QUERY, virt_to_phys(answer), 0, 0);
	if (result) {
		pr_err("Query: %lld: this VTL1 does not say which calls it has\n", result);
	} else if (answer->version != VSM_ABI_VERSION || answer->hash != VSM_ABI_HASH) {
		pr_err("VTL1 has version %u (%#llx) of the calls, this driver %u (%#llx): rebuild one of them\n",
		       answer->version, answer->hash, VSM_ABI_VERSION, VSM_ABI_HASH);
		result = -EPROTO;
	}
	free_page((unsigned long)answer);
	return result;
}

static int signal_end_of_boot(void)
{
	s64 result = vtl_call(VSM_CALL_SIGNAL_END_OF_BOOT, 0, 0, 0);

	if (result)
		pr_err("SignalEndOfBoot: %lld\n", result);
	else
		pr_info("the boot has ended: VTL1 guards this Linux\n");
	return result;
}

static ssize_t write_end_of_boot(struct file *file, const char __user *text, size_t size, loff_t *offset)
{
	bool yes;
	int error = kstrtobool_from_user(text, size, &yes);

	if (!error && yes)
		error = signal_end_of_boot();
	return error ?: size;
}

static const struct file_operations end_of_boot_fops = { .owner = THIS_MODULE, .write = write_end_of_boot };

/* What a module of a stock kernel cannot have VTL1 guard is switched off, or told. */
static void give_up_what_cannot_be(void)
{
	int *jit = (void *)symbol_or_none("bpf_jit_enable");

	if (jit && *jit) {
		*jit = 0;
		pr_info("BPF programs are interpreted from now on: code that is made at run time cannot be executed\n");
	}
	pr_info("not possible from now on: ftrace, kprobes and tracepoints switched on late, kexec into an image%s\n",
		PROCESSORS_COME_BACK ? "" : ", processors that go offline");
}

static void show_in_debugfs(void)
{
	struct dentry *directory = debugfs_create_dir("vtl0", NULL);

	call_debugfs(directory);
	ring_debugfs(directory);
	debugfs_create_file("end_of_boot", 0200, directory, NULL, &end_of_boot_fops);
	attack_debugfs(directory, &region);
}

/* All that comes after VTL1 runs. */
static int hand_over(const struct file_bytes *trusted, const struct file_bytes *more)
{
	int error;

	error = check_version() ?: patch_prepare() ?: keys_prepare();
	if (error)
		return error;
	/* Without the ring the log is on VTL1's console. */
	ring_give();
	error = lock_processors() ?: start_watch_processors();
	if (error)
		return error;
	/* The wrappers' trampolines are text that ProtectMemory has to see. */
	error = hooks_install();
	if (error)
		goto unwatch_processors;
	error = modules_watch();
	if (error)
		goto remove_hooks;
	error = load_kernel_data(trusted->bytes, trusted->size, more->bytes, more->size);
	if (error)
		goto unwatch_modules;
	modules_pin();
	error = protect_memory(&region);
	if (error)
		goto unwatch_modules;
	vtl1_protects = true;
	give_up_what_cannot_be();
	return 0;

unwatch_modules:
	modules_unwatch();
remove_hooks:
	hooks_remove();
unwatch_processors:
	start_unwatch_processors();
	return error;
}

static int start(void)
{
	struct file_bytes elf = {}, trusted = {}, more = {};
	struct vtl1_start how;
	bool second_generation = !strcmp(loader, "g2");
	int error;

	if (!second_generation && strcmp(loader, "g3")) {
		pr_err("loader=%s is neither g2 nor g3\n", loader);
		return -EINVAL;
	}
	error = start_check() ?: parse_region() ?: symbols_find();
	if (!error)
		error = read_file(image, &elf) ?: read_file(certificates, &trusted) ?:
			certificates_check(trusted.bytes, trusted.size);
	if (!error && owner)
		error = read_file(owner, &more) ?: certificates_trust(more.bytes, more.size);
	if (!error)
		error = load_image(&region, second_generation, elf.bytes, elf.size, &how);
	if (!error)
		error = start_vtl1(&how, second_generation);
	if (!error)
		error = hand_over(&trusted, &more);
	vfree(elf.bytes);
	vfree(trusted.bytes);
	vfree(more.bytes);
	return error;
}

static int vtl0_init(void)
{
	int error = start();

	if (error) {
		pr_err("VTL1 does not guard this Linux: %d\n", error);
		return error;
	}
	show_in_debugfs();
	if (end_of_boot)
		signal_end_of_boot();
	return 0;
}
module_init(vtl0_init);

MODULE_DESCRIPTION("VTL0 driver of Linux Virtualization Based Security, for stock kernels");
MODULE_LICENSE("Dual MIT/GPL");
