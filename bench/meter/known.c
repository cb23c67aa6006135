// SPDX-License-Identifier: GPL-2.0
/*
 * known: loads and stores whose numbers are known, for the test of the meter.
 *
 * One thread on one CPU; the memory that it counts on is on one node, all else
 * that it has is on another.  Prints one line of JSON that says what the meter
 * must have seen, or one line on stderr and exits with 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/marks.h"
#include "../lib/mem.h"

#define MIB		((size_t)1 << 20)
#define LARGE		(4 * MIB)	/* in no cache of the test */
#define SMALL		(MIB / 4)	/* of a THP, so evenly in all sets of a cache */
#define WORD		sizeof(uint64_t)

typedef volatile uint64_t word;

/* One access for each word of the area, @passes times; @size in bytes. */
static void load(word *area, size_t size, int passes)
{
	for (int i = 0; i < passes; i++)
		for (word *p = area, *end = area + size / WORD; p < end; p++)
			(void)*p;
}

static void store(word *area, size_t size, int passes)
{
	for (int i = 0; i < passes; i++)
		for (word *p = area, *end = area + size / WORD; p < end; p++)
			*p = 1;
}

static void load_and_store(word *area, size_t size, int passes)
{
	for (int i = 0; i < passes; i++)
		for (word *p = area, *end = area + size / WORD; p < end; p++)
			*p = *p + 1;
}

static const struct test {
	const char *name;
	void (*run)(word *area, size_t size, int passes);
	int loads, stores;	/* of each word in a pass */
	size_t size;
	int passes;
} tests[] = {
	{ "loads",  load,           1, 0, LARGE, 1 },
	{ "stores", store,          0, 1, LARGE, 1 },
	{ "both",   load_and_store, 1, 1, LARGE, 1 },
	{ "fits",   load,           1, 0, SMALL, 8 },
	{ "large",  load,           1, 0, LARGE, 3 },
};

/*
 * What is read in between lies on the stack, so on the other node; constants lie
 * in the page cache, on any.
 */
static void measure(const struct test *t, word *area)
{
	void (*volatile run)(word *area, size_t size, int passes) = t->run;
	volatile size_t size = t->size;
	volatile int passes = t->passes;

	mark_begin(t->name);
	run(area, size, passes);
	mark_end();
}

static void print(const struct test *t)
{
	size_t words = t->size / WORD * t->passes;

	printf("{\"name\": \"%s\", \"size\": %zu, \"passes\": %d, \"loads\": %zu, "
	       "\"stores\": %zu}", t->name, t->size, t->passes, t->loads * words,
	       t->stores * words);
}

int main(int argc, char **argv)
{
	const int n = sizeof(tests) / sizeof(*tests);
	int cpu, node, other;
	word *area;

	if (argc != 4 && argc != 5) {
		fputs("known CPU NODE OTHER: counts on NODE, all else is on OTHER\n", stderr);
		return 2;
	}
	cpu = mem_number("CPU", argv[1], 0);
	node = mem_number("NODE", argv[2], 0);
	other = mem_number("OTHER", argv[3], 0);
	mem_run_on_cpu(cpu);
	mem_bind_thread(other);
	/* Once more, now with stack and data on the other node from the start. */
	if (argc == 4) {
		execl("/proc/self/exe", argv[0], argv[1], argv[2], argv[3], "bound", NULL);
		die("cannot run itself: %s", strerror(errno));
	}
	area = (word *)mem_map_thp(LARGE);
	mem_bind((void *)area, LARGE, node);
	store(area, LARGE, 1);
	if (mem_smaps(0, "AnonHugePages") < LARGE || mem_node((void *)area) != node)
		die("the memory is not THP on node %d: is it large enough?", node);
	for (int i = 0; i < n; i++)
		measure(&tests[i], area);
	printf("{\"test\": \"known\", \"cpu\": %d, \"node\": %d, \"phases\": [", cpu, node);
	for (int i = 0; i < n; i++) {
		fputs(i ? ", " : "", stdout);
		print(&tests[i]);
	}
	puts("]}");
	return 0;
}
