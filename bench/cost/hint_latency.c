// SPDX-License-Identifier: GPL-2.0
/*
 * How long NUMA hinting faults of THP take, in guest nanoseconds: with the
 * target node free, nearly full, or in pieces too small for a THP.
 *
 * Runs in a guest with one CPU, on node 0, and memory on node 1, under QEMU's
 * -icount shift=0,sleep=off, where a nanosecond is an instruction.  THP that
 * were faulted in on node 1 are touched over and over, until each has had its
 * number of hinting faults, whatever became of them.
 *
 * hint_latency [-n THP] [-f FAULTS] [-r ROOM] [-t SECONDS] free|full|pieces
 *
 * Prints one line of JSON, or one line on stderr and exits with 1.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "window.h"

/* A touch that took longer than this may have had a fault, and is asked about. */
#define FAULT		100
#define KEEP		16	/* one base page of so many stays, in pieces */
#define MARKED		2	/* faults of each THP that bench/profile sees */
#define MIB		((size_t)1 << 20)
#define NO_WINDOW	UINT64_MAX

/* Where the page was before a fault and after it. */
enum kind { MIGRATED, LOCAL, STAYED, KINDS };
static const char *const kinds[] = { "migrated", "local", "stayed" };

static struct {
	size_t n;
	size_t faults;		/* of each THP */
	size_t room;		/* THP that a node that is nearly full still takes */
	double limit;		/* seconds */
	size_t thp;
	char *area;
} run = { .n = 128, .faults = 8, .room = 32, .limit = 120 };

static struct {
	struct cost *cost;
	size_t n;
} found[KINDS];

static struct window window;

/* Bytes of node 0 above the high watermarks of its zones: what may be migrated to. */
static size_t room(void)
{
	FILE *f = fopen("/proc/zoneinfo", "r");
	long long pages = 0, free = 0, n;
	char line[256];
	int node = -1;

	if (!f)
		die("cannot read /proc/zoneinfo");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d", &node) == 1 || node)
			continue;
		if (sscanf(line, " pages free %lld", &n) == 1)
			free = n;
		else if (sscanf(line, " high %lld", &n) == 1 && free > n)
			pages += free - n;
	}
	fclose(f);
	return pages * mem_base_size();
}

/* Take pages of @page bytes of node 0 until only @left is above the watermarks. */
static char *fill(size_t page, size_t left, size_t *filled)
{
	size_t size = room() & ~(run.thp - 1);
	char *area = mem_map_pages(size, page);

	mem_bind(area, size, 0);
	for (*filled = 0; *filled < size && room() > left; *filled += run.thp)
		for (size_t o = 0; o < run.thp; o += mem_base_size())
			area[*filled + o] = 1;
	return area;
}

/* No THP of node 0 is free, but most of its base pages are. */
static void break_up(void)
{
	size_t page = mem_base_size(), filled, left, size;
	char *area = fill(page, run.thp, &filled);

	for (size_t o = 0; o < filled; o += KEEP * page)
		if (madvise(area + o, (KEEP - 1) * page, MADV_DONTNEED))
			die("MADV_DONTNEED failed");
	/* What was left whole is taken: one touch takes a THP if there is one */
	size = filled & ~(run.thp - 1);
	area = mem_map_thp(size);
	mem_bind(area, size, 0);
	left = mem_smaps(0, "AnonHugePages");
	for (size_t o = 0; o < size; o += run.thp) {
		size_t now;

		area[o] = 1;
		now = mem_smaps(0, "AnonHugePages");
		if (now == left)
			return;
		left = now;
	}
	die("node 0 still has free THP");
}

static void put_pressure(const char *what)
{
	size_t filled;

	if (!strcmp(what, "full"))
		fill(run.thp, run.room * run.thp, &filled);
	else if (!strcmp(what, "pieces"))
		break_up();
	else if (strcmp(what, "free"))
		die("there is free, full and pieces, no '%s'", what);
}

static void place(void)
{
	size_t size = run.n * run.thp;

	run.area = mem_map_thp(size);
	mem_bind(run.area, size, 1);
	for (size_t o = 0; o < size; o += mem_base_size())
		run.area[o] = o / run.thp + 1;
	if (mem_whole(0, run.area, size, run.thp) < size)
		die("not backed by whole THP: is node 1 too small?");
}

static uint64_t touch(volatile char *p, bool mark)
{
	uint64_t start;

	if (mark) {
		mark_begin(window.name);
		window.next++;
	}
	start = mem_instructions();
	(void)*p;
	start = mem_instructions() - start;
	if (mark)
		mark_end();
	return start - window.empty;
}

