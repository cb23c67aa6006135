// SPDX-License-Identifier: GPL-2.0
/*
 * What the migration of one page by a NUMA hinting fault costs, in guest
 * instructions.
 *
 * Runs in a guest with one CPU, on node 0, and memory on node 1, under QEMU's
 * -icount shift=0,sleep=off, where the clock counts instructions.  Pages that
 * were faulted in on node 1 are touched over and over.  Once the scanner has
 * made one inaccessible, the next touch faults and the kernel moves the page
 * to node 0; what that touch took is one value.
 *
 * thp_cost [-k KIB] [-n PAGES] [-t SECONDS]
 *
 * The pages are THP of a PMD, or of KIB each; 0: base pages.
 * Prints one line of JSON, or one line on stderr and exits with 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "window.h"

/* A touch that took longer than this had a fault; asked for its node then. */
#define FAULT		500

static struct {
	size_t page;
	size_t n;
	double limit;		/* seconds */
	char *area;
	struct window window;
} run = { .n = 32, .limit = 60 };

static uint64_t touch(volatile char *p)
{
	window_begin(&run.window);
	(void)*p;
	return window_end(&run.window);
}

static size_t whole(void)
{
	return mem_whole(0, run.area, run.n * run.page, run.page);
}

/* Pages of the size on node 1, under no policy, which nothing else is scanned for. */
static void place(void)
{
	size_t size = run.n * run.page;

	run.area = mem_map_pages(size, run.page);
	mem_bind(run.area, size, 1);
	for (size_t o = 0; o < size; o += mem_base_size())
		run.area[o] = o / run.page + 1;
	if (whole() < size)
		die("not backed by whole pages of %zu KiB: is node 1 too small?", run.page >> 10);
	mem_hint_only(run.area);
	mem_bind(run.area, size, -1);
}

/* Touch pages until each was migrated; the cost of each. */
static void migrate(struct cost *cost)
{
	char *done = calloc(run.n, 1);
	double start = mem_seconds();
	size_t moved = 0;

	while (moved < run.n) {
		size_t before = moved;

		if (mem_seconds() - start > run.limit)
			die("only %zu of %zu pages were migrated in %g s", moved, run.n, run.limit);
		for (size_t i = 0; i < run.n; i++) {
			char *p = run.area + i * run.page;
			uint64_t t;

			if (done[i])
				continue;
			t = touch(p);
			if (t < FAULT || mem_node(p) != 0)
				continue;
			cost[moved++] = (struct cost){ t, run.window.next - 1 };
			done[i] = 1;
		}
		if (moved == before)
			mem_spin();
	}
	free(done);
}

static void check(void)
{
	for (size_t o = 0; o < run.n * run.page; o += mem_base_size())
		if (run.area[o] != (char)(o / run.page + 1))
			die("page %zu lost its data", o / run.page);
	if (whole() < run.n * run.page)
		die("not all pages stayed whole");
}

int main(int argc, char **argv)
{
	struct mem_counter before[MEM_COUNTERS], after[MEM_COUNTERS];
	struct cost *cost;
	int c;

	while ((c = getopt(argc, argv, "k:n:t:")) != -1) {
		if (c == 'k')
			run.page = (size_t)mem_number("-k", optarg, 0) << 10 ?: mem_base_size();
		else if (c == 'n')
			run.n = mem_number("-n", optarg, 1);
		else if (c == 't')
			run.limit = mem_number("-t", optarg, 1);
		else
			return 2;
	}
	if (mem_node_cpus(1))
		die("node 1 must have memory only: give the guest one CPU, on node 0");
	if (run.page)
		mem_allow_pages(run.page);
	else
		run.page = mem_thp_size();

	cost = calloc(run.n, sizeof(*cost));
	snprintf(run.window.name, sizeof(run.window.name), "hint-%zuK", run.page >> 10);
	window_init(&run.window);
	place();
	mem_vmstat(before);
	migrate(cost);
	mem_vmstat(after);
	check();

	printf("{\"test\": \"thp_cost\", \"thp\": %zu, \"thp_bytes\": %zu, \"page_bytes\": %zu, ",
	       run.n, run.page, mem_base_size());
	cost_print(&run.window, cost, run.n);
	printf(", \"anon_huge_bytes\": %zu, \"vmstat\": ", mem_smaps(0, "AnonHugePages"));
	mem_print_delta(before, after);
	puts("}");
	return 0;
}
