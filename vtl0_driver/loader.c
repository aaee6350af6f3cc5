// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The loader: puts VTL1's image into its region, with the pages beside it that the loaders of LVBS kernels write.
 *
 * The second generation (LVBS 6.6) tells VTL1 of the region by a boot_params page, the third (the series of 2026) by
 * registers. Places and values: LVBS contract, 2.2 to 2.7; docs/src/hyper-v.md. Before VTL1 runs the region is VTL0's.
 */
#include "vtl0.h"

#include <linux/elf.h>
#include <linux/sizes.h>
#include <linux/pfn.h>
#include <asm/bootparam.h>
#include <asm/e820/types.h>

/* Offsets of the special pages, and what the first page tables map. */
#define GDT_PAGE 0x0000
#define TSS_PAGE 0x1000
#define PML4_PAGE 0x2000
#define PDPT_PAGE 0x3000
#define PD_PAGE 0x4000
#define PT_PAGES 0x5000
#define STACK_PAGE 0xd000
#define BOOT_PARAMS_PAGE 0xe000
#define COMMAND_LINE_PAGE 0xf000
#define SPECIAL_PAGES 0x10000
#define INITIAL_MAP SZ_16M
#define IMAGE_ALIGN SZ_2M
/* Of a table: present and writable; of the entries below, accessed and dirty as well. */
#define TABLE_FLAGS 0x3
#define PAGE_FLAGS 0x63
#define TSS_SIZE 104

static u64 *words(u8 *region, u64 offset)
{
	return (u64 *)(region + offset);
}

/* An identity map of the first 16 MiB, in pages of 4 KiB. */
static int write_page_tables(u8 *region, u64 base, bool second_generation)
{
	u64 first = base >> 21 & 511, i;

	if (first + INITIAL_MAP / SZ_2M > 512) {
		pr_err("the region's first 16 MiB cross a border of 1 GiB\n");
		return -EINVAL;
	}
	if (!second_generation)
		memset(region + PML4_PAGE, 0, STACK_PAGE - PML4_PAGE);
	words(region, PML4_PAGE)[base >> 39 & 511] = (base + PDPT_PAGE) | TABLE_FLAGS;
	words(region, PDPT_PAGE)[base >> 30 & 511] = (base + PD_PAGE) | TABLE_FLAGS;
	for (i = 0; i < INITIAL_MAP / SZ_2M; i++)
		words(region, PD_PAGE)[first + i] = (base + PT_PAGES + i * PAGE_SIZE) | PAGE_FLAGS;
	for (i = 0; i < INITIAL_MAP / PAGE_SIZE; i++)
		words(region, PT_PAGES)[i] = (base + i * PAGE_SIZE) | PAGE_FLAGS;
	return 0;
}

/* The descriptor table; its limit. */
static u16 write_gdt(u8 *region, u64 base, bool second_generation)
{
	u64 *gdt = words(region, GDT_PAGE), tss = base + TSS_PAGE;
	u64 descriptor = (tss & 0xffffff) << 16 | 0x89ULL << 40 | (tss >> 24 & 0xff) << 56;

	if (second_generation) {
		gdt[0] = 0x0020180000000000;
		gdt[1] = 0x0020980000000000;
		gdt[2] = 0x0000900000000000;
		gdt[3] = descriptor | TSS_SIZE;
		return 31;
	}
	gdt[0] = 0;
	gdt[1] = 0x00a09b0000000000;
	gdt[2] = 0x00c0930000000000;
	gdt[3] = descriptor | (TSS_SIZE - 1);
	gdt[4] = tss >> 32;
	return 39;
}

static void write_boot_params(u8 *region, const struct region *told)
{
	struct boot_params *params = (void *)(region + BOOT_PARAMS_PAGE);
	u64 line = told->start + COMMAND_LINE_PAGE, end = told->start + told->size, top = PFN_PHYS(totalram_pages());
	struct boot_e820_entry map[] = {
		{ 0, told->start, E820_TYPE_RESERVED },
		{ told->start, told->size, E820_TYPE_RAM },
		{ end, max(top, end + PAGE_SIZE) - end, E820_TYPE_RESERVED },
	};

	params->acpi_rsdp_addr = 0;
	params->ext_cmd_line_ptr = line >> 32;
	params->hdr.cmd_line_ptr = line;
	params->hdr.type_of_loader = 0xff;
	params->hdr.hardware_subarch = X86_SUBARCH_LGUEST;
	params->e820_entries = ARRAY_SIZE(map);
	memcpy(params->e820_table, map, sizeof(map));
	snprintf(region + COMMAND_LINE_PAGE, PAGE_SIZE, "debug console=ttyS1,115200 possible_cpus=%u",
		 num_possible_cpus());
}

static int refuse_image(const char *why)
{
	pr_err("the image is refused: %s\n", why);
	return -ENOEXEC;
}

