// SPDX-License-Identifier: GPL-2.0
/*
 * contended: does NUMA balancing leave pages alone for which two nodes contend?
 *
 * Two threads, bound to CPUs of different nodes, write the same pages by turns:
 * a turn on a page ends with the hinting fault that the page's writer takes, so
 * that each fault of a page comes from the other node than the one before.
 * README.md says what that shows.
 *
 * Prints one line of JSON, or one line on stderr and exits with 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../lib/mem.h"

#define WRITERS	2

static struct {
	size_t page;
	size_t pages;
	size_t size;
	int start;
	int turns;		/* of each page, after the first */
	long limit;		/* seconds */
	char *area;
} run = { .turns = 8, .limit = 120 };

/* How many turns each page has had, and how often it was written. */
static atomic_int *turns;
static unsigned int *written;
static pthread_barrier_t placed, go, done;

static struct writer {
	int id;			/* writers[0] has the first turn of each page */
	int cpu;
	long faults;		/* of all turns: one each, if one serves a page */
	struct rusage usage;	/* here and not on the stack, which may fault in */
} writers[WRITERS];

/* What happened from one moment to the next. */
static struct phase {
	struct mem_counter from[MEM_COUNTERS], to[MEM_COUNTERS];
	size_t moved;		/* pages that were on another node then */
	double seconds;
} first, contended;

static long minor_faults(struct writer *w)
{
	getrusage(RUSAGE_THREAD, &w->usage);
	return w->usage.ru_minflt;
}

/* Write every base page of a page; how many faults that took. */
static long write_page(struct writer *w, size_t i)
{
	volatile unsigned int *p = (void *)(run.area + i * run.page);
	size_t step = mem_base_size() / sizeof(*p), end = run.page / sizeof(*p);
	long before = minor_faults(w), faults;

	for (size_t at = 0; at < end; at += step)
		p[at]++;
	faults = minor_faults(w) - before;
	written[i]++;
	return faults;
}

/*
 * Write the pages that are in a turn of this writer, until none has another
 * before it had @until turns.  Writers have the turns of a page alternately.
 */
static void write_turns(struct writer *w, int until)
{
	double end = mem_seconds() + run.limit;
	size_t left = run.pages;

	while (left) {
		left = 0;
		for (size_t i = 0; i < run.pages; i++) {
			int now = atomic_load(&turns[i]);
			long faults = 0;

			if (now % WRITERS == w->id && now < until)
				faults = write_page(w, i);
			w->faults += faults;
			if (faults)
				atomic_store(&turns[i], ++now);
			left += now + (now % WRITERS != w->id) < until;
		}
		if (mem_seconds() > end)
			die("%zu pages without a hinting fault for %ld s: does the scanner run?",
			    left, run.limit);
	}
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;

	mem_run_on_cpu(w->cpu);
	pthread_barrier_wait(&go);
	mem_bind_thread(-1);
	if (w->id == 0)
		write_turns(w, 1);
	pthread_barrier_wait(&placed);
	pthread_barrier_wait(&go);
	write_turns(w, 1 + run.turns);
	pthread_barrier_wait(&done);
	return NULL;
}

/* One CPU of a node. */
static int cpu_of(int node)
{
	char path[64];
	int cpu;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%d", &cpu) != 1)
		die("node %d has no CPU: need two nodes with CPUs", node);
	fclose(f);
	return cpu;
}

static int *nodes(void)
{
	void **addr = calloc(run.pages, sizeof(*addr));
	int *node = calloc(run.pages, sizeof(*node));

	if (!addr || !node)
		die("out of memory");
	for (size_t i = 0; i < run.pages; i++)
		addr[i] = run.area + i * run.page;
	mem_nodes(0, addr, node, run.pages);
	free(addr);
	return node;
}

static size_t differ(const int *a, const int *b)
{
	size_t n = 0;

	for (size_t i = 0; i < run.pages; i++)
		n += a[i] != b[i];
	return n;
}

/*
 * All memory on the start node, in whole pages of the size.  The policy stays
 * until the writers go: the scanner leaves what a thread with one runs on.
 */
static void place(void)
{
	int *node;

	run.area = mem_map_pages(run.size, run.page);
	mem_bind_thread(run.start);
	for (size_t at = 0; at < run.size; at += mem_base_size())
		*(unsigned int *)(run.area + at) = 0;
	if (mem_whole(0, run.area, run.size, run.page) < run.size)
		die("not all memory is pages of %zu KiB: is node %d large enough?",
		    run.page >> 10, run.start);
	node = nodes();
	for (size_t i = 0; i < run.pages; i++)
		if (node[i] != run.start)
			die("the memory did not start on node %d", run.start);
	free(node);
}

