// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Functions of the kernel that go through the driver: ftrace turns each to a wrapper, which goes on with the original.
 *
 * A call that comes from the driver itself is not turned: so the wrapper's own call goes through. The wrapper must come back
 * from that call, for a tail call would have another return address.
 */
#include "vtl0.h"

#include <linux/ftrace.h>
#include <linux/module.h>

int (*real_load_module)(void *, const char __user *, int);
void *(*real_text_poke)(text_poke_f *, void *, const void *, size_t);
long (*real_kexec_file_load)(const struct pt_regs *);
long (*real_kexec_load)(const struct pt_regs *);
ssize_t (*real_kernel_read_file)(struct file *, loff_t, void **, size_t, size_t *, int);
void *(*real_key_create_or_update)(void *, const char *, const char *, const void *, size_t, u32, unsigned long);

struct hook {
	const char *name;
	void *wrapper, *real;
	struct ftrace_ops ops;
	bool optional, installed;
};

static void notrace turn(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);

	if (regs && !within_module(parent, THIS_MODULE))
		regs->ip = (unsigned long)ops->private;
}

#define HOOK(symbol, wrap, original, may_lack) { \
	.name = symbol, .wrapper = wrap, .real = &original, .optional = may_lack, \
	.ops = { .func = turn, .private = wrap, .flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY } \
}

static struct hook hooks[] = {
	HOOK("__text_poke", wrap_text_poke, real_text_poke, false),
	HOOK("load_module", wrap_load_module, real_load_module, false),
	HOOK("key_create_or_update", wrap_key_create_or_update, real_key_create_or_update, true),
	HOOK("kernel_read_file", wrap_kernel_read_file, real_kernel_read_file, true),
	HOOK("__x64_sys_kexec_file_load", wrap_kexec_file_load, real_kexec_file_load, true),
	HOOK("__x64_sys_kexec_load", wrap_kexec_load, real_kexec_load, true),
};

/* Installs all wrappers. A kernel may lack kexec and keys, but not modules and patches. */
int hooks_install(void)
{
	struct hook *hook;
	int error = 0;

	for (hook = hooks; hook < hooks + ARRAY_SIZE(hooks); hook++) {
		unsigned long at = symbol(hook->name);

		*(unsigned long *)hook->real = at;
		error = at ? ftrace_set_filter_ip(&hook->ops, at, 0, 0) : -ENOENT;
		if (!error)
			error = register_ftrace_function(&hook->ops);
		hook->installed = !error;
		if (error && hook->optional)
			pr_warn("%s cannot be wrapped: %d; what goes through it is not shown to VTL1\n", hook->name, error);
		else if (error)
			break;
	}
	if (hook == hooks + ARRAY_SIZE(hooks))
		return 0;
	pr_err("%s cannot be wrapped: %d\n", hook->name, error);
	hooks_remove();
	return error;
}

/* Takes them away again; only before memory is protected. */
void hooks_remove(void)
{
	struct hook *hook;

	for (hook = hooks; hook < hooks + ARRAY_SIZE(hooks); hook++)
		if (hook->installed)
			unregister_ftrace_function(&hook->ops);
}