static const Elf64_Phdr *segments_of(const void *image, size_t size)
{
	const Elf64_Ehdr *header = image;

	if (size < sizeof(*header) || memcmp(header->e_ident, ELFMAG, SELFMAG) ||
	    header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64 ||
	    (header->e_type != ET_EXEC && header->e_type != ET_DYN) || header->e_phentsize != sizeof(Elf64_Phdr) ||
	    header->e_phoff > size || header->e_phnum > (size - header->e_phoff) / sizeof(Elf64_Phdr))
		return NULL;
	return image + header->e_phoff;
}

/* Copies the segments; the physical address of the entry point. */
static int load_segments(u8 *region, u64 base, const void *image, size_t size, u64 *entry)
{
	const Elf64_Ehdr *header = image;
	const Elf64_Phdr *segments = segments_of(image, size), *segment;
	u64 lowest = U64_MAX, offset = 0;
	int i;

	if (!segments)
		return refuse_image("it is no ELF file for x86-64");
	for (i = 0; i < header->e_phnum; i++) {
		segment = &segments[i];
		if (segment->p_type != PT_LOAD)
			continue;
		if (!segment->p_align || segment->p_align % IMAGE_ALIGN)
			return refuse_image("a segment is not aligned to 2 MiB");
		if (segment->p_offset > size || segment->p_filesz > size - segment->p_offset ||
		    segment->p_filesz > segment->p_memsz)
			return refuse_image("a segment lies outside of the file");
		if (!offset)
			offset = ALIGN(base + segment->p_align, segment->p_align) - base;
		lowest = min_t(u64, lowest, segment->p_paddr);
	}
	if (!offset || offset < SPECIAL_PAGES || offset >= INITIAL_MAP)
		return refuse_image("it has no segments, or lies on the special pages");
	for (i = 0; i < header->e_phnum; i++) {
		u64 from = segments[i].p_paddr - lowest, room = INITIAL_MAP - offset;

		segment = &segments[i];
		if (segment->p_type != PT_LOAD)
			continue;
		if (from > room || segment->p_memsz > room - from)
			return refuse_image("it does not fit the 16 MiB that are mapped at first");
		memcpy(region + offset + from, image + segment->p_offset, segment->p_filesz);
		memset(region + offset + from + segment->p_filesz, 0, segment->p_memsz - segment->p_filesz);
	}
	*entry = base + offset + header->e_entry - lowest;
	return 0;
}

static void fill_context(struct vp_context *context, u64 base, u64 entry, u16 gdt_limit, bool second_generation)
{
	struct vp_segment data = { .selector = 0x10, .attributes = second_generation ? 0x4093 : 0xc093 };

	*context = (struct vp_context){
		.rip = entry,
		.rsp = base + (second_generation ? STACK_PAGE + 0xfff : BOOT_PARAMS_PAGE),
		.rflags = X86_EFLAGS_FIXED,
		.cs = { .selector = 0x08, .attributes = second_generation ? 0x209b : 0xa09b },
		.ds = data, .es = data, .fs = data, .gs = data,
		.tr = { .base = base + TSS_PAGE, .limit = TSS_SIZE - 1, .selector = 0x18, .attributes = 0x8b },
		.gdtr = { .limit = gdt_limit, .base = base },
		.efer = EFER_LMA | EFER_LME | EFER_NX | EFER_SCE,
		.cr0 = X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP | X86_CR0_PE,
		.cr3 = base + PML4_PAGE,
		.cr4 = X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE,
		.pat = 0x0007040600070406,
	};
}

/* Fills the region, and says how VTL1 is entered for the first time. */
int load_image(const struct region *told, bool second_generation, const void *image, size_t size,
	       struct vtl1_start *start)
{
	u8 *region = memremap(told->start, told->size, MEMREMAP_WB);
	u64 base = told->start, entry;
	u16 gdt_limit;
	int error;

	if (!region) {
		pr_err("VTL1's region %#llx+%#llx cannot be mapped\n", told->start, told->size);
		return -ENOMEM;
	}
	error = write_page_tables(region, base, second_generation);
	if (!error)
		error = load_segments(region, base, image, size, &entry);
	if (!error) {
		gdt_limit = write_gdt(region, base, second_generation);
		fill_context(&start->context, base, entry, gdt_limit, second_generation);
		/* TSS, sp0 */
		memcpy(region + TSS_PAGE + 4, &start->context.rsp, sizeof(start->context.rsp));
		start->arguments = (struct vtl_arguments){ num_possible_cpus(), base, told->size, 0 };
		if (second_generation) {
			write_boot_params(region, told);
			start->arguments = (struct vtl_arguments){ 0, base + BOOT_PARAMS_PAGE, 0, 0 };
		}
	}
	memunmap(region);
	return error;
}
