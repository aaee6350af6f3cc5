// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Starts VTL1, brings all processors into it and locks their registers.
 *
 * The first VTL call of a processor makes VTL1 known on it; after LockRegs its control registers and system-call MSRs are
 * VTL1's. Linux' number of a processor is taken for the hypervisor's, as VTL1 does.
 */
#include "vtl0.h"

#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <asm/hypervisor.h>
#include <asm/io.h>
#include <asm/mshyperv.h>

/* TLFS: calls that enable VTL1 for the partition and for a processor. */
#define ENABLE_PARTITION_VTL 0x000d
#define ENABLE_VP_VTL 0x000f
#define PARTITION_SELF (~0ULL)
#define VP_SELF 0xfffffffeU
#define VTL1 1
#define ENABLE_MBEC 1
/* HvRegisterVsmPartitionStatus: enabled VTLs, the highest one there may be. HvRegisterVsmVpStatus: MBEC is active. */
#define VSM_PARTITION_STATUS 0x000d0004
#define ENABLED_VTLS(status) ((status) & 0xffff)
#define MAXIMUM_VTL(status) ((status) >> 16 & 0xf)
#define VSM_VP_STATUS 0x000d0003
#define ACTIVE_MBEC BIT(4)
/* CPUID 0x40000003, EBX: the partition may use VSM and its processors' registers. */
#define ACCESS_VSM BIT(16)
#define ACCESS_VP_REGISTERS BIT(17)
/* What VTL1 writes into a processor's byte of the boot-signal page (LVBS contract, 4). */
#define BOOT_SIGNAL 0xdc

static cpumask_t entered, locked;

/* Whether this is a machine that VTL1 can be started on; a line says why not. */
int start_check(void)
{
	unsigned int cpu;
	u64 status;

	if (!hypervisor_is_type(X86_HYPER_MS_HYPERV) || !hv_hypercall_pg) {
		pr_err("this is no guest of Hyper-V: there is nobody to start VTL1\n");
		return -ENODEV;
	}
	if ((ms_hyperv.priv_high & (ACCESS_VSM | ACCESS_VP_REGISTERS)) != (ACCESS_VSM | ACCESS_VP_REGISTERS)) {
		pr_err("the hypervisor gives this guest no virtual secure mode (CPUID 0x40000003, EBX %#x)\n",
		       ms_hyperv.priv_high);
		return -ENODEV;
	}
	if (get_register(VSM_PARTITION_STATUS, &status))
		return -ENODEV;
	if (MAXIMUM_VTL(status) < VTL1) {
		pr_err("the hypervisor allows no VTL1 here: VsmPartitionStatus %#llx\n", status);
		return -ENODEV;
	}
	if (ENABLED_VTLS(status) & BIT(VTL1)) {
		pr_err("somebody has started VTL1 already: VsmPartitionStatus %#llx\n", status);
		return -EBUSY;
	}
	for_each_present_cpu(cpu)
		if (cpu_online(cpu) && hv_cpu_number_to_vp_number(cpu) != cpu) {
			pr_err("processor %u is the hypervisor's %u: VTL1 needs them to be the same\n", cpu,
			       hv_cpu_number_to_vp_number(cpu));
			return -ENODEV;
		}
	return 0;
}

/* The first VTL call of this processor, and whether its VTL0 has MBEC from then on. */
static int first_entry(const struct vtl_arguments *arguments)
{
	s64 result = vtl_call(arguments->id, arguments->first, arguments->second, arguments->third);
	u64 status;

	if (result) {
		pr_err("processor %u: VTL1's first entry ended with %lld\n", smp_processor_id(), result);
		return -EIO;
	}
	if (get_register(VSM_VP_STATUS, &status))
		return -EIO;
	if (!(status & ACTIVE_MBEC)) {
		pr_err("processor %u: MBEC is not active: VsmVpStatus %#llx\n", smp_processor_id(), status);
		return -EIO;
	}
	cpumask_set_cpu(smp_processor_id(), &entered);
	return 0;
}

static int start_here(void *data)
{
	const struct vtl1_start *start = data;
	struct {
		u64 partition;
		u8 vtl, flags, pad[6];
	} partition = { PARTITION_SELF, VTL1, ENABLE_MBEC };
	struct {
		u64 partition;
		u32 vp;
		u8 vtl, pad[3];
		struct vp_context context;
	} processor = { PARTITION_SELF, VP_SELF, VTL1, {}, start->context };
	u16 status = hypercall(ENABLE_PARTITION_VTL, &partition, sizeof(partition));
	int error;

	BUILD_BUG_ON(sizeof(processor) != 240);
	if (status) {
		pr_err("HvCallEnablePartitionVtl: status %#x\n", status);
		return -EIO;
	}
	status = hypercall(ENABLE_VP_VTL, &processor, sizeof(processor));
	if (status) {
		pr_err("HvCallEnableVpVtl: status %#x\n", status);
		return -EIO;
	}
	/* With VTL1 enabled the hypercall page has the VTL call. */
	error = call_prepare();
	return error ?: first_entry(&start->arguments);
}

static int enter_here(void *unused)
{
	return first_entry(&(struct vtl_arguments){});
}

/* A mask of processors in a page, as VTL1 reads it: bit n of the page is processor n. */
static void *mask_page(const struct cpumask *mask)
{
	void *page = (void *)get_zeroed_page(GFP_KERNEL);

	if (page)
		memcpy(page, cpumask_bits(mask), BITS_TO_LONGS(nr_cpu_ids) * sizeof(long));
	return page;
}

static s64 call_with_mask(u64 id, const struct cpumask *mask, u64 second)
{
	void *page = mask_page(mask);
	s64 result = -ENOMEM;

	if (page)
		result = vtl_call_on(0, id, virt_to_phys(page) >> PAGE_SHIFT, second, 0);
	free_page((unsigned long)page);
	return result;
}