/*
 * Base pages that are new on an LRU wait for others in a list of their CPU, with
 * a reference for which the scanner passes them by.  The system call empties
 * the lists; it moves nothing to where it is.
 */
static void drain_lru_lists(void)
{
	void *addr = run.area;
	int node = mem_node(addr), status;

	if (syscall(SYS_move_pages, 0, 1, &addr, &node, &status, 0))
		die("move_pages: %s", strerror(errno));
}

/* Let the writers go until they meet at a barrier. */
static void watch(struct phase *p, pthread_barrier_t *end)
{
	int *before = nodes(), *after;
	double start = mem_seconds();

	drain_lru_lists();
	mem_vmstat(p->from);
	pthread_barrier_wait(&go);
	pthread_barrier_wait(end);
	p->seconds = mem_seconds() - start;
	mem_vmstat(p->to);
	after = nodes();
	p->moved = differ(before, after);
	free(before);
	free(after);
}

/* Every write of a turn must be there. */
static void check_data(void)
{
	for (size_t at = 0; at < run.size; at += mem_base_size()) {
		unsigned int is = *(unsigned int *)(run.area + at);
		unsigned int want = written[at / run.page];

		if (is != want)
			die("data lost at offset %zu: %u, not %u", at, is, want);
	}
}

static void print_phase(const char *name, const struct phase *p)
{
	printf("\"%s\": {\"seconds\": %.3f, \"moved\": %zu, \"vmstat\": ", name, p->seconds,
	       p->moved);
	mem_print_delta(p->from, p->to);
	putchar('}');
}

static void look_around(size_t mib)
{
	if (!run.page)
		run.page = mem_thp_size();
	run.size = mib << 20;
	run.pages = run.size / run.page;
	if (run.start > 1)
		die("start node %d: it is 0 or 1", run.start);
	if (run.size % mem_thp_size())
		die("%zu MiB are not a whole number of THP", mib);
	writers[0] = (struct writer){ .id = 0, .cpu = cpu_of(!run.start) };
	writers[1] = (struct writer){ .id = 1, .cpu = cpu_of(run.start) };
	turns = calloc(run.pages, sizeof(*turns));
	written = calloc(run.pages, sizeof(*written));
	if (!turns || !written)
		die("out of memory");
}

int main(int argc, char **argv)
{
	pthread_t id[WRITERS];
	size_t mib = 16;
	int c;

	while ((c = getopt(argc, argv, "s:m:k:t:")) != -1) {
		switch (c) {
		case 's': run.start = mem_number("-s", optarg, 0); break;
		case 'm': mib = mem_number("-m", optarg, 1); break;
		case 'k': run.page = mem_number("-k", optarg, 1) << 10; break;
		case 't': run.turns = 2 * mem_number("-t", optarg, 1); break;
		default:
			fputs("contended [-s start node] [-m MiB] [-k KiB of a page] "
			      "[-t turns of each writer]\n", stderr);
			return 2;
		}
	}
	look_around(mib);
	mem_allow_pages(run.page);
	pthread_barrier_init(&placed, NULL, WRITERS + 1);
	pthread_barrier_init(&go, NULL, WRITERS + 1);
	pthread_barrier_init(&done, NULL, WRITERS + 1);
	place();
	for (int i = 0; i < WRITERS; i++) {
		errno = pthread_create(&id[i], NULL, writer_main, &writers[i]);
		if (errno)
			die("pthread_create: %s", strerror(errno));
	}
	/* A fault of anything else would be taken for one of a page. */
	mem_hint_only(run.area);
	watch(&first, &placed);
	watch(&contended, &done);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(id[i], NULL);
	check_data();
	printf("{\"test\": \"contended\", \"mib\": %zu, \"page_kib\": %zu, \"base_kib\": %zu, "
	       "\"start_node\": %d, \"pages\": %zu, \"turns\": %d, \"faults\": [%ld, %ld], "
	       "\"whole_mib\": %g, ", mib, run.page >> 10, mem_base_size() >> 10, run.start,
	       run.pages, run.turns, writers[0].faults, writers[1].faults,
	       (double)mem_whole(0, run.area, run.size, run.page) / (1 << 20));
	print_phase("first", &first);
	printf(", ");
	print_phase("contended", &contended);
	puts("}");
	return 0;
}