/* Without a fault, which there is none of while the area is under a policy. */
static void measure_empty(void)
{
	uint64_t best = touch(run.area, true);

	for (int i = 0; i < 1000; i++) {
		uint64_t t = touch(run.area, false);

		if (t < best)
			best = t;
	}
	window.empty = best;
}

static long faults(void)
{
	static struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static void record(char *p, uint64_t t, bool was_local, bool marked)
{
	bool local = mem_node(p) == 0;
	enum kind k = !local ? STAYED : was_local ? LOCAL : MIGRATED;

	found[k].cost[found[k].n++] = (struct cost){
		t, marked ? window.next - 1 : NO_WINDOW
	};
}

static void measure(void)
{
	size_t *had = calloc(run.n, sizeof(*had)), left = run.n;
	bool *local = calloc(run.n, sizeof(*local));
	double start = mem_seconds();
	long seen = faults();

	while (left) {
		long before = seen;

		if (mem_seconds() - start > run.limit)
			die("%zu of %zu THP had less than %zu faults in %g s", left, run.n,
			    run.faults, run.limit);
		for (size_t i = 0; i < run.n; i++) {
			char *p = run.area + i * run.thp;
			bool mark = had[i] < MARKED;
			uint64_t t = touch(p, mark);
			long now;

			if (t < FAULT)
				continue;
			now = faults();
			if (now == seen)
				continue;	/* it was an interrupt */
			seen = now;
			if (had[i] == run.faults)
				continue;
			record(p, t, local[i], mark);
			local[i] = mem_node(p) == 0;
			left -= ++had[i] == run.faults;
			seen = faults();
		}
		if (seen == before)
			mem_spin();
	}
	free(local);
	free(had);
}

static void check(void)
{
	for (size_t o = 0; o < run.n * run.thp; o += mem_base_size())
		if (run.area[o] != (char)(o / run.thp + 1))
			die("THP %zu lost its data", o / run.thp);
	if (mem_whole(0, run.area, run.n * run.thp, run.thp) < run.n * run.thp)
		die("not all THP stayed whole");
}

/* The faults of a kind: what each took, and its window or null. */
static void print(const char *name, const struct cost *c, size_t n)
{
	printf(", \"%s\": [", name);
	for (size_t i = 0; i < n; i++) {
		printf("%s[%llu, ", i ? ", " : "", (unsigned long long)c[i].value);
		if (c[i].window == NO_WINDOW)
			printf("null]");
		else
			printf("%llu]", (unsigned long long)c[i].window);
	}
	printf("]");
}

int main(int argc, char **argv)
{
	struct mem_counter before[MEM_COUNTERS], after[MEM_COUNTERS];
	size_t left;
	int c;

	while ((c = getopt(argc, argv, "n:f:r:t:")) != -1) {
		if (c == 'n')
			run.n = mem_number("-n", optarg, 1);
		else if (c == 'f')
			run.faults = mem_number("-f", optarg, 1);
		else if (c == 'r')
			run.room = mem_number("-r", optarg, 0);
		else if (c == 't')
			run.limit = mem_number("-t", optarg, 1);
		else
			return 2;
	}
	if (optind != argc - 1)
		die("which pressure, free, full or pieces?");
	if (mem_node_cpus(1))
		die("node 1 must have memory only: give the guest one CPU, on node 0");

	run.thp = mem_thp_size();
	snprintf(window.name, sizeof(window.name), "latency-%s", argv[optind]);
	for (int k = 0; k < KINDS; k++) {
		found[k].cost = calloc(run.n * run.faults, sizeof(struct cost));
		/* Not to be faulted in while that is measured */
		memset(found[k].cost, 0xff, run.n * run.faults * sizeof(struct cost));
	}
	place();
	measure_empty();
	put_pressure(argv[optind]);
	mem_hint_only(run.area);
	mem_bind(run.area, run.n * run.thp, -1);
	left = room();
	mem_vmstat(before);
	measure();
	mem_vmstat(after);
	check();

	printf("{\"test\": \"hint_latency\", \"pressure\": \"%s\", \"thp\": %zu, "
	       "\"thp_bytes\": %zu, \"page_bytes\": %zu, \"faults_each\": %zu, \"room_mib\": %zu, "
	       "\"window\": \"%s\"",
	       argv[optind], run.n, run.thp, mem_base_size(), run.faults, left / MIB,
	       window.name);
	for (int k = 0; k < KINDS; k++)
		print(kinds[k], found[k].cost, found[k].n);
	printf(", \"vmstat\": ");
	mem_print_delta(before, after);
	puts("}");
	return 0;
}
