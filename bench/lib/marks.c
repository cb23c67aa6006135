// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/mempolicy.h>

#include "marks.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static volatile char *page;

static void send(const char *name)
{
	volatile char *to = page;

	if (!to)
		return;
	for (int i = 0; name[i] && i < MARK_LENGTH; i++)
		to[(unsigned char)name[i]] = 0;
	to[MARK_END] = 0;
}

/*
 * A new page, of @node unless that is negative.  NULL where the address is
 * taken by something else, then nothing is ever sent.
 */
static void map_page(int node)
{
	unsigned long mask = 1ul << (node < 0 ? 0 : node);
	size_t size = sysconf(_SC_PAGESIZE);
	void *map;

	if (page)
		munmap((void *)page, size);
	map = mmap((void *)MARK_PAGE, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (map != MAP_FAILED && map != (void *)MARK_PAGE)	/* an old kernel's hint */
		munmap(map, size);
	page = map == (void *)MARK_PAGE ? map : NULL;
	if (page && node >= 0 &&
	    syscall(SYS_mbind, page, size, MPOL_BIND, &mask, 8 * sizeof(mask) + 1, 0)) {
		munmap((void *)page, size);
		page = NULL;
	}
}

/* Have the meter see where the memory of each node is. */
static void show_nodes(void)
{
	FILE *f = fopen("/sys/devices/system/node/has_memory", "r");
	int first, last, n;

	while (f && (n = fscanf(f, "%d-%d", &first, &last)) > 0) {
		for (int node = first; node <= (n == 2 ? last : first); node++) {
			map_page(node);
			if (page)
				page[MARK_NODE + node] = 0;
		}
		if (fgetc(f) != ',')
			break;
	}
	if (f)
		fclose(f);
}

void mark_begin(const char *name)
{
	if (!page)
		show_nodes();
	if (!page)
		map_page(-1);
	send(name);
}

void mark_end(void)
{
	send("");
}
