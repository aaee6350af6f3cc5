// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Modules: ValidateModule before a byte of a module runs, FreeModuleInit when its init is over, UnloadModule when it goes.
 *
 * VTL1 wants the signed file as it was, and load_module() works on it: so its wrapper keeps a copy. The question is asked in
 * the notifier at COMING, before all others: the module lies in memory as it will run, its pages have their permissions,
 * and its jump labels are still those of the file. VTL1's error ends the load.
 */
#include "vtl0.h"

#include <linux/async.h>
#include <linux/elf.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

/* The head of what load_module() gets (struct load_info in the kernel's own kernel/module/internal.h, 5.19 to 6.12). */
struct load_information {
	const char *name;
	struct module *module;
	const void *file;
	unsigned long size;
};

/* A module that is loaded, from its file to its unloading. */
struct load {
	struct list_head link;
	/* While the file is being loaded. */
	struct task_struct *task;
	void *file;
	size_t size;
	u64 flags;
	/* From VTL1's answer on. */
	struct module *module;
	s64 token;
};

static LIST_HEAD(loads);
static DEFINE_MUTEX(loads_lock);

/* Instead of load_module(): keeps the file for the notifier. */
int wrap_load_module(void *information, const char __user *arguments, int flags)
{
	const struct load_information *info = information;
	struct load *load;
	int result;

	if (!vtl1_protects || info->size < SELFMAG || memcmp(info->file, ELFMAG, SELFMAG)) {
		result = real_load_module(information, arguments, flags);
		barrier_data(&result);
		return result;
	}
	load = kzalloc(sizeof(*load), GFP_KERNEL);
	if (load)
		load->file = vmalloc(info->size);
	if (!load || !load->file) {
		pr_err("no memory for the file of a module: it is not loaded\n");
		kfree(load);
		return -ENOMEM;
	}
	load->size = info->size;
	load->flags = flags;
	load->task = current;
	memcpy(load->file, info->file, info->size);
	mutex_lock(&loads_lock);
	list_add(&load->link, &loads);
	mutex_unlock(&loads_lock);

	result = real_load_module(information, arguments, flags);

	mutex_lock(&loads_lock);
	load->task = NULL;
	vfree(load->file);
	load->file = NULL;
	if (load->token <= 0) {
		list_del(&load->link);
		kfree(load);
	}
	mutex_unlock(&loads_lock);
	return result;
}

/* The load of a module, or the one that this task is at. */
static struct load *find(const struct module *module, bool is_loading)
{
	struct load *load;

