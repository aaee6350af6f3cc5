// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * VTL calls and hypercalls: how VTL0 asks VTL1 and the hypervisor, and what was asked.
 *
 * A VTL call leaves VTL0 with interrupts off: VTL1 runs on this processor until it returns. The hypercall page belongs to
 * the hypervisor; the place of the VTL call in it is a register's word.
 */
#include "vtl0.h"

#include <linux/debugfs.h>
#include <linux/ktime.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <asm/fpu/api.h>
#include <asm/mshyperv.h>
#include <asm/nospec-branch.h>

/* TLFS, HvCallGetVpRegisters and its header: a partition, a processor, a VTL. */
#define GET_VP_REGISTERS 0x0050
#define ONE_REPETITION (1ULL << 32)
#define PARTITION_SELF (~0ULL)
#define VP_SELF 0xfffffffeU
/* HvRegisterVsmCodePageOffsets: bits 0 to 11 are the VTL call's. */
#define VSM_CODE_PAGE_OFFSETS 0x000d0002

#define FIRST_CALL VSM_CALL_ENABLE_APS_VTL
#define CALLS (VSM_CALL_QUERY - FIRST_CALL + 1)

static const char *const names[CALLS] = {
#define NAME(id, name) [VSM_CALL_##id - FIRST_CALL] = name
	NAME(ENABLE_APS_VTL, "EnableAPsVtl"),
	NAME(BOOT_APS, "BootAPs"),
	NAME(LOCK_REGS, "LockRegs"),
	NAME(SIGNAL_END_OF_BOOT, "SignalEndOfBoot"),
	NAME(PROTECT_MEMORY, "ProtectMemory"),
	NAME(LOAD_KDATA, "LoadKData"),
	NAME(VALIDATE_MODULE, "ValidateModule"),
	NAME(FREE_MODULE_INIT, "FreeModuleInit"),
	NAME(UNLOAD_MODULE, "UnloadModule"),
	NAME(COPY_SECONDARY_KEY, "CopySecondaryKey"),
	NAME(KEXEC_VALIDATE, "KexecValidate"),
	NAME(PATCH_TEXT, "PatchText"),
	NAME(ALLOCATE_RINGBUFFER_MEMORY, "AllocateRingbufferMemory"),
	NAME(SET_PLATFORM_ROOT_KEY, "SetPlatformRootKey"),
	NAME(OPTEE_MESSAGE, "OpteeMessage"),
	NAME(QUERY, "Query"),
#undef NAME
};

static struct {
	atomic64_t calls, refused, nanoseconds;
} counts[CALLS];

static u64 call_address;

/* Finds out where the VTL call is. */
int call_prepare(void)
{
	u64 offsets;
	int error = get_register(VSM_CODE_PAGE_OFFSETS, &offsets);

	if (error)
		return error;
	call_address = (u64)hv_hypercall_pg + (offsets & 0xfff);
	return 0;
}

static noinline s64 enter(u64 id, u64 first, u64 second, u64 third)
{
	unsigned long flags;
	u64 target = call_address;
	register u64 r8 asm("r8");

	local_irq_save(flags);
	kernel_fpu_begin();
	/* No function may be called between this and the asm: R8 is everybody's. */
	r8 = third;
	/* The first entry may change what a later one keeps (LVBS contract, 2.8). */
	asm volatile("pushq %%rbx; pushq %%rbp; pushq %%r12; pushq %%r13; pushq %%r14; pushq %%r15\n\t"
		     "xorl %%ecx, %%ecx\n\t"
		     ANNOTATE_RETPOLINE_SAFE
		     "call *%%rax\n\t"
		     "popq %%r15; popq %%r14; popq %%r13; popq %%r12; popq %%rbp; popq %%rbx"
		     : "+a"(target), "+D"(id), "+S"(first), "+d"(second), "+r"(r8)
		     :: "rcx", "r9", "r10", "r11", "memory", "cc");
	third = r8;
	kernel_fpu_end();
	local_irq_restore(flags);
	return third;
}

/* A VTL call from this processor. The answer is not negative, or a negative errno. */
s64 vtl_call(u64 id, u64 first, u64 second, u64 third)
{
	u64 began = ktime_get_ns();
	s64 result = enter(id, first, second, third);

	if (id >= FIRST_CALL && id < FIRST_CALL + CALLS) {
		atomic64_inc(&counts[id - FIRST_CALL].calls);
		atomic64_add(ktime_get_ns() - began, &counts[id - FIRST_CALL].nanoseconds);
		/* -ENOENT is no refusal of a patch: the memory is VTL0's own. */
		if (result < 0 && !(id == VSM_CALL_PATCH_TEXT && result == -ENOENT))
			atomic64_inc(&counts[id - FIRST_CALL].refused);
	}
	return result;
}

struct remote {
	struct vtl_arguments arguments;
	s64 result;
};

static int call_here(void *data)
{
	struct remote *call = data;

	call->result = vtl_call(call->arguments.id, call->arguments.first, call->arguments.second,
				call->arguments.third);
	return 0;
}

/* The same from another processor. */
s64 vtl_call_on(unsigned int cpu, u64 id, u64 first, u64 second, u64 third)
{
	struct remote call = { .arguments = { id, first, second, third } };
	int error = smp_call_on_cpu(cpu, call_here, &call, false);

	return error ?: call.result;
}

/* A hypercall with one page of input and no output: its status, 0 for success. */
u16 hypercall(u64 control, const void *input, size_t size)
{
	void *page = (void *)get_zeroed_page(GFP_KERNEL);
	u64 status;

	if (!page)
		return U16_MAX;
	memcpy(page, input, size);
	status = hv_do_hypercall(control, page, NULL);
	free_page((unsigned long)page);
	return status;
}

/* A register of this processor. */
int get_register(u32 name, u64 *value)
{
	struct {
		u64 partition;
		u32 vp;
		u8 vtl, pad[3];
		u32 name;
	} *input = (void *)get_zeroed_page(GFP_KERNEL);
	u64 *output = (void *)get_zeroed_page(GFP_KERNEL), status = U16_MAX;

	if (input && output) {
		input->partition = PARTITION_SELF;
		input->vp = VP_SELF;
		input->name = name;
		status = hv_do_hypercall(GET_VP_REGISTERS | ONE_REPETITION, input, output) & U16_MAX;
		*value = *output;
	}
	free_page((unsigned long)input);
	free_page((unsigned long)output);
	if (status)
		pr_err("the hypervisor does not give register %#x: status %#llx\n", name, status);
	return status ? -EIO : 0;
}

static int calls_show(struct seq_file *file, void *unused)
{
	int i;

	seq_puts(file, "call calls refused nanoseconds\n");
	for (i = 0; i < CALLS; i++)
		if (names[i] && atomic64_read(&counts[i].calls))
			seq_printf(file, "%s %lld %lld %lld\n", names[i], atomic64_read(&counts[i].calls),
				   atomic64_read(&counts[i].refused), atomic64_read(&counts[i].nanoseconds));
	patch_show(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(calls);

void call_debugfs(struct dentry *directory)
{
	debugfs_create_file("calls", 0400, directory, NULL, &calls_fops);
}
