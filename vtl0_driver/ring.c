// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * VTL1's log: memory for it, and a file that shows what is in it.
 *
 * VTL1 writes records and no index; a record counts only at the place that its own position names, with the right check
 * sum (docs/src/log.md, the format). VTL0 can read the memory and not write it.
 */
#include "vtl0.h"

#include <linux/crc32.h>
#include <linux/debugfs.h>
#include <linux/gfp.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/vmalloc.h>

#define RING_SIZE SZ_256K
#define RECORD_MARK 0x1e
#define LONGEST 512
/* Offsets in a record: position and number, each in hexadecimal, the letter of the level, the text. */
#define POSITION 1
#define POSITION_DIGITS 16
#define NUMBER 18
#define NUMBER_DIGITS 8
#define LEVEL 27
#define TEXT 29
#define SUM_DIGITS 8

static struct page *ring;

/* Gives VTL1 the memory. Without it the log is on its console only. */
int ring_give(void)
{
	s64 result;

	ring = alloc_pages(GFP_KERNEL | __GFP_ZERO, get_order(RING_SIZE));
	if (!ring) {
		pr_err("no memory for VTL1's log\n");
		return -ENOMEM;
	}
	result = vtl_call(VSM_CALL_ALLOCATE_RINGBUFFER_MEMORY, page_to_phys(ring), RING_SIZE, 0);
	if (!result)
		return 0;
	pr_err("AllocateRingbufferMemory: %lld\n", result);
	__free_pages(ring, get_order(RING_SIZE));
	ring = NULL;
	return result;
}

static bool number_at(const u8 *digits, int count, u64 *number)
{
	*number = 0;
	for (; count; count--, digits++) {
		int digit = hex_to_bin(*digits);

		if (digit < 0)
			return false;
		*number = *number << 4 | digit;
	}
	return true;
}

/* Bytes of the record at `at`, if it is one for this position; its text is from TEXT on, SUM_DIGITS + 2 before its end. */
static size_t record_at(const u8 *at, u64 position)
{
	const u8 *end = memchr(at, '\n', LONGEST);
	u64 told, sum;
	size_t body;

	if (*at != RECORD_MARK || !end || end < at + TEXT + 1 + SUM_DIGITS)
		return 0;
	body = end - at - POSITION - 1 - SUM_DIGITS;
	if (!number_at(at + POSITION, POSITION_DIGITS, &told) || told != position ||
	    !number_at(end - SUM_DIGITS, SUM_DIGITS, &sum) || (crc32_le(~0, at + POSITION, body) ^ ~0U) != sum)
		return 0;
	return end + 1 - at;
}

/* The position of the oldest record in a copy of the ring. The copy goes on behind its end with its start. */
static bool oldest(const u8 *copy, u64 *position)
{
	bool found = false;
	size_t at;

	for (at = 0; at < RING_SIZE; at++) {
		u64 told;

		if (copy[at] == RECORD_MARK && number_at(copy + at + POSITION, POSITION_DIGITS, &told) &&
		    told % RING_SIZE == at && record_at(copy + at, told) && (!found || told < *position)) {
			*position = told;
			found = true;
		}
	}
	return found;
}

static const char *level(u8 letter)
{
	switch (letter) {
	case 'P': return "panic: ";
	case 'E': return "error: ";
	case 'W': return "warning: ";
	case 'D': return "debug: ";
	case 'T': return "trace: ";
	default: return "";
	}
}

static int log_show(struct seq_file *file, void *unused)
{
	u8 *copy = vmalloc(RING_SIZE + LONGEST);
	u64 position, number;
	size_t size;

	if (!copy)
		return -ENOMEM;
	memcpy(copy, page_address(ring), RING_SIZE);
	memcpy(copy + RING_SIZE, copy, LONGEST);
	if (oldest(copy, &position)) {
		const u8 *at = copy + position % RING_SIZE;

		if (number_at(at + NUMBER, NUMBER_DIGITS, &number) && number)
			seq_printf(file, "(%llu lines are overwritten)\n", number);
		for (; (size = record_at(at, position)); at = copy + position % RING_SIZE) {
			seq_printf(file, "vtl1: %s%.*s\n", level(at[LEVEL]), (int)(size - TEXT - SUM_DIGITS - 2),
				   at + TEXT);
			position += size;
		}
	}
	vfree(copy);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(log);

void ring_debugfs(struct dentry *directory)
{
	if (ring)
		debugfs_create_file("log", 0400, directory, NULL, &log_fops);
}