	list_for_each_entry(load, &loads, link)
		if (is_loading ? load->task == current && !load->module : load->module == module)
			return load;
	return NULL;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
static void add_areas(struct list *list, const struct module *module)
{
	int kind;

	BUILD_BUG_ON(MOD_TEXT != VSM_MOD_TEXT || MOD_INIT_RODATA != VSM_MOD_INIT_RODATA);
	for (kind = 0; kind < MOD_MEM_NUM_TYPES; kind++)
		if (module->mem[kind].size)
			list_add_bytes(list, module->mem[kind].base, PAGE_ALIGN(module->mem[kind].size), kind);
}
#else
/* Before 6.4 a module has two areas, each in this order. */
static void add_area(struct list *list, const struct module_layout *area, u64 text, u64 rodata, u64 late, u64 data)
{
	const void *base = area->base;

	if (!area->size)
		return;
	list_add_bytes(list, base, area->text_size, text);
	list_add_bytes(list, base + area->text_size, area->ro_size - area->text_size, rodata);
	list_add_bytes(list, base + area->ro_size, area->ro_after_init_size - area->ro_size, late);
	list_add_bytes(list, base + area->ro_after_init_size, PAGE_ALIGN(area->size) - area->ro_after_init_size, data);
}

static void add_areas(struct list *list, const struct module *module)
{
	add_area(list, &module->core_layout, VSM_MOD_TEXT, VSM_MOD_RODATA, VSM_MOD_RO_AFTER_INIT, VSM_MOD_DATA);
	add_area(list, &module->init_layout, VSM_MOD_INIT_TEXT, VSM_MOD_INIT_RODATA, VSM_MOD_INIT_RODATA,
		 VSM_MOD_INIT_DATA);
}
#endif

/* Pages of thunks against indirect target selection, on processors that need them. */
static void add_thunks(struct list *list, const struct module *module)
{
#ifdef CONFIG_MITIGATION_ITS
	int i;

	for (i = 0; i < module->its_num_pages; i++)
		list_add_bytes(list, module->its_page_array[i], PAGE_SIZE, VSM_MOD_THUNKS);
#endif
}

static s64 validate(const struct load *load, const struct module *module)
{
	struct heki_patch_info *sites = NULL;
	struct list list = {};
	u64 ranges, began = ktime_get_ns();
	size_t size;
	s64 token;

	list_add_bytes(&list, load->file, load->size, VSM_MOD_ELF);
	add_areas(&list, module);
	add_thunks(&list, module);
	if (module->num_jump_entries) {
		sites = sites_of(module->jump_entries, module->jump_entries + module->num_jump_entries, false,
				 &size);
		if (sites)
			list_add_bytes(&list, sites, size, VSM_MOD_PATCH);
		else
			list.error = list.error ?: -ENOMEM;
	}
	ranges = list.total;
	token = list_call(&list, VSM_CALL_VALIDATE_MODULE, load->flags);
	vfree(sites);
	if (token > 0)
		pr_info("module %s is valid: token %lld, %llu ranges, %llu us\n", module->name, token, ranges,
			(ktime_get_ns() - began) / NSEC_PER_USEC);
	else
		pr_err("module %s is refused: ValidateModule: %lld\n", module->name, token);
	return token;
}

static int on_coming(struct load *load, struct module *module)
{
	s64 token;

	if (!load) {
		pr_err("module %s is refused: its file has not come by load_module()\n", module->name);
		return notifier_from_errno(-EPERM);
	}
	attack_module(module, load->file, load->size);
	load->module = module;
	token = validate(load, module);
	load->token = token;
	return token > 0 ? NOTIFY_OK : notifier_from_errno(token ? (int)token : -EIO);
}

static void on_live(const struct load *load, const struct module *module)
{
	s64 result;

	/* As do_init_module() does next: code that the init has left running may be init text. */
	if (!module->async_probe_requested)
		async_synchronize_full();
	result = vtl_call(VSM_CALL_FREE_MODULE_INIT, load->token, 0, 0);
	if (result)
		pr_err("FreeModuleInit of %s: %lld\n", module->name, result);
}

static void on_going(struct load *load, const struct module *module)
{
	s64 result = vtl_call(VSM_CALL_UNLOAD_MODULE, load->token, 0, 0);

	if (result)
		pr_err("UnloadModule of %s: %lld; its memory stays VTL1's\n", module->name, result);
	load->token = 0;
	load->module = NULL;
	/* A load that is still going on frees it itself. */
	if (!load->task) {
		list_del(&load->link);
		kfree(load);
	}
}

static int on_module(struct notifier_block *block, unsigned long state, void *data)
{
	struct module *module = data;
	struct load *load;
	int result = NOTIFY_OK;

	if (!vtl1_protects)
		return NOTIFY_OK;
	mutex_lock(&loads_lock);
	load = find(module, state == MODULE_STATE_COMING);
	mutex_unlock(&loads_lock);
	/* Nobody else has this one now: its task loads it, or unloads it. */
	if (state == MODULE_STATE_COMING) {
		result = on_coming(load, module);
	} else if (load && load->token > 0) {
		if (state == MODULE_STATE_LIVE)
			on_live(load, module);
		else if (state == MODULE_STATE_GOING) {
			mutex_lock(&loads_lock);
			on_going(load, module);
			mutex_unlock(&loads_lock);
		}
	}
	return result;
}

static struct notifier_block block = { .notifier_call = on_module, .priority = INT_MAX };

int modules_watch(void)
{
	return register_module_notifier(&block);
}

void modules_unwatch(void)
{
	unregister_module_notifier(&block);
}

/*
 * Modules that were there before ProtectMemory stay: their text is the kernel's for VTL1, and nobody could ever write
 * their memory again.
 */
void modules_pin(void)
{
	struct list_head *modules = (void *)symbol("modules");
	struct module *module;
	int count = 0;

	if (!modules)
		return;
	rcu_read_lock_sched();
	list_for_each_entry_rcu(module, modules, list)
		if (module->state == MODULE_STATE_LIVE && try_module_get(module))
			count++;
	rcu_read_unlock_sched();
	if (count)
		pr_info("%d modules that were loaded before cannot be unloaded any more\n", count);
}
