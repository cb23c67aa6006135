/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs of bench/ share: memory policy by raw system calls (no
 * libnuma), THP-backed areas, where pages are, /proc/vmstat and the clock.
 * Every function ends the program with one line on stderr when it fails.
 */
#ifndef BENCH_MEM_H
#define BENCH_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEM_NODES	64	/* node masks are one word */

void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Number given as text, at least @min; @name is for the message. */
long mem_number(const char *name, const char *text, long min);

/* Sum over /proc/self/smaps, or /proc/PID/smaps, of one field, in bytes. */
size_t mem_smaps(int pid, const char *field);
/* Bytes of a PMD-mapped THP on this kernel. */
size_t mem_thp_size(void);
size_t mem_base_size(void);

/* @size bytes, THP aligned and advised, nothing faulted in yet. */
char *mem_map_thp(size_t size);
/* The same, to be of pages of @page bytes once they are allowed. */
char *mem_map_pages(size_t size, size_t page);
/*
 * Allow THP of @page bytes to who asks for them, of no other size, until this
 * process ends; @page may be that of base pages, then none.  The kernel must
 * have the size; one with a single size has no settings by size, none are made.
 * mem_put_back() is for who ends without exit().
 */
void mem_allow_pages(size_t page);
void mem_put_back(void);
/*
 * Bytes of a range of a process that lie in whole pages of @page bytes, each
 * naturally aligned in memory as it is in the range; @pid 0 is the caller.
 */
size_t mem_whole(int pid, const char *area, size_t size, size_t page);
/*
 * From now on NUMA balancing leaves all memory of the caller but @area alone:
 * what is counted as a hinting fault is one of @area.
 */
void mem_hint_only(const char *area);
/* Policy of a mapping, or of the calling thread; node < 0: MPOL_DEFAULT. */
void mem_bind(void *addr, size_t size, int node);
void mem_bind_thread(int node);
/* Node of each page in @addr, or -errno; @pid 0 is the caller. */
void mem_nodes(int pid, void **addr, int *node, size_t n);
int mem_node(void *addr);
/* Have the page at @addr of the caller moved to a node. */
void mem_move(void *addr, int node);

/* Is there such a node?  Their numbers may have gaps, as 0 and 8 on POWER. */
bool mem_has_node(int node);
/* CPUs of a node; 0 for a node with memory only, or none at all. */
int mem_node_cpus(int node);
/* Bind the calling thread to the CPUs of a node. */
void mem_run_on(int node);
/* The same, to one CPU. */
void mem_run_on_cpu(int cpu);
/*
 * Of nodes 0 to @nodes - 1, that with memory nearest to @node, itself if it has
 * any; or the farthest one but itself.
 */
int mem_beside(int node, int nodes, bool far);

struct mem_counter {
	const char *name;
	long long value;	/* -1: this kernel has no such counter */
};
/* What a run is judged by; ends with a NULL name. */
extern const char *const mem_counters[];
/* Fill @c, as long as mem_counters[], from /proc/vmstat. */
void mem_vmstat(struct mem_counter *c);
/*
 * Values of @n counters by their names, at little cost; false: not all are
 * there.  What /proc/vmstat says must fit into 32 KiB.
 */
bool mem_vmstat_now(const char *const *names, long long *value, int n);
/* "name": delta, ... as a JSON object on stdout; null: no such counter. */
void mem_print_delta(const struct mem_counter *from, const struct mem_counter *to);
#define MEM_COUNTERS 20

/* Seconds of CLOCK_MONOTONIC. */
double mem_seconds(void);

/*
 * Run for about a million instructions that an emulator is quick with: the
 * scanner of NUMA balancing wants a task that runs, not one that sleeps.
 */
static inline void mem_spin(void)
{
	for (int i = 0; i < 300000; i++)
		asm volatile("" ::: "memory");
}

/* Instructions so far, in a guest whose clock counts them (-icount shift=0). */
static inline uint64_t mem_instructions(void)
{
#ifdef __x86_64__
	uint32_t lo, hi;

	/* Not scaled, unlike the nanoseconds: exact to the instruction. */
	asm volatile("lfence; rdtsc; lfence" : "=a" (lo), "=d" (hi) :: "memory");
	return (uint64_t)hi << 32 | lo;
#else
	return mem_seconds() * 1e9;
#endif
}

#endif
