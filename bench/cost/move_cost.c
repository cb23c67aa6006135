// SPDX-License-Identifier: GPL-2.0
/*
 * What move_pages(2) of one THP costs, in guest instructions.
 *
 * Runs in a guest with one CPU, on node 0, and memory on node 1, under QEMU's
 * -icount shift=0,sleep=off, where the clock counts instructions.  THP are
 * faulted in on node 1; each is moved to node 0 by a system call of its own.
 *
 * move_cost [-n THP]
 *
 * Prints one line of JSON, or one line on stderr and exits with 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "window.h"

static uint64_t move(struct window *w, char *p)
{
	uint64_t t;

	window_begin(w);
	mem_move(p, 0);
	t = window_end(w);
	if (mem_node(p) != 0)
		die("a THP was not moved");
	return t;
}

int main(int argc, char **argv)
{
	struct mem_counter before[MEM_COUNTERS], after[MEM_COUNTERS];
	struct window window = { .name = "move" };
	size_t thp = mem_thp_size(), n = 32, size;
	struct cost *cost;
	char *area;
	int c;

	while ((c = getopt(argc, argv, "n:")) != -1) {
		if (c != 'n')
			return 2;
		n = mem_number("-n", optarg, 1);
	}
	if (mem_node_cpus(1))
		die("node 1 must have memory only: give the guest one CPU, on node 0");

	/* NUMA balancing leaves alone what is under a policy */
	cost = calloc(n, sizeof(*cost));
	size = n * thp;
	area = mem_map_thp(size);
	mem_bind(area, size, 1);
	for (size_t o = 0; o < size; o += mem_base_size())
		area[o] = o / thp + 1;
	if (mem_whole(0, area, size, thp) < size)
		die("not backed by whole THP: is node 1 too small?");

	window_init(&window);
	mem_vmstat(before);
	for (size_t i = 0; i < n; i++)
		cost[i] = (struct cost){ move(&window, area + i * thp), window.next - 1 };
	mem_vmstat(after);
	for (size_t o = 0; o < size; o += mem_base_size())
		if (area[o] != (char)(o / thp + 1))
			die("THP %zu lost its data", o / thp);
	if (mem_whole(0, area, size, thp) < size)
		die("not all THP stayed whole");

	printf("{\"test\": \"move_cost\", \"thp\": %zu, \"thp_bytes\": %zu, \"page_bytes\": %zu, ",
	       n, thp, mem_base_size());
	cost_print(&window, cost, n);
	printf(", \"vmstat\": ");
	mem_print_delta(before, after);
	puts("}");
	return 0;
}
