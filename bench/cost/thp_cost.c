// SPDX-License-Identifier: GPL-2.0
/*
 * What one THP migration by a NUMA hinting fault costs, in guest
 * instructions.
 *
 * Runs in a guest with one CPU, on node 0, and memory on node 1, under QEMU's
 * -icount shift=0,sleep=off, where the clock counts instructions.  THP that
 * were faulted in on node 1 are touched over and over.  Once the scanner has
 * made one inaccessible, the next touch faults and the kernel moves the THP to
 * node 0; what that touch took is one value.
 *
 * thp_cost [-n THP] [-t SECONDS]
 *
 * Prints one line of JSON, or one line on stderr and exits with 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../lib/mem.h"

/* A touch that took longer than this had a fault; asked for its node then. */
#define FAULT		2000

static uint64_t touch(volatile char *p)
{
	uint64_t start = mem_instructions();

	(void)*p;
	return mem_instructions() - start;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t overhead(char *p)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		uint64_t t = touch(p);

		if (t < best)
			best = t;
	}
	return best;
}

int main(int argc, char **argv)
{
	struct mem_counter before[MEM_COUNTERS], after[MEM_COUNTERS];
	size_t thp = mem_thp_size(), n = 32, moved = 0;
	double limit = 60, start;
	uint64_t *value, empty;
	char *area, *done;
	int c;

	while ((c = getopt(argc, argv, "n:t:")) != -1) {
		if (c == 'n')
			n = mem_number("-n", optarg, 1);
		else if (c == 't')
			limit = mem_number("-t", optarg, 1);
		else
			return 2;
	}
	if (mem_node_cpus(1))
		die("node 1 must have memory only: give the guest one CPU, on node 0");

	value = calloc(n, sizeof(*value));
	done = calloc(n, 1);
	area = mem_map_thp(n * thp);
	mem_bind(area, n * thp, 1);
	for (size_t i = 0; i < n; i++)
		for (size_t o = 0; o < thp; o += mem_base_size())
			area[i * thp + o] = i + 1;
	if (mem_smaps(0, "AnonHugePages") < n * thp)
		die("not backed by whole THP: is node 1 too small?");
	mem_bind(area, n * thp, -1);

	empty = overhead(area);
	mem_vmstat(before);
	start = mem_seconds();
	while (moved < n && mem_seconds() - start < limit) {
		for (size_t i = 0; i < n; i++) {
			uint64_t t;

			if (done[i])
				continue;
			t = touch(area + i * thp);
			if (t - empty < FAULT || mem_node(area + i * thp) != 0)
				continue;
			value[moved++] = t - empty;
			done[i] = 1;
		}
	}
	mem_vmstat(after);
	if (moved < n)
		die("only %zu of %zu THP were migrated in %g s", moved, n, limit);
	for (size_t i = 0; i < n; i++)
		if (area[i * thp + thp - 1 - (thp - 1) % mem_base_size()] != (char)(i + 1))
			die("THP %zu lost its data", i);

	printf("{\"test\": \"thp_cost\", \"thp\": %zu, \"thp_bytes\": %zu, \"page_bytes\": %zu, "
	       "\"values\": [", n, thp, mem_base_size());
	for (size_t i = 0; i < n; i++)
		printf("%s%llu", i ? ", " : "", (unsigned long long)value[i]);
	qsort(value, n, sizeof(*value), by_value);
	printf("], \"min\": %llu, \"median\": %llu, \"anon_huge_bytes\": %zu, \"vmstat\": ",
	       (unsigned long long)value[0],
	       (unsigned long long)(n % 2 ? value[n / 2] :
				    (value[n / 2 - 1] + value[n / 2]) / 2),
	       mem_smaps(0, "AnonHugePages"));
	mem_print_delta(before, after);
	puts("}");
	return 0;
}