/* The third generation: BootAPs enables VTL1 on all, and each is sent afterwards. */
static int bring_in(const struct cpumask *mask)
{
	s64 result = call_with_mask(VSM_CALL_BOOT_APS, mask, 0);
	unsigned int cpu;

	if (result) {
		pr_err("BootAPs: %lld\n", result);
		return result;
	}
	for_each_cpu(cpu, mask) {
		int error = cpumask_test_cpu(cpu, &entered) ? 0 : smp_call_on_cpu(cpu, enter_here, NULL, false);

		if (error)
			return error;
	}
	return 0;
}

struct waiting {
	u8 *signal;
	atomic_t ready;
	int errors[NR_CPUS];
};

static int wait_for_signal(void *data)
{
	struct waiting *waiting = data;
	unsigned int cpu = smp_processor_id();

	atomic_inc(&waiting->ready);
	while (READ_ONCE(waiting->signal[cpu]) != BOOT_SIGNAL && !kthread_should_stop())
		cpu_relax();
	if (!kthread_should_stop())
		waiting->errors[cpu] = enter_here(NULL);
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

/* The second generation: a thread on each processor waits for VTL1's signal, and BootAPs for all of them. */
static int bring_in_by_signal(const struct cpumask *mask)
{
	struct waiting *waiting = kvzalloc(sizeof(*waiting), GFP_KERNEL);
	struct task_struct **threads = kcalloc(nr_cpu_ids, sizeof(*threads), GFP_KERNEL);
	s64 result = -ENOMEM;
	unsigned int cpu;
	int count = 0;

	if (waiting)
		waiting->signal = (u8 *)get_zeroed_page(GFP_KERNEL);
	if (!waiting || !threads || !waiting->signal)
		goto out;
	result = call_with_mask(VSM_CALL_ENABLE_APS_VTL, cpu_present_mask, 0);
	if (result) {
		pr_err("EnableAPsVtl: %lld\n", result);
		goto out;
	}
	for_each_cpu(cpu, mask) {
		if (cpumask_test_cpu(cpu, &entered))
			continue;
		threads[cpu] = kthread_create(wait_for_signal, waiting, "vtl0/%u", cpu);
		if (IS_ERR(threads[cpu])) {
			result = PTR_ERR(threads[cpu]);
			threads[cpu] = NULL;
			break;
		}
		kthread_bind(threads[cpu], cpu);
		wake_up_process(threads[cpu]);
		count++;
	}
	while (atomic_read(&waiting->ready) < count)
		msleep(1);
	if (!result)
		result = call_with_mask(VSM_CALL_BOOT_APS, mask, virt_to_phys(waiting->signal) >> PAGE_SHIFT);
	if (result)
		pr_err("BootAPs: %lld\n", result);
	for_each_cpu(cpu, mask) {
		if (!threads[cpu])
			continue;
		kthread_stop(threads[cpu]);
		if (!result)
			result = waiting->errors[cpu];
	}
out:
	if (waiting)
		free_page((unsigned long)waiting->signal);
	kfree(threads);
	kvfree(waiting);
	return result;
}

/* Starts VTL1 on the boot processor and on all others that are online. */
int start_vtl1(const struct vtl1_start *start, bool second_generation)
{
	int error = smp_call_on_cpu(0, start_here, (void *)start, false);

	if (error || num_online_cpus() == 1)
		return error;
	return second_generation ? bring_in_by_signal(cpu_online_mask) : bring_in(cpu_online_mask);
}

static int lock_here(void *unused)
{
	s64 result = vtl_call(VSM_CALL_LOCK_REGS, 0, 0, 0);

	if (result)
		pr_err("processor %u: LockRegs: %lld\n", smp_processor_id(), result);
	else
		cpumask_set_cpu(smp_processor_id(), &locked);
	return result;
}

/* Locks the registers of all processors that are online. */
int lock_processors(void)
{
	unsigned int cpu;
	int error = 0;

	for_each_online_cpu(cpu)
		error = error ?: smp_call_on_cpu(cpu, lock_here, NULL, false);
	return error;
}

/*
 * A processor comes online after this driver: it is brought in and locked, or does not come. This runs on that processor,
 * and the boot processor does not wait for it in BootAPs: so it goes for the third generation only. One that comes back was
 * reset, and is locked by VTL1 when it makes its next call.
 */
static int comes_online(unsigned int cpu)
{
	int error = 0;

	if (patch_lacks_locks) {
		pr_err("processor %u stays offline: the kernel's text is that of one processor, and VTL1 protects it\n", cpu);
		return -EBUSY;
	}
	if (!cpumask_test_cpu(cpu, &entered))
		error = call_with_mask(VSM_CALL_BOOT_APS, cpu_online_mask, 0) ?: enter_here(NULL);
	if (!error)
		error = cpumask_test_cpu(cpu, &locked) ? check_version() : lock_here(NULL);
	if (error)
		pr_err("processor %u stays offline: it has not come into VTL1: %d\n", cpu, error);
	return error;
}

static int goes_offline(unsigned int cpu)
{
	if (PROCESSORS_COME_BACK || !cpumask_test_cpu(cpu, &locked))
		return 0;
	pr_err("processor %u stays online: the code that it would start with cannot be executed\n", cpu);
	return -EBUSY;
}

static int watch;

/* Watches processors that come and go from now on. */
int start_watch_processors(void)
{
	watch = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "vtl0:online", comes_online, goes_offline);
	if (watch < 0)
		pr_err("processors that come online cannot be watched: %d\n", watch);
	return min(watch, 0);
}

void start_unwatch_processors(void)
{
	cpuhp_remove_state_nocalls(watch);
}
